"""Read row groups of Parquet files.

    slices -> [parquet] -> rows, good and bad, in corpus order -> shards

A file is cut into byte ranges before anyone has seen its footer; a range stands for the row groups
that begin in it, so that each group is in exactly one range. The footer also says how many rows a
group has, so samples are counted in rows. Columns have types, but a text column may hold bytes that
are not UTF-8. This module knows nothing of tokens or shards.
"""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet

from fastformers.errors import InputError
from fastformers.formats.column_types import is_bytes, is_text, plain_type
from fastformers.formats.file_bytes import FileBytes
from fastformers.formats.kept_columns import candidates, count_unknown, find_field, keep_rows
from fastformers.formats.readers import (
    KEEP_FLAG,
    TEXT_FLAGS,
    FilePart,
    ReadOptions,
    Rows,
    UnfitFileError,
    check_columns,
    check_texts,
    cut_evenly,
    no_column,
    no_rows,
    not_text,
    opening,
)


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Row groups of Parquet files."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    first_path: str
    options: ReadOptions
    columns: tuple[str, ...]
    keeps_all: bool = False
    expansion: ClassVar[int] = 2
    sampled_in_rows: ClassVar[bool] = True

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
        with _open_file(filesystem, path) as file:
            if file.metadata.num_rows == 0:
                return None
            schema = file.schema_arrow
        _check_texts(path, schema, text_columns, options)
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=_find_kept(path, schema, candidates(keep_columns, schema.names), options),
            first_path=path,
            options=options,
            columns=tuple(schema.names),
        )

    def keep(self, kept_schema: pa.Schema, *, keeps_all: bool) -> Self:
        return replace(self, kept_schema=kept_schema, keeps_all=keeps_all)

    def cut_file(self, path: str, size_bytes: int, part_bytes: int) -> Iterator[FilePart]:
        return cut_evenly(size_bytes, part_bytes, self.expansion)

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        with _open_file(self.filesystem, path) as file:
            metadata = file.metadata
            if not metadata.num_rows:
                return
            _check_texts(path, file.schema_arrow, self.text_columns, self.options)
        starts = _group_starts(metadata)
        for part in self.cut_file(path, size_bytes, part_bytes):
            if limit <= 0:
                return
            groups = _groups_between(starts, part.start, part.stop)
            num_rows = sum(metadata.row_group(group).num_rows for group in groups)
            yield replace(part, num_rows=num_rows)
            limit -= num_rows

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
        with _open_file(self.filesystem, path) as file:
            if not file.metadata.num_rows:
                return no_rows(self)
            places = self._find_columns(path, file.schema_arrow)
            starts = _group_starts(file.metadata)
            in_range = _groups_between(starts, start, stop)
            groups, rest_start = _take_groups(
                file.metadata, set(places), starts, in_range, max_rows, chunk_bytes
            )
            first_row = sum(file.metadata.row_group(g).num_rows for g in range(groups.start))
            num_rows = sum(file.metadata.row_group(group).num_rows for group in groups)
            num_rows = num_rows if max_rows is None else min(num_rows, max_rows)
            table, errors = self._read_groups(path, file, groups, list(places))
            num_columns = len(file.schema_arrow.names)
        table = table.slice(0, num_rows)
        errors = {row: reason for row, reason in errors.items() if row < num_rows}
        columns = {name: _extract(table, place) for name, place in places.items()}
        texts = [_decode_column(columns[name]) for name in self.text_columns]
        own = {name: columns[name] for name in self.kept_schema.names if name in columns}
        kept, unfit = keep_rows(self.kept_schema, own, path, num_rows=num_rows, first_row=first_row)
        if self.keeps_all:
            num_known = sum(len(places[name]) == 1 for name in own)
            count_unknown(unfit, (num_columns - num_known) * num_rows)
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=kept,
            unfit=unfit,
            rest_start=rest_start,
        )

    def is_read_whole(self, path: str) -> bool:
        return False

    def measure_file(self, path: str, size_bytes: int) -> int:
        with _open_file(self.filesystem, path) as file:
            return int(file.metadata.num_rows)

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        columns = list(dict.fromkeys(self.text_columns))
        parts: list[pa.RecordBatch] = []
        with _open_file(self.filesystem, path) as file:
            _check_texts(path, file.schema_arrow, self.text_columns, self.options)
            groups, seen = _find_groups(file.metadata, start, stop)
            try:
                for batch in file.iter_batches(row_groups=groups, columns=columns):
                    first = max(start, seen)
                    part = batch.slice(first - seen, max(0, stop - first))
                    seen += batch.num_rows
                    if part.num_rows:
                        parts.append(part)
                    if seen >= stop:
                        break
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{path}: cannot be sampled ({reason}); repair it") from error
        table = pa.Table.from_batches(parts)
        errors: dict[int, str] = {}
        texts = [
            _decode_column(_extract(table, find_field(table.schema, name)))
            for name in self.text_columns
        ]
        return check_texts(texts, self.text_columns, errors)

    def _find_columns(self, path: str, schema: pa.Schema) -> dict[str, list[pa.Field]]:
        """Fields that lead to each column that is read, as far as the file has it.

        Raises:
            UnfitFileError: It lacks a text column, or has a column twice.
        """
        _check_texts(path, schema, self.text_columns, self.options)
        check_columns(path, schema.names, self.kept_schema.names, flag=KEEP_FLAG)
        names = dict.fromkeys([*self.text_columns, *self.kept_schema.names])
        return {name: place for name in names if (place := find_field(schema, name))}

    def _read_groups(
        self, path: str, file: pyarrow.parquet.ParquetFile, groups: range, columns: list[str]
    ) -> tuple[pa.Table, dict[int, str]]:
        """Columns of some row groups; those of a damaged group are null and carry a reason.

        Raises:
            InputError: A group is damaged, and unreadable files are not to be skipped.
        """
        try:
            return file.read_row_groups(list(groups), columns, use_threads=False), {}
        except (pa.ArrowException, OSError) as error:
            failure: Exception = error
        tables: list[pa.Table] = []
        errors: dict[int, str] = {}
        num_rows = 0
        for group in groups:  # one by one, so that only the rows of the damaged ones are lost
            size = file.metadata.row_group(group).num_rows
            try:
                table = file.read_row_groups([group], columns, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                failure, reason = error, str(error).splitlines()[0]
                if not self.options.skip_unreadable:
                    raise InputError(
                        f"{path}: row group {group} cannot be read ({reason}); repair it, or pass "
                        "--skip-unreadable-files to list its rows as dead letters"
                    ) from error
                schema = file.schema_arrow
                fields = [find_field(schema, name)[0] for name in columns]
                table = pa.table({f.name: pa.nulls(size, f.type) for f in fields})
                errors.update(
                    dict.fromkeys(
                        range(num_rows, num_rows + size), f"unreadable row group: {reason}"
                    )
                )
            tables.append(table)
            num_rows += size
        if not errors:
            raise failure
        return pa.concat_tables(tables, promote_options="permissive"), errors


def _open_file(filesystem: pyarrow.fs.FileSystem, path: str) -> pyarrow.parquet.ParquetFile:
    with opening(path):
        return pyarrow.parquet.ParquetFile(FileBytes(filesystem, path).open(), pre_buffer=True)


def _check_texts(
    path: str, schema: pa.Schema, text_columns: Sequence[str], options: ReadOptions
) -> None:
    """Check that a file has the text columns, and that they hold text.

    Raises:
        UnfitFileError: They do not.
    """
    check_columns(path, schema.names, text_columns, flag=TEXT_FLAGS)
    for name in text_columns:
        place = find_field(schema, name)
        if not place:
            raise no_column(path, schema.names, name, flag=TEXT_FLAGS)
        kind = plain_type(place[-1].type)
        if is_bytes(kind) and not options.binary_text:
            refused = not_text(path, name, str(kind))
            raise UnfitFileError(path, f"{refused.reason}; pass --binary-text if it is UTF-8")
        if not (is_text(kind) or is_bytes(kind) or pa.types.is_null(kind)):
            raise not_text(path, name, str(kind))


def _find_kept(
    path: str, schema: pa.Schema, names: Sequence[str], options: ReadOptions
) -> pa.Schema:
    """Names and types of those of the columns that a file has."""
    check_columns(path, schema.names, names, flag=KEEP_FLAG)
    fields = []
    for name in names:
        if place := find_field(schema, name):
            kind = plain_type(place[-1].type)
            is_read_as_text = is_bytes(kind) and options.binary_text
            fields.append((name, pa.string() if is_read_as_text else kind))
    return pa.schema(fields)


def _extract(table: pa.Table, place: Sequence[pa.Field]) -> pa.ChunkedArray:
    """A column, or a field inside one, of what was read."""
    column = table[place[0].name]
    for field in place[1:]:
        column = pc.struct_field(column, field.name)
    return column


def _take_groups(
    metadata: pyarrow.parquet.FileMetaData,
    columns: set[str],
    starts: Sequence[int],
    in_range: range,
    max_rows: int | None,
    chunk_bytes: int,
) -> tuple[range, int | None]:
    """Row groups to read at once, and where the others of the range begin."""
    num_rows = num_bytes = 0
    for group in in_range:
        if max_rows is not None and num_rows >= max_rows:
            return range(in_range.start, group), None
        is_new_place = group > in_range.start and starts[group] > starts[group - 1]
        if num_rows and num_bytes >= chunk_bytes and is_new_place:
            return range(in_range.start, group), starts[group]
        num_rows += metadata.row_group(group).num_rows
        num_bytes += _text_bytes(metadata.row_group(group), columns)
    return in_range, None


def _group_starts(metadata: pyarrow.parquet.FileMetaData) -> list[int]:
    """Byte where each row group begins, never before the one of the group before it.

    Writers may leave offsets out or give them in any order; the rows must keep theirs.
    """
    starts: list[int] = []
    for index in range(metadata.num_row_groups):
        column = metadata.row_group(index).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        starts.append(max(start, starts[-1] if starts else 0))
    return starts


def _groups_between(starts: Sequence[int], start: int, stop: int | None) -> range:
    """Row groups that begin in a byte range."""
    end = len(starts) if stop is None else bisect.bisect_left(starts, stop)
    return range(bisect.bisect_left(starts, start), end)


def _text_bytes(group: pyarrow.parquet.RowGroupMetaData, columns: set[str]) -> int:
    """Decompressed bytes of some columns of a row group."""
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns)
    )


def _find_groups(
    metadata: pyarrow.parquet.FileMetaData, start: int, stop: int
) -> tuple[list[int], int]:
    """Row groups that hold the rows of a span, and the number of the first row in them."""
    ends = list(
        itertools.accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    )
    begins = [0, *ends[:-1]]
    groups = [i for i, end in enumerate(ends) if begins[i] < stop and end > start]
    return groups, begins[groups[0]]


def _decode_column(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column of text; undecodable bytes are surrogates."""
    column = column.cast(plain_type(column.type))
    try:
        if not is_bytes(column.type):
            return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]
