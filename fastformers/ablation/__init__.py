"""The paper's Table 3 for a model and a machine: what each optimization brought."""
