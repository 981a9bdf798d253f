"""Read CSV files with a header line, strictly.

    slices -> [csv_files] -> rows, good and bad, in corpus order -> shards

CSV has no types, so kept columns are strings; a quoted field may hold line breaks, so a CSV file is
read in order. Where the text is not CSV, for example behind a quote that is never closed, the line
that a record begins with is one bad row and the next line begins another record: lines are never
joined in silence. This module knows nothing of tokens or shards.
"""

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from fastformers.files.file_bytes import TextFile, is_compressed
from fastformers.files.listing import suffix_of
from fastformers.formats.column_types import repair_text
from fastformers.formats.kept_columns import candidates
from fastformers.formats.readers import (
    KEEP_FLAG,
    FilePart,
    ReadOptions,
    Rows,
    SampledRows,
    UnfitFileError,
    check_columns,
    check_text_columns,
    opening,
)
from fastformers.formats.records.csv_records import read_records
from fastformers.formats.records.record_stream import (
    SAMPLE_AHEAD_BYTES,
    SAMPLE_BYTES,
    Lines,
    read_chunk,
    until_damage,
)
from fastformers.formats.text_file_config import DELIMITERS
from fastformers.formats.text_lines import Record, make_rows, sample_beginning, texts_of

# Number of consecutive records with as many fields as the header that prove that one begins there.
_CONVINCING_RECORDS = 5


@dataclass(frozen=True, kw_only=True)
class _CsvFile:
    """A file whose header was read.

    Attributes:
        text: The file.
        names: Names of its columns.
        start: Byte where its records begin.
        delimiter: What separates its fields.
    """

    text: TextFile
    names: list[str]
    start: int
    delimiter: str


