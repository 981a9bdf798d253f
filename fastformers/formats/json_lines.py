"""Read JSON: pieces of files with an object on each line, cut by bytes, and arrays of objects.

    slices -> [json_lines] -> rows, good and bad, in corpus order -> shards

A file that begins with an array is read in order, an element at a time. The values in the first MiB
of a file tell the types of its kept columns. This module knows nothing of tokens or shards.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from fastformers.files.file_bytes import TextFile, is_compressed
from fastformers.files.file_kind import UTF_8, keeps_ascii
from fastformers.formats.column_types import infer_type, repair_text
from fastformers.formats.kept_columns import ROW_COLUMN, candidates, has_nested, read_nested
from fastformers.formats.readers import (
    FilePart,
    ReadOptions,
    Rows,
    SampledRows,
    UnfitFileError,
    cut_evenly,
    no_column,
    not_text,
    opening,
)
from fastformers.formats.records.json_array import split_array
from fastformers.formats.records.record_stream import (
    SAMPLE_AHEAD_BYTES,
    SAMPLE_BYTES,
    Lines,
    read_chunk,
    show_start,
    until_damage,
)
from fastformers.formats.text_lines import Record, make_rows, sample_beginning, texts_of

# Bytes to read beyond a range at once, for the end of its last line.
_LINE_BYTES = 2**16
_UTF_8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class _JsonFile:
    """A file that was looked at, and whether it is an array or has an object on each line."""

    text: TextFile
    is_array: bool

    @property
    def in_order(self) -> bool:
        """Whether it can only be read from its start."""
        return self.is_array or self.text.in_order


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """Byte ranges of JSON lines files; an array, or a compressed file, is one range."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    first_path: str
    options: ReadOptions
    columns: tuple[str, ...]
    keeps_all: bool = False
    guesses: ClassVar[tuple[str, ...]] = ()
    expansion: ClassVar[int] = 1
    sampled_in_rows: ClassVar[bool] = False

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        options: ReadOptions,
    ) -> Self | None:
        _, records = _look(filesystem, path, text_columns, options)
        if not records:
            return None
        names = dict.fromkeys(itertools.chain.from_iterable(records))
        columns = tuple(name for name in names if repair_text(name) == name)  # others have no place
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=_find_kept(records, candidates(keep_columns, columns)),
            first_path=path,
            options=options,
            columns=columns,
        )

    def keep(self, kept_schema: pa.Schema, *, keeps_all: bool) -> Self:
        return replace(self, kept_schema=kept_schema, keeps_all=keeps_all)

    def cut_file(self, path: str, size_bytes: int, part_bytes: int) -> Iterator[FilePart]:
        is_whole = is_compressed(path) or not keeps_ascii(self.options.text_files.encoding or UTF_8)
        if is_whole or ROW_COLUMN in self.kept_schema.names:  # whose rows are counted in order
            yield FilePart(start=0, stop=None, num_bytes=size_bytes)
        elif size_bytes:
            yield from cut_evenly(size_bytes, part_bytes, self.expansion)

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        file = self._open(path)
        if file.in_order:
            records = self._records(file, 0, None, None, part_bytes)
            num_rows = sum(1 for _ in itertools.islice(records, limit))
            yield FilePart(start=0, stop=None, num_bytes=size_bytes, num_rows=num_rows)
            return
        start = num_rows = 0
        with opening(path), file.text.open(0, SAMPLE_BYTES) as text:
            lines = Lines(text, 0, max_bytes=self.options.text_files.max_row_bytes)
            for line in lines:
                stop = lines.position
                if line.strip():
                    num_rows += 1
                    limit -= 1
                if limit == 0 or stop - start >= part_bytes:
                    yield FilePart(
                        start=start, stop=stop, num_bytes=stop - start, num_rows=num_rows
                    )
                    start, num_rows = stop, 0
                if limit == 0:
                    return
        if num_rows:
            yield FilePart(start=start, stop=None, num_bytes=stop - start, num_rows=num_rows)

    def read(
        self,
        path: str,
        *,
        start: int,
        stop: int | None,
        max_rows: int | None,
        chunk_bytes: int,
        rest_start: int | None = None,
        first_row: int = 0,
    ) -> Rows:
        def open_records() -> Iterator[tuple[int, int, Record]]:
            return self._records(self._open(path), start, stop, rest_start, chunk_bytes)

        found, rest_start = read_chunk(
            self,
            (path, start, stop),
            open_records,
            rest_start=rest_start,
            max_records=max_rows,
            chunk_bytes=chunk_bytes,
        )
        return make_rows(self, path, found, first_row=first_row, rest_start=rest_start)

    def is_read_whole(self, path: str) -> bool:
        return is_compressed(path)

    def measure_file(self, path: str, size_bytes: int) -> int:
        return size_bytes

    def sample_span(self, path: str, start: int, stop: int) -> SampledRows:
        file = self._open(path)
        if file.in_order:
            ahead = self._records(file, 0, None, None, SAMPLE_AHEAD_BYTES)
            return sample_beginning(self, file.text, ahead)
        found = [record for _, _, record in self._records(file, start, stop, None, stop - start)]
        return SampledRows(texts=texts_of(self, found), size=stop - start)

    def _open(self, path: str) -> _JsonFile:
        """Open a file, and check that it holds the text columns."""
        file, _ = _look(self.filesystem, path, self.text_columns, self.options)
        return file

    def _records(
        self,
        file: _JsonFile,
        start: int,
        stop: int | None,
        rest_start: int | None,
        chunk_bytes: int,
    ) -> Iterator[tuple[int, int, Record]]:
        """Records of a part with the bytes where they begin; damage ends them."""
        if file.in_order and start > 0:
            return iter(())
        max_bytes = self.options.text_files.max_row_bytes
        found = (
            _read_array(file.text, rest_start, max_bytes)
            if file.is_array
            else _read_lines(
                file.text,
                start,
                None if file.in_order else stop,
                rest_start,
                chunk_bytes,
                max_bytes,
            )
        )
        encoding = file.text.encoding
        parsed = ((at, size, _parse_json(line, encoding, max_bytes)) for at, size, line in found)
        return until_damage(parsed, file.text.path, self.options)


