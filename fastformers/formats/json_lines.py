"""Read pieces of JSON lines files, cut by bytes.

    slices -> [json_lines] -> rows, good and bad, in corpus order -> shards

The values in the first MiB of a file tell the types of its kept columns. This module knows nothing
of tokens or shards.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from fastformers.formats.column_types import infer_type
from fastformers.formats.file_bytes import FileBytes, is_compressed
from fastformers.formats.kept_columns import (
    ROW_COLUMN,
    candidates,
    count_unknown,
    has_nested,
    keep_rows,
    read_nested,
)
from fastformers.formats.readers import (
    TEXT_FLAGS,
    FilePart,
    ReadOptions,
    Rows,
    UnfitFileError,
    check_texts,
    cut_evenly,
    no_column,
    not_text,
    opening,
)
from fastformers.formats.text_lines import (
    SAMPLE_BYTES,
    count_records,
    sample_whole,
    unreadable_reason,
)

# Bytes to read beyond a range at once, for the end of its last line.
_LINE_BYTES = 2**16


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """Byte ranges of JSON lines files; a compressed file is one range."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    first_path: str
    options: ReadOptions
    columns: tuple[str, ...]
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
        with opening(path):
            file = FileBytes(filesystem, path)
        records = _read_sample(file, text_columns)
        if not records:
            return None
        columns = tuple(dict.fromkeys(itertools.chain.from_iterable(records)))
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
        if is_compressed(path):
            yield FilePart(start=0, stop=None, num_bytes=size_bytes)
        elif ROW_COLUMN in self.kept_schema.names:
            yield FilePart(start=0, stop=None, num_bytes=size_bytes)  # to be counted in order
        elif size_bytes:
            yield from cut_evenly(size_bytes, part_bytes, self.expansion)

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        file = self._open(path)
        if is_compressed(path):
            with file.open_text(0, SAMPLE_BYTES) as text:
                lines = itertools.islice(filter(bytes.strip, text), limit)
                num_rows = count_records(lines, path, skip=self.options.skip_unreadable)
            yield FilePart(start=0, stop=None, num_bytes=size_bytes, num_rows=num_rows)
            return
        start = stop = num_rows = 0
        with opening(path), file.open_text(0, SAMPLE_BYTES) as text:
            for line in text:
                stop += len(line)
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
        first_row: int = 0,
    ) -> Rows:
        records: list[dict[str, Any]] = []
        errors: dict[int, str] = {}
        lines = itertools.islice(_lines(self._open(path), start, stop, chunk_bytes), max_rows)
        try:
            for record in map(_parse_json, lines):
                if isinstance(record, str):
                    errors[len(records)] = record
                records.append(record if isinstance(record, dict) else {})
        except OSError as error:
            errors[len(records)] = unreadable_reason(path, error, skip=self.options.skip_unreadable)
            records.append({})
        kept, unfit = self._keep(path, records, first_row)
        texts = [[read_nested(r, name) for r in records] for name in self.text_columns]
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=kept,
            unfit=unfit,
        )

    def is_read_whole(self, path: str) -> bool:
        return is_compressed(path)

    def measure_file(self, path: str, size_bytes: int) -> int:
        return size_bytes

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        if is_compressed(path):
            return sample_whole(self, path, self._open(path).size_bytes)
        chunk_bytes = stop - start
        return self.read(path, start=start, stop=stop, max_rows=None, chunk_bytes=chunk_bytes).texts

    def _open(self, path: str) -> FileBytes:
        """Open a file, and check that it holds the columns of the corpus."""
        with opening(path):
            file = FileBytes(self.filesystem, path)
        _read_sample(file, self.text_columns)
        return file

    def _keep(
        self, path: str, records: Sequence[dict[str, Any]], first_row: int
    ) -> tuple[pa.Table, dict[str, int]]:
        """The kept columns of records, and how many values have no place in them."""
        names = self.kept_schema.names
        columns = {
            name: [read_nested(record, name) for record in records]
            for name in names
            if any(has_nested(record, name) for record in records)
        }
        kept, unfit = keep_rows(
            self.kept_schema, columns, path, num_rows=len(records), first_row=first_row
        )
        if self.keeps_all:
            count_unknown(unfit, sum(len(record.keys() - set(names)) for record in records))
        return kept, unfit


def _read_sample(file: FileBytes, text_columns: Sequence[str]) -> list[dict[str, Any]]:
    """Records in the first MiB of a file; none if it has no rows.

    Raises:
        UnfitFileError: It cannot be read, or does not hold the text columns.
    """
    with opening(file.path), file.open_text(0, SAMPLE_BYTES) as text:
        lines = [line for line in text.readlines(SAMPLE_BYTES) if line.strip()]
    records = [record for line in lines if isinstance(record := _parse_json(line), dict)]
    if not records:
        if lines:
            raise UnfitFileError(file.path, "no line of its first MiB is a JSON object")
        return records
    for name in text_columns:
        if not any(has_nested(record, name) for record in records):
            names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
            raise no_column(file.path, names, name, flag=TEXT_FLAGS)
        values = (read_nested(record, name) for record in records)
        kinds = {type(value).__name__ for value in values if value is not None}
        if kinds and "str" not in kinds:
            raise not_text(file.path, name, " or ".join(sorted(kinds)))
    return records


def _find_kept(records: Sequence[dict[str, Any]], names: Sequence[str]) -> pa.Schema:
    """Names and types of those of the columns that are in the records."""
    return pa.schema(
        [
            (name, infer_type([read_nested(record, name) for record in records]))
            for name in names
            if any(has_nested(record, name) for record in records)
        ]
    )


def _lines(file: FileBytes, start: int, stop: int | None, chunk_bytes: int) -> Iterator[bytes]:
    """Lines that begin inside the byte range and are not blank; the last may end beyond it."""
    position = max(0, start - 1)
    size_bytes = (file.size_bytes if stop is None else stop) - position
    ahead_bytes = min(max(size_bytes, 1), max(chunk_bytes, SAMPLE_BYTES)) + _LINE_BYTES
    with file.open_text(position, ahead_bytes) as text:
        if start > 0:  # the line that holds the byte before belongs to the range before
            position += len(text.readline())
        for line in text:
            if stop is not None and position >= stop:
                return
            position += len(line)
            if line.strip():
                yield line


def _parse_json(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or the reason why there is none."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else f"not a JSON object but {type(value).__name__}"
