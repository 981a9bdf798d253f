"""PyTorch models: load, run, train."""