def _look(
    filesystem: pyarrow.fs.FileSystem,
    path: str,
    text_columns: Sequence[str],
    options: ReadOptions,
) -> tuple[_JsonFile, list[dict[str, Any]]]:
    """A file and the records in its first MiB; none if it has no rows.

    Raises:
        UnfitFileError: It cannot be read, is no JSON, or does not hold the text columns.
    """
    with opening(path):
        text = TextFile(filesystem, path, encoding=options.text_files.encoding)
        with text.open(0, SAMPLE_BYTES) as opened:
            sample = opened.read(SAMPLE_BYTES).removeprefix(_UTF_8_MARK)
            if not sample.lstrip().startswith(b"["):
                sample += opened.readline(options.text_files.max_row_bytes)
        is_array = _is_array(sample, text.encoding)
        lines = [line for line in sample.split(b"\n") if line.strip()]
        if is_array:
            lines = list(_first_elements(text, options.text_files.max_row_bytes))
    file = _JsonFile(text=text, is_array=is_array)
    parsed = (_parse_json(line, text.encoding, options.text_files.max_row_bytes) for line in lines)
    records = [record for record in parsed if isinstance(record, dict)]
    if not records:
        if lines:
            place = "element" if is_array else "line"
            raise UnfitFileError(path, f"no {place} of its first MiB is a JSON object")
        return file, []
    for name in text_columns:
        if not any(has_nested(record, name) for record in records):
            names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
            raise no_column(path, names, name, flag=options.text_flags)
        values = (read_nested(record, name) for record in records)
        kinds = {type(value).__name__ for value in values if value is not None}
        if kinds and "str" not in kinds:
            raise not_text(path, name, " or ".join(sorted(kinds)), flags=options.text_flags)
    return file, records


def _find_kept(records: Sequence[dict[str, Any]], names: Sequence[str]) -> pa.Schema:
    """Names and types of those of the columns that are in the records."""
    return pa.schema(
        [
            (name, infer_type([read_nested(record, name) for record in records]))
            for name in names
            if any(has_nested(record, name) for record in records)
        ]
    )


def _is_array(sample: bytes, encoding: str) -> bool:
    """Whether a file is one array; one with an array on each line is none.

    Raises:
        ValueError: It is an object that goes over several lines.
    """
    sample = sample.lstrip()
    first, _, others = sample.partition(b"\n")
    try:
        json.loads(first.decode(encoding))
        return first.startswith(b"[") and not others.strip()
    except (ValueError, RecursionError):
        is_object = sample.startswith(b"{")
    if is_object:
        text = sample.decode(encoding, "replace")
        try:
            end = json.JSONDecoder().raw_decode(text)[1]
        except json.JSONDecodeError as error:
            end = error.pos if not text[error.pos :].strip() else 0
        except RecursionError:
            end = 0
        if "\n" in text[:end].strip():
            raise ValueError("a JSON object goes over several lines; write one on each line")
    return sample.startswith(b"[")


def _read_lines(
    file: TextFile,
    start: int,
    stop: int | None,
    rest_start: int | None,
    chunk_bytes: int,
    max_bytes: int,
) -> Iterator[tuple[int, int, bytes]]:
    """Lines that begin inside the byte range and are not blank; the last may end beyond it."""
    position = max(0, start - 1) if rest_start is None else rest_start
    size_bytes = (file.size_bytes if stop is None else stop) - position
    ahead_bytes = min(max(size_bytes, 1), max(chunk_bytes, SAMPLE_BYTES)) + _LINE_BYTES
    if file.in_order:
        ahead_bytes = chunk_bytes
    with file.open(position, ahead_bytes) as text:
        lines = Lines(text, position, max_bytes=max_bytes)
        if start > 0 and rest_start is None:  # the line that holds the byte before
            next(lines, b"")  # belongs to the range before
        begin = lines.position
        for line in lines:
            if stop is not None and begin >= stop:
                return
            if line.strip():
                yield begin, lines.position - begin, line
            begin = lines.position


def _read_array(
    file: TextFile, rest_start: int | None, max_bytes: int
) -> Iterator[tuple[int, int, bytes]]:
    position = rest_start or 0
    with file.open(position, SAMPLE_BYTES) as text:
        yield from split_array(
            text, position, is_inside=rest_start is not None, max_bytes=max_bytes
        )


def _first_elements(file: TextFile, max_bytes: int) -> Iterator[bytes]:
    """Elements that begin in the first MiB of an array, as far as they can be read."""
    with contextlib.suppress(OSError):
        for begin, _, element in _read_array(file, None, max_bytes):
            if begin > SAMPLE_BYTES:
                return
            yield element


def _parse_json(line: bytes, encoding: str, max_bytes: int) -> Record:
    """The object on a line, or the reason why there is none."""
    if len(line) > max_bytes and not line.endswith(b"\n"):
        return f"longer than {max_bytes:,} bytes (--max-row-bytes)"
    try:
        value = json.loads(line.removeprefix(_UTF_8_MARK).decode(encoding))
    except UnicodeDecodeError:
        return f"invalid {encoding.upper()}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}, in {show_start(line, encoding)}"
    return value if isinstance(value, dict) else f"not a JSON object but {type(value).__name__}"
