"""The cluster to rent: candidates by a formula, each simulated, the best that holds."""
