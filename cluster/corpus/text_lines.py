"""Read pieces of JSON lines and CSV files: text, so cut by bytes and never to be trusted.

    slices -> [text_lines] -> rows, good and bad, in corpus order -> shards

A JSON lines file's kept columns take the types of its first megabyte. CSV has no types, so its
kept columns are strings; and as a quoted field may hold line breaks, a CSV file is read in order.
"""

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs

from fastformers.errors import InputError

SAMPLE_BYTES = 2**20
_COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}
# What pyarrow raises for a value that does not fit its column.
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError)
csv.field_size_limit(2**31 - 1)


def convert_values(values: Sequence[Any], field: pa.Field, errors: dict[int, str]) -> pa.Array:
    """Values as a column of the field's type; a row whose value does not fit becomes bad."""
    with contextlib.suppress(*UNFIT):
        array = pa.array(values, field.type)
        if _is_same(array.to_pylist(), list(values)):
            return array
    converted: list[Any] = []
    for row, value in enumerate(values):
        fitted = None
        with contextlib.suppress(*UNFIT):
            fitted = pa.scalar(value, field.type).as_py()
        if not _is_same(fitted, value):
            fitted = None
            reason = f"column {field.name!r}: {value!r:.60} is not {field.type}"
            errors.setdefault(row, reason.encode("utf-8", "replace").decode())
        converted.append(fitted)
    return pa.array(converted, field.type)


def _is_same(stored: Any, given: Any) -> bool:
    """Whether a value kept its meaning: pyarrow makes 1 of 1.5 in a column of integers."""
    if isinstance(given, dict) and isinstance(stored, dict):
        return all(_is_same(stored.get(key), value) for key, value in given.items())
    if isinstance(given, list) and isinstance(stored, list):
        return len(given) == len(stored) and all(map(_is_same, stored, given))
    return bool(stored == given) or given != given


def count_records(rows: Iterator[Any], path: str, *, skip: bool) -> int:
    """Rows that can be read, and one for the place where a damaged file ends."""
    num_rows = 0
    try:
        for _ in rows:
            num_rows += 1
    except OSError as error:
        unreadable_reason(path, error, skip=skip)
        num_rows += 1
    return num_rows


def unreadable_reason(path: str, error: OSError, *, skip: bool) -> str:
    """Reason of the row at which a file, cut off say, cannot be read any further."""
    if skip:
        return f"the file cannot be read from here on: {error}"
    raise InputError(
        f"{path}: cannot be read to its end ({error}); repair it, or pass "
        "--skip-unreadable-files to score what can be read"
    ) from error


def is_compressed(path: str) -> bool:
    """Whether a file can only be read from its beginning."""
    return path.lower().rpartition(".")[2] in _COMPRESSIONS


def open_lines(filesystem: pyarrow.fs.FileSystem, path: str, start: int) -> io.BufferedReader:
    """Open a text file's bytes at an offset, decompressed."""
    compression = _COMPRESSIONS.get(path.lower().rpartition(".")[2])
    if compression is None:
        file = filesystem.open_input_file(path)
        file.seek(start)
    else:
        file = filesystem.open_input_stream(path, compression=compression)
        file.read(start)
    return io.BufferedReader(file, SAMPLE_BYTES)
