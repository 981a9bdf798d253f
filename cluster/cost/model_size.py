"""How much arithmetic a bundle's graph does for a token, read from the ONNX file itself.

    model.onnx -> [model_size] -> cost on a GPU

Only a published throughput of another model is known for a GPU, so its cost scales with arithmetic.
Scoring needs no `onnx` package, so this reads the few fields it wants straight from the file's
protocol buffer; field numbers are those of onnx.proto3 (onnx 1.18).
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastformers.errors import BundleError

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_NODE_INPUT, _NODE_OP_TYPE = 1, 4
_TENSOR_DIMS, _TENSOR_NAME = 1, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Arithmetic of an encoder.

    Attributes:
        multiply_adds_per_token: Weights of its matrix products; attention scores, which depend on
            length, are not among them.
        width: Median of the smaller sides of those matrices: the model's width.
    """

    multiply_adds_per_token: int
    width: int


def read_model_size(path: Path) -> ModelSize:
    """Size of the graph in an ONNX file.

    Raises:
        BundleError: The file holds no matrix products, or is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            matrices = _matrices(raw)
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(f"{path}: cannot be read as ONNX: {error}") from error
    if not matrices:
        raise BundleError(f"{path}: has no matrix product; compress the model again")
    sides = sorted(min(matrix) for matrix in matrices)
    return ModelSize(
        multiply_adds_per_token=sum(rows * columns for rows, columns in matrices),
        width=sides[len(sides) // 2],
    )


def _matrices(raw: mmap.mmap) -> list[tuple[int, int]]:
    """Shapes of the constant matrices that anything but a lookup uses."""
    shapes: dict[str, tuple[int, ...]] = {}
    used: set[str] = set()
    for number, start, stop in _fields(raw, 0, len(raw)):
        if number != _MODEL_GRAPH:
            continue
        for inner, first, last in _fields(raw, start, stop):
            if inner == _GRAPH_INITIALIZER:
                name, shape = _tensor(raw, first, last)
                shapes[name] = shape
            elif inner == _GRAPH_NODE:
                used |= _product_inputs(raw, first, last)
    return [(s[0], s[1]) for name, s in shapes.items() if len(s) == 2 and name in used]


def _tensor(raw: mmap.mmap, start: int, stop: int) -> tuple[str, tuple[int, ...]]:
    name, dims = "", []
    for number, first, last in _fields(raw, start, stop):
        if number == _TENSOR_NAME:
            name = raw[first:last].decode()
        elif number == _TENSOR_DIMS:  # packed, or one varint for each side
            place = first
            while place < last:
                side, place = _varint(raw, place)
                dims.append(side)
    return name, tuple(dims)


def _product_inputs(raw: mmap.mmap, start: int, stop: int) -> set[str]:
    inputs, operator = [], ""
    for number, first, last in _fields(raw, start, stop):
        if number == _NODE_INPUT:
            inputs.append(raw[first:last].decode())
        elif number == _NODE_OP_TYPE:
            operator = raw[first:last].decode()
    return set() if operator == "Gather" else set(inputs)


def _fields(raw: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a message."""
    while start < stop:
        tag, start = _varint(raw, start)
        kind = tag & 7
        if kind == _BYTES:
            size, start = _varint(raw, start)
        elif kind == _VARINT:
            size = _varint(raw, start)[1] - start
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        if start + size > stop:
            raise ValueError(f"a field ends behind byte {stop}")
        yield tag >> 3, start, start + size
        start += size


def _varint(raw: mmap.mmap, place: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    while True:
        byte = raw[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
