"""Write a graph's weights beside its ONNX file, where the processes of a host share them.

    EncoderWeights -> graph -> [external_data] -> model.onnx.data

Weights inside an ONNX file are copied to the heap of every process that opens it. Those beside it
(ONNX "external data") are mapped into memory by ONNX Runtime and OpenVINO on the CPU: they are read
when they are first touched, and are in memory once for all processes. Kernels still copy what they
rearrange for themselves, so what is shared is the word embeddings. With XLM-R's 250,002 words and
BERT-base's layers in int8, the memory of each process's own after loading fell from 317 to 112 MiB
(ONNX Runtime 1.32, one x86 core, 2026-11-24). This module knows nothing of encoders or bundles.
"""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from fastformers.atomic_file import whole_file

# Mapping works in whole pages, of 4 KiB on x86 and most Arm machines: a smaller tensor has none to
# share. Offsets are multiples of it, as ONNX asks (ExternalData.md).
PAGE_BYTES = 4096


def write_weights(tensors: Sequence[TensorProto], path: Path) -> list[TensorProto]:
    """Write the initializers of a graph that are large enough to share.

    A file that was there is replaced, not written over: processes that have mapped it keep its old
    contents.

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


def _reference(tensor: TensorProto, location: str, offset: int) -> TensorProto:
    """The tensor without its values, but with where they are."""
    place = {"location": location, "offset": offset, "length": len(tensor.raw_data)}
    return TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=TensorProto.EXTERNAL,
        external_data=[
            onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in place.items()
        ],
    )
