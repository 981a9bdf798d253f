"""Write a graph's weights beside its ONNX file, where the processes of a host share them.

    EncoderWeights -> graph -> [external_data] -> model.onnx.data

Weights inside an ONNX file are copied to the heap of every process that opens it. Those beside it
(ONNX "external data") are mapped into memory by ONNX Runtime and OpenVINO on the CPU: they are read
when they are first touched, and are in memory once for all processes. Kernels still copy the
weights that they rearrange, so that mainly the token embeddings are shared. With XLM-R's 250,002
tokens and BERT-base's layers in int8, the private memory of a process after loading fell from 317
to 112 MiB (ONNX Runtime 1.32, one x86 core, 2026-11-24). This module knows nothing of encoders or
bundles.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from fastformers.atomic_file import whole_file
from fastformers.inference.onnx_files import weights_path

# Mapping works in whole pages, of 4 KiB on x86 and most Arm machines: a smaller tensor has none to
# share. Offsets are multiples of it, as ONNX asks (ExternalData.md).
PAGE_BYTES = 4096


def write_weights(tensors: Sequence[TensorProto], path: Path) -> list[TensorProto]:
    """Write the initializers of a graph that are large enough to share.

    An existing file is replaced, not overwritten: processes that have mapped it keep the old
    contents.

    Args:
        tensors: Initializers that hold their values as raw bytes.
        path: File to write, beside the graph.

    Returns:
        The graph's initializers, in order: those that were written refer to the file, the others
        are unchanged.
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


def copy_graph(graph: Path, target: Path) -> None:
    """Copy a graph and its weights to another name, which the copy knows its weights by."""
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = weights_path(target).name
    shutil.copyfile(weights_path(graph), weights_path(target))
    with whole_file(target) as unfinished:
        unfinished.write_bytes(model.SerializeToString())


def _reference(tensor: TensorProto, location: str, offset: int) -> TensorProto:
    """The tensor with the location of its values in place of the values."""
    entries = {"location": location, "offset": offset, "length": len(tensor.raw_data)}
    return TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=TensorProto.EXTERNAL,
        external_data=[
            onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in entries.items()
        ],
    )
