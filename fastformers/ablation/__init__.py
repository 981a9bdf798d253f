"""The paper's Table 3 for a model and a machine: the speed-up of each optimization."""
