"""Read pieces of JSON lines and CSV files: text, so cut by bytes and never to be trusted.

    slices -> [text_formats] -> rows, good and bad, in corpus order -> shards

A JSON lines file's kept columns take the types of its first megabyte. CSV has no types, so its
kept columns are strings; and as a quoted field may hold line breaks, a CSV file is read in order.
"""

import contextlib
import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from cluster.corpus_formats import FilePart, Rows, check_columns, check_texts, not_text
from fastformers.errors import InputError

_SAMPLE_BYTES = 2**20
_COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}
# What pyarrow raises for a value that does not fit its column.
_UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError)
csv.field_size_limit(2**31 - 1)
_CONVINCING_RECORDS = 5  # that have as many fields as the header, to believe that a record begins


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """Byte ranges of JSON lines files; a compressed file is one range."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
    expansion: ClassVar[int] = 1

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        with _open_lines(filesystem, path, 0) as file:
            lines = [line for line in file.readlines(_SAMPLE_BYTES) if line.strip()]
        records = [record for line in lines if isinstance(record := _parse_json(line), dict)]
        if not records:
            if lines:
                raise InputError(f"{path}: no line of its first MiB is a JSON object")
            return None
        names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
        check_columns(path, names, text_columns, keep_columns)
        for name in text_columns:
            kinds = {type(r[name]).__name__ for r in records if r.get(name) is not None}
            if kinds and "str" not in kinds:
                raise not_text(path, name, " or ".join(sorted(kinds)))
        fields = [
            (name, _infer_type(path, name, [r.get(name) for r in records])) for name in keep_columns
        ]
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=pa.schema(fields),
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        [info] = self.filesystem.get_file_info([path])
        if limit is not None:
            with _open_lines(self.filesystem, path, 0) as file:
                lines = itertools.islice(filter(bytes.strip, file), limit)
                num_rows = _count(lines, path, skip=self.skip_unreadable)
            yield FilePart(
                start=0, stop=None, num_bytes=info.size, num_rows=num_rows, max_rows=limit
            )
        elif is_compressed(path):
            yield FilePart(start=0, stop=None, num_bytes=info.size)
        else:
            for start in range(0, info.size, part_bytes):
                stop = min(start + part_bytes, info.size)
                yield FilePart(start=start, stop=stop, num_bytes=stop - start)

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        records: list[dict[str, Any]] = []
        errors: dict[int, str] = {}
        lines = itertools.islice(self._lines(path, start, stop), max_rows)
        try:
            for record in map(_parse_json, lines):
                if isinstance(record, str):
                    errors[len(records)] = record
                records.append(record if isinstance(record, dict) else {})
        except OSError as error:
            errors[len(records)] = _unreadable(path, error, skip=self.skip_unreadable)
            records.append({})
        kept = [_convert([r.get(f.name) for r in records], f, errors) for f in self.kept_schema]
        texts = [[r.get(name) for r in records] for name in self.text_columns]
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=pa.table(kept, schema=self.kept_schema),
        )

    def _lines(self, path: str, start: int, stop: int | None) -> Iterator[bytes]:
        """Lines that begin inside the byte range; the last may end beyond it."""
        with _open_lines(self.filesystem, path, max(0, start - 1)) as file:
            position = max(0, start - 1)
            if start > 0:  # the line that holds the byte before belongs to the range before
                position += len(file.readline())
            for line in file:
                if stop is not None and position >= stop:
                    return
                position += len(line)
                if line.strip():
                    yield line


@dataclass(frozen=True, kw_only=True)
class CsvReader:
    """CSV files with a header line, read in order: a quoted field may hold line breaks."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
    expansion: ClassVar[int] = 1

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        with _open_lines(filesystem, path, 0) as file:
            names = _header(file, [0])
            if names is None or file.peek(1) == b"":
                return None
        check_columns(path, names, text_columns, keep_columns)
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=pa.schema([(name, pa.string()) for name in keep_columns]),
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        [info] = self.filesystem.get_file_info([path])
        num_rows = None
        if limit is not None:
            with _open_lines(self.filesystem, path, 0) as file:
                _header(file, [0])
                records = itertools.islice(_records(file, [0]), limit)
                num_rows = _count(records, path, skip=self.skip_unreadable)
        yield FilePart(
            start=0, stop=None, num_bytes=info.size, num_rows=num_rows, max_rows=num_rows
        )

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        with _open_lines(self.filesystem, path, 0) as file:
            header_end = [0]
            names = _header(file, header_end) or []
        start = start or header_end[0]
        seekable = not is_compressed(path) and max_rows is None
        position = [start]
        rows: list[list[str]] = []
        errors: dict[int, str] = {}
        rest_start = None
        with _open_lines(self.filesystem, path, start) as file:
            records = itertools.islice(_records(file, position), max_rows)
            while True:
                try:
                    fields = next(records, None)
                except OSError as error:
                    fields = _unreadable(path, error, skip=self.skip_unreadable)
                if fields is None:
                    break
                if isinstance(fields, str):
                    errors[len(rows)] = fields
                elif len(fields) != len(names):
                    errors[len(rows)] = f"{len(fields)} fields, but the header has {len(names)}"
                rows.append([""] * len(names) if len(rows) in errors else list(fields))
                if seekable and position[0] - start >= chunk_bytes and file.peek(1):
                    rest_start = position[0]
                    break
        columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        texts = [columns.get(name, ()) for name in self.text_columns]
        kept = [_convert(columns.get(f.name, ()), f, errors) for f in self.kept_schema]
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=pa.table(kept, schema=self.kept_schema),
            rest_start=rest_start,
        )

    def find_record(self, path: str, position: int, size_bytes: int) -> int:
        """Byte at or after `position` where a record seems to begin; for samples.

        That is after the first line break behind which some records in a row have as many fields
        as the header. A quoted field that holds such lines itself can deceive it.
        """
        with _open_lines(self.filesystem, path, 0) as file:
            end = [0]
            num_fields = len(_header(file, end) or [])
        if position <= end[0]:
            return end[0]
        with _open_lines(self.filesystem, path, position - 1) as file:
            start = position - 1 + len(file.readline())
            while start < size_bytes:
                file.seek(start)
                records = list(itertools.islice(_records(file, [0]), _CONVINCING_RECORDS))
                if all(not isinstance(r, str) and len(r) == num_fields for r in records):
                    return start
                file.seek(start)
                start += len(file.readline())
        return size_bytes


