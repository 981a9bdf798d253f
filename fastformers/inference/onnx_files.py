"""A graph on disk: the ONNX file, and beside it the weights that the processes of a host share.

    graph -> model.onnx + model.onnx.data -> [onnx_files] -> bundle, engine

This module knows the two files' names and sizes, not their form: `export/external_data.py` writes
them, and the engines read them.
"""

from pathlib import Path

# Name of the initializer that holds the token embeddings.
TOKEN_EMBEDDINGS = "words"
# Metadata of a graph for GPUs: how many of them there are.
VOCABULARY_KEY = "fastformers.vocabulary"


def weights_path(graph: Path) -> Path:
    """The file of a graph's weights; the ONNX file knows it by this name."""
    return graph.with_name(f"{graph.name}.data")


def measure_graph_bytes(graph: Path) -> int:
    """Size of a graph with its weights."""
    return graph.stat().st_size + weights_path(graph).stat().st_size


def remove_graph(graph: Path) -> None:
    """Delete a graph and its weights."""
    graph.unlink()
    weights_path(graph).unlink()
