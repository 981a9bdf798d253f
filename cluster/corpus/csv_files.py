"""Read CSV files with a header line.

    slices -> [csv_files] -> rows, good and bad, in corpus order -> shards

CSV has no types, so kept columns are strings; a quoted field may hold line breaks, so a CSV file is
read in order. This module knows nothing of tokens or shards.
"""

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from cluster.corpus.readers import FilePart, Rows, check_columns, check_texts
from cluster.corpus.text_lines import (
    convert_values,
    count_records,
    is_compressed,
    open_lines,
    sample_whole,
    unreadable_reason,
)

# Number of consecutive records with as many fields as the header that prove that one begins there.
_CONVINCING_RECORDS = 5
csv.field_size_limit(2**31 - 1)  # the csv module's own limit of a field is 128 KiB


@dataclass(frozen=True, kw_only=True)
class CsvReader:
    """CSV files with a header line, read in order: a quoted field may hold line breaks."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
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
        skip_unreadable: bool,
    ) -> Self | None:
        with open_lines(filesystem, path, 0) as file:
            try:
                names = _read_header(_Lines(file))
            except csv.Error as error:
                raise ValueError(str(error)) from error
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
            with open_lines(self.filesystem, path, 0) as file:
                lines = _Lines(file)
                _read_header(lines)
                records = itertools.islice(_read_records(lines), limit)
                num_rows = count_records(records, path, skip=self.skip_unreadable)
        yield FilePart(
            start=0, stop=None, num_bytes=info.size, num_rows=num_rows, max_rows=num_rows
        )

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        names, header_end = self._header_of(path)
        start = start or header_end
        seekable = not is_compressed(path) and max_rows is None
        rows: list[list[str]] = []
        errors: dict[int, str] = {}
        rest_start = None
        with open_lines(self.filesystem, path, start) as file:
            lines = _Lines(file, start)
            records = itertools.islice(_read_records(lines), max_rows)
            while True:
                try:
                    fields = next(records, None)
                except OSError as error:
                    fields = unreadable_reason(path, error, skip=self.skip_unreadable)
                if fields is None:
                    break
                if isinstance(fields, str):
                    errors[len(rows)] = fields
                elif len(fields) != len(names):
                    errors[len(rows)] = f"{len(fields)} fields, but the header has {len(names)}"
                rows.append([""] * len(names) if len(rows) in errors else list(fields))
                if seekable and lines.position - start >= chunk_bytes and file.peek(1):
                    rest_start = lines.position
                    break
        columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        texts = [columns.get(name, ()) for name in self.text_columns]
        kept = [convert_values(columns.get(f.name, ()), f, errors) for f in self.kept_schema]
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=pa.table(kept, schema=self.kept_schema),
            rest_start=rest_start,
        )

    def is_read_whole(self, path: str) -> bool:
        return is_compressed(path)

    def measure_file(self, path: str, size_bytes: int) -> int:
        return size_bytes

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        [info] = self.filesystem.get_file_info([path])
        if is_compressed(path):
            return sample_whole(self, path, info.size)
        first, last = (self._find_record(path, mark, info.size) for mark in (start, stop))
        if first >= last:
            return tuple([] for _ in self.text_columns)
        chunk_bytes = last - first
        return self.read(path, start=first, stop=last, max_rows=None, chunk_bytes=chunk_bytes).texts

    def _header_of(self, path: str) -> tuple[list[str], int]:
        """Column names of a file, and the byte after them."""
        with open_lines(self.filesystem, path, 0) as file:
            lines = _Lines(file)
            return _read_header(lines) or [], lines.position

    def _find_record(self, path: str, position: int, size_bytes: int) -> int:
        """Byte at or after `position` where a record seems to begin.

        That is after the first line break that is followed by several records with as many fields
        as the header. A quoted field that holds such lines itself is mistaken for records.
        """
        names, header_end = self._header_of(path)
        num_fields = len(names)
        if position <= header_end:
            return header_end
        with open_lines(self.filesystem, path, position - 1) as file:
            start = position - 1 + len(file.readline())
            while start < size_bytes:
                file.seek(start)
                records = list(itertools.islice(_read_records(_Lines(file)), _CONVINCING_RECORDS))
                if all(not isinstance(r, str) and len(r) == num_fields for r in records):
                    return start
                file.seek(start)
                start += len(file.readline())
        return size_bytes


@dataclass
class _Lines:
    """Lines of an open file as text, undecodable bytes as surrogates.

    Attributes:
        file: The file.
        position: Byte of the file after the last line that was taken.
    """

    file: io.BufferedReader
    position: int = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            self.position += len(line)
            yield line.decode("utf-8", "surrogateescape")


def _read_records(lines: _Lines) -> Iterator[list[str] | str]:
    """Fields of each record, or the reason why it has none; blank lines are not records."""
    reader = csv.reader(lines)
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


def _read_header(lines: _Lines) -> list[str] | None:
    """Column names, from the first line that is not blank; None if there is none."""
    texts = iter(lines)
    first = next(texts, "").removeprefix("\ufeff")
    return next(filter(None, csv.reader(itertools.chain([first], texts))), None)
