"""The parts of a graph: embeddings, attention, layers of GPUs."""
