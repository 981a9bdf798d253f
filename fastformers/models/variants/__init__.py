"""PyTorch models that no library has: static vectors, and layers that pass on fewer tokens."""
