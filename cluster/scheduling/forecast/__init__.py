"""How long a run will take yet, with an interval, from what its jobs have taken so far."""