@dataclass(frozen=True, kw_only=True)
class CsvReader:
    """CSV files with a header line, read in order: a quoted field may hold line breaks.

    Attributes:
        delimiter: What separates fields where neither the user nor a file's name says it.
    """

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    first_path: str
    options: ReadOptions
    delimiter: str = DELIMITERS[0]
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
        with opening(path):
            text = TextFile(filesystem, path, encoding=options.text_files.encoding)
            reader = replace(reader, delimiter=reader._guess_delimiter(text))
        if (file := reader._check(text)) is None:
            return None
        kept = [name for name in candidates(keep_columns, file.names) if name in file.names]
        check_columns(path, file.names, kept, flag=KEEP_FLAG)
        schema = pa.schema([(name, pa.string()) for name in kept])
        return replace(reader, kept_schema=schema, columns=tuple(file.names))

    @property
    def guesses(self) -> tuple[str, ...]:
        if self._named_delimiter(self.first_path) or self.delimiter == DELIMITERS[0]:
            return ()
        return (
            f"{self.first_path}: {self.delimiter!r} separates its columns, as its header line "
            "suggests; --csv-delimiter names another",
        )

    def keep(self, kept_schema: pa.Schema, *, keeps_all: bool) -> Self:
        return replace(self, kept_schema=kept_schema, keeps_all=keeps_all)

    def cut_file(self, path: str, size_bytes: int, part_bytes: int) -> Iterator[FilePart]:
        if size_bytes:
            yield FilePart(start=0, stop=None, num_bytes=size_bytes)

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        if (file := self._open(path)) is not None:
            records = self._records(file, file.start, SAMPLE_BYTES)
            num_rows = sum(1 for _ in itertools.islice(records, limit))
            yield FilePart(start=0, stop=None, num_bytes=size_bytes, num_rows=num_rows)

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
            if start > 0 or (file := self._open(path)) is None:
                return iter(())
            return self._records(file, rest_start or file.start, max(chunk_bytes, SAMPLE_BYTES))

        records, rest_start = read_chunk(
            self,
            (path, start, stop),
            open_records,
            rest_start=rest_start,
            max_records=max_rows,
            chunk_bytes=chunk_bytes,
        )
        return make_rows(self, path, records, first_row=first_row, rest_start=rest_start)

    def is_read_whole(self, path: str) -> bool:
        return is_compressed(path)

    def measure_file(self, path: str, size_bytes: int) -> int:
        return size_bytes

    def sample_span(self, path: str, start: int, stop: int) -> SampledRows:
        if (file := self._open(path)) is None:
            return SampledRows(texts=texts_of(self, []), size=stop - start)
        if file.text.in_order:
            ahead = self._records(file, file.start, SAMPLE_AHEAD_BYTES)
            return sample_beginning(self, file.text, ahead)
        first, last = (self._find_record(file, mark) for mark in (start, stop))
        found = []
        if first < last:
            records = self._records(file, first, max(last - first, SAMPLE_BYTES))
            found = [record for _, _, record in itertools.takewhile(lambda r: r[0] < last, records)]
        return SampledRows(texts=texts_of(self, found), size=stop - start)

    def _named_delimiter(self, path: str) -> str | None:
        """What separates the fields of a file, if the user or the file's name says it."""
        return self.options.text_files.delimiter or ("\t" if suffix_of(path) == ".tsv" else None)

    def _guess_delimiter(self, text: TextFile) -> str:
        """The delimiter with which the header line has the text columns; else a comma.

        Raises:
            OSError: The file cannot be read.
        """
        if self._named_delimiter(text.path) is None:
            for delimiter in DELIMITERS:
                with contextlib.suppress(ValueError):  # where it is no header line
                    names, _ = self._read_header(text, delimiter)
                    if set(self.text_columns) <= set(names):
                        return delimiter
        return DELIMITERS[0]

    def _open(self, path: str) -> _CsvFile | None:
        """Open a file and check it; None if it has no rows.

        Raises:
            UnfitFileError: It cannot be read, or does not hold the columns.
        """
        with opening(path):
            text = TextFile(self.filesystem, path, encoding=self.options.text_files.encoding)
        return self._check(text)

    def _check(self, text: TextFile) -> _CsvFile | None:
        """Check a file's columns and first rows; None if it has no rows.

        Raises:
            UnfitFileError: It cannot be read, or does not hold the columns.
        """
        path = text.path
        delimiter = self._named_delimiter(path) or self.delimiter
        with opening(path):
            names, start = self._read_header(text, delimiter)
            if start is None:
                return None
        file = _CsvFile(text=text, names=names, start=start, delimiter=delimiter)
        if names[0].lstrip().startswith(("{", "[")) and not set(self.text_columns) <= set(names):
            raise UnfitFileError(path, "it holds JSON, not CSV; let its name end in .jsonl")
        check_text_columns(path, names, self.text_columns, flags=self.options.text_flags)
        check_columns(path, names, self.kept_schema.names, flag=KEEP_FLAG)
        with opening(path):
            self._check_first_rows(file)
        return file

    def _read_header(self, text: TextFile, delimiter: str) -> tuple[list[str], int | None]:
        """Column names, and the byte where records begin; None if there are none.

        Raises:
            OSError: The file cannot be read.
            ValueError: Its first record is not CSV, or its lines end in carriage returns.
        """
        with text.open(0, SAMPLE_BYTES) as file:
            lines = Lines(file, 0, max_bytes=self.options.text_files.max_row_bytes)
            records = read_records(lines, text.encoding, delimiter, self.options.text_files)
            _, _, names = next(records, (0, 0, []))
            if isinstance(names, str):
                raise ValueError(f"its header line: {names}")
            next_record = next(records, None)
        if next_record is None and any("\r" in name for name in names):
            raise ValueError("its lines end in carriage returns; let them end in line feeds")
        start = None if next_record is None else next_record[0]
        return [repair_text(name) for name in names], start

    def _check_first_rows(self, file: _CsvFile) -> None:
        """Refuse a file none of whose rows, in its first MiB, fits its header line.

        Raises:
            OSError: It cannot be read.
            UnfitFileError: No row fits, and there are several; says what is wrong with the first.
        """
        reasons: list[str] = []
        for start, _, record in self._split(file, file.start, SAMPLE_BYTES):
            if not isinstance(record, str):
                return
            if start > file.start + SAMPLE_BYTES:
                break
            reasons.append(record)
        if len(reasons) > 1:
            raise UnfitFileError(
                file.text.path,
                f"none of the first {len(reasons):,} rows fits the header line: {reasons[0]}; "
                "repair the header line, or name --csv-delimiter, --csv-quote or --csv-escape",
            )

    def _records(
        self, file: _CsvFile, start: int, ahead_bytes: int
    ) -> Iterator[tuple[int, int, Record]]:
        """Records from a byte on, with the bytes where they begin; damage ends them."""
        records = self._split(file, start, ahead_bytes)
        return until_damage(records, file.text.path, self.options)

    def _split(
        self, file: _CsvFile, start: int, ahead_bytes: int
    ) -> Iterator[tuple[int, int, Record]]:
        with file.text.open(start, ahead_bytes) as text:
            yield from self._split_text(file, text, start)

    def _split_text(
        self, file: _CsvFile, text: io.BufferedReader, start: int
    ) -> Iterator[tuple[int, int, Record]]:
        """Records of an open file by the names of its columns, or why they are none."""
        lines = Lines(text, start, max_bytes=self.options.text_files.max_row_bytes)
        num_names = len(file.names)
        for begin, size, fields in read_records(
            lines, file.text.encoding, file.delimiter, self.options.text_files
        ):
            if isinstance(fields, str):
                yield begin, size, fields
            elif len(fields) == num_names:
                yield begin, size, dict(zip(file.names, fields, strict=True))
            else:
                more = len(fields) - num_names
                empty = ", the last of them empty" if more > 0 and not any(fields[-more:]) else ""
                yield begin, size, f"{len(fields)} fields{empty}, but the header has {num_names}"

    def _find_record(self, file: _CsvFile, position: int) -> int:
        """Byte at or after `position` where a record seems to begin.

        That is after the first line break that is followed by several records with as many fields
        as the header, or by most of them where one row in a few is bad. A quoted field that holds
        such lines itself is mistaken for records.
        """
        if position <= file.start:
            return file.start
        num_fitting: dict[int, int] = {}  # records that fit, by the byte where the first begins
        with file.text.open(position - 1, SAMPLE_BYTES) as text:
            start = position - 1
            while start < min(file.text.size_bytes, position + SAMPLE_BYTES):
                text.seek(start)
                lines = Lines(text, start, max_bytes=self.options.text_files.max_row_bytes)
                next(lines, b"")
                start = lines.position
                records = self._split_text(file, text, start)
                num_fitting[start] = 0
                for _, _, record in itertools.islice(records, _CONVINCING_RECORDS):
                    if isinstance(record, str):
                        break
                    num_fitting[start] += 1
                else:
                    return start
        return max(num_fitting, key=num_fitting.__getitem__, default=file.text.size_bytes)
