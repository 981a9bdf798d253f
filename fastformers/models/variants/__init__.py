"""PyTorch models that carry fewer tokens from layer to layer."""
