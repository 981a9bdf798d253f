"""Read CSV files with a header line.

    slices -> [csv_files] -> rows, good and bad, in corpus order -> shards

CSV has no types, so kept columns are strings; a quoted field may hold line breaks, so a CSV file is
read in order. This module knows nothing of tokens or shards.
"""

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from fastformers.formats.file_bytes import FileBytes, is_compressed
from fastformers.formats.kept_columns import candidates, count_unknown, keep_rows
from fastformers.formats.readers import (
    KEEP_FLAG,
    FilePart,
    ReadOptions,
    Rows,
    check_columns,
    check_text_columns,
    check_texts,
    opening,
)
from fastformers.formats.text_lines import (
    SAMPLE_BYTES,
    count_records,
    sample_whole,
    unreadable_reason,
)

# Number of consecutive records with as many fields as the header that prove that one begins there.
_CONVINCING_RECORDS = 5
_HEADER_BYTES = 2**16  # bytes to read ahead for a header
csv.field_size_limit(2**31 - 1)  # the csv module's own limit of a field is 128 KiB


@dataclass(frozen=True, kw_only=True)
class CsvReader:
    """CSV files with a header line, read in order: a quoted field may hold line breaks."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    first_path: str
    options: ReadOptions
    columns: tuple[str, ...] = ()
    keeps_all: bool = False
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
        reader = cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=pa.schema([]),
            first_path=path,
            options=options,
        )
        _, header = reader._open(path)
        if header is None:
            return None
        kept = [n for n in candidates(keep_columns, header.names) if n in header.names]
        check_columns(path, header.names, kept, flag=KEEP_FLAG)
        schema = pa.schema([(name, pa.string()) for name in kept])
        return replace(reader, kept_schema=schema, columns=tuple(header.names))

    def keep(self, kept_schema: pa.Schema, *, keeps_all: bool) -> Self:
        return replace(self, kept_schema=kept_schema, keeps_all=keeps_all)

    def cut_file(self, path: str, size_bytes: int, part_bytes: int) -> Iterator[FilePart]:
        if size_bytes:
            yield FilePart(start=0, stop=None, num_bytes=size_bytes)

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        file, header = self._open(path)
        if header is not None:
            with file.open_text(header.end, SAMPLE_BYTES) as text:
                records = itertools.islice(_read_records(_Lines(text)), limit)
                num_rows = count_records(records, path, skip=self.options.skip_unreadable)
            yield FilePart(start=0, stop=None, num_bytes=size_bytes, num_rows=num_rows)

    def read(
        self,
        path: str,
        *,
        start: int,
        stop: int | None,
        max_rows: int | None,
        chunk_bytes: int,
        first_row: int = 0,
    ) -> Rows:
        rows: list[list[str]] = []
        errors: dict[int, str] = {}
        rest_start = None
        file, header = self._open(path)
        if header is not None:
            start = start or header.end
            with file.open_text(start, max(chunk_bytes, SAMPLE_BYTES)) as text:
                lines = _Lines(text, start)
                for fields in itertools.islice(self._records(path, lines), max_rows):
                    if isinstance(fields, str):
                        errors[len(rows)] = fields
                    elif len(fields) != len(header.names):
                        errors[len(rows)] = (
                            f"{len(fields)} fields, but the header has {len(header.names)}"
                        )
                    is_bad = len(rows) in errors
                    rows.append([""] * len(header.names) if is_bad else list(fields))
                    if not is_compressed(path) and lines.position - start >= chunk_bytes:
                        rest_start = lines.position if text.peek(1) else None
                        break
        columns = (
            dict(zip(header.names, zip(*rows, strict=True), strict=True)) if header and rows else {}
        )
        texts = [columns.get(name, ()) for name in self.text_columns]
        kept, unfit = keep_rows(
            self.kept_schema, columns, path, num_rows=len(rows), first_row=first_row
        )
        if self.keeps_all:
            count_unknown(unfit, len(columns.keys() - set(self.kept_schema.names)) * len(rows))
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=kept,
            unfit=unfit,
            rest_start=rest_start,
        )

    def is_read_whole(self, path: str) -> bool:
        return is_compressed(path)

    def measure_file(self, path: str, size_bytes: int) -> int:
        return size_bytes

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        file, header = self._open(path)
        if is_compressed(path):
            return sample_whole(self, path, file.size_bytes)
        if header is None:
            return tuple([] for _ in self.text_columns)
        first, last = (_find_record(file, header, mark) for mark in (start, stop))
        if first >= last:
            return tuple([] for _ in self.text_columns)
        chunk_bytes = last - first
        return self.read(path, start=first, stop=last, max_rows=None, chunk_bytes=chunk_bytes).texts

    def _open(self, path: str) -> tuple[FileBytes, "_Header | None"]:
        """Open a file and check its columns; it has no header here if it has no rows.

        Raises:
            UnfitFileError: It cannot be read, or does not hold the columns.
        """
        with opening(path):
            file = FileBytes(self.filesystem, path)
            header = _read_header(file)
        if header is not None:
            check_text_columns(path, header.names, self.text_columns)
            check_columns(path, header.names, self.kept_schema.names, flag=KEEP_FLAG)
        return file, header

    def _records(self, path: str, lines: "_Lines") -> Iterator[list[str] | str]:
        """Fields of each record, or the reason why it has none; damage ends the file."""
        try:
            yield from _read_records(lines)
        except OSError as error:
            yield unreadable_reason(path, error, skip=self.options.skip_unreadable)


@dataclass(frozen=True, kw_only=True)
class _Header:
    """Names of a file's columns, and the byte where its records begin."""

    names: list[str]
    end: int


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


def _read_header(file: FileBytes) -> _Header | None:
    """Column names, from the first line that is not blank; None if no record follows."""
    with file.open_text(0, _HEADER_BYTES) as text:
        lines = _Lines(text)
        texts = iter(lines)
        first = next(texts, "").removeprefix("\ufeff")
        try:
            names = next(filter(None, csv.reader(itertools.chain([first], texts))), None)
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if names is None or text.peek(1) == b"":
            return None
        return _Header(names=names, end=lines.position)


def _find_record(file: FileBytes, header: _Header, position: int) -> int:
    """Byte at or after `position` where a record seems to begin.

    That is after the first line break that is followed by several records with as many fields
    as the header. A quoted field that holds such lines itself is mistaken for records.
    """
    if position <= header.end:
        return header.end
    with file.open_text(position - 1, SAMPLE_BYTES) as text:
        start = position - 1 + len(text.readline())
        while start < file.size_bytes:
            text.seek(start)
            records = list(itertools.islice(_read_records(_Lines(text)), _CONVINCING_RECORDS))
            if all(not isinstance(r, str) and len(r) == len(header.names) for r in records):
                return start
            text.seek(start)
            start += len(text.readline())
    return file.size_bytes