def _parse_json(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or why there is none."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else f"not a JSON object but {type(value).__name__}"


def _infer_type(path: str, name: str, values: Sequence[Any]) -> pa.DataType:
    """Type of a kept column, from all the values that are anything at all."""
    valid = []
    for value in values:
        with contextlib.suppress(*_UNFIT):
            pa.array([value])
            valid.append(value)
    try:
        kind = pa.array(valid).type
    except _UNFIT as error:
        raise InputError(f"{path}: --keep-columns: mixed types in {name!r}: {error}") from error
    return pa.string() if kind == pa.null() else kind  # nothing but nulls: text is the likeliest


def _convert(values: Sequence[Any], field: pa.Field, errors: dict[int, str]) -> pa.Array:
    """Values as a column of the field's type; a row whose value does not fit becomes bad."""
    with contextlib.suppress(*_UNFIT):
        array = pa.array(values, field.type)
        if _is_same(array.to_pylist(), list(values)):
            return array
    converted: list[Any] = []
    for row, value in enumerate(values):
        fitted = None
        with contextlib.suppress(*_UNFIT):
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


def _count(rows: Iterator[Any], path: str, *, skip: bool) -> int:
    """Rows that can be read, and one for the place where a damaged file ends."""
    num_rows = 0
    try:
        for _ in rows:
            num_rows += 1
    except OSError as error:
        _unreadable(path, error, skip=skip)
        num_rows += 1
    return num_rows


def _unreadable(path: str, error: OSError, *, skip: bool) -> str:
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


def _open_lines(filesystem: pyarrow.fs.FileSystem, path: str, start: int) -> io.BufferedReader:
    """Open a text file's bytes at an offset, decompressed."""
    compression = _COMPRESSIONS.get(path.lower().rpartition(".")[2])
    if compression is None:
        file = filesystem.open_input_file(path)
        file.seek(start)
    else:
        file = filesystem.open_input_stream(path, compression=compression)
        file.read(start)
    return io.BufferedReader(file, _SAMPLE_BYTES)


def _decoded(file: io.BufferedReader, position: list[int]) -> Iterator[str]:
    """Lines as text, undecodable bytes as surrogates; counts the bytes in `position[0]`."""
    for line in file:
        position[0] += len(line)
        yield line.decode("utf-8", "surrogateescape")


def _records(file: io.BufferedReader, position: list[int]) -> Iterator[list[str] | str]:
    """Fields of each record, or why it has none; blank lines are no records."""
    reader = csv.reader(_decoded(file, position))
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield f"not CSV: {error}"
            continue
        if fields is None:
            return
        if fields:
            yield fields


def _header(file: io.BufferedReader, position: list[int]) -> list[str] | None:
    """Column names, from the first line that is not blank; None if there is none."""
    lines = _decoded(file, position)
    first = next(lines, "").removeprefix("\ufeff")
    return next(filter(None, csv.reader(itertools.chain([first], lines))), None)
