"""Read row groups of Parquet files.

    slices -> [parquet] -> rows, good and bad, in corpus order -> shards

A file is cut into byte ranges before anyone has seen its footer; a range stands for the row groups
that begin in it, so that each group is in exactly one range. The footer also says how many rows a
group has, so samples are counted in rows. Columns have types, but a text column may hold bytes that
are not UTF-8. This module knows nothing of tokens or shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet

from fastformers.errors import InputError
from fastformers.formats.column_types import is_bytes, is_text, plain_type
from fastformers.formats.kept_columns import candidates, count_unknown, find_field, keep_rows
from fastformers.formats.readers import (
    KEEP_FLAG,
    FilePart,
    ReadOptions,
    Rows,
    SampledRows,
    UnfitFileError,
    check_columns,
    cut_evenly,
    no_column,
    no_rows,
    not_text,
)
from fastformers.formats.records.record_stream import read_chunk
from fastformers.formats.row_groups import (
    count_rows,
    find_groups,
    group_starts,
    groups_between,
    iterate_rows,
    open_parquet,
    plan_runs,
)
from fastformers.texts import check_texts, column_places, decode_texts

_DAMAGED_ROWS = 2**14  # null rows that are made at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """Rows that follow each other.

    Attributes:
        rows: The columns that are read, as far as the file has them.
        reason: Why all of the rows are bad, or None.
        first_row: Number of the first of them in the file.
        num_others: Number of columns of the file that are not kept.
    """

    rows: pa.RecordBatch
    reason: str | None
    first_row: int
    num_others: int


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
    guesses: ClassVar[tuple[str, ...]] = ()
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
        with open_parquet(filesystem, path) as file:
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
        with open_parquet(self.filesystem, path) as file:
            metadata = file.metadata
            if not metadata.num_rows:
                return
            _check_texts(path, file.schema_arrow, self.text_columns, self.options)
        starts = group_starts(metadata)
        for part in self.cut_file(path, size_bytes, part_bytes):
            if limit <= 0:
                return
            groups = groups_between(starts, part.start, part.stop)
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
        rest_start: int | None = None,
        first_row: int = 0,
    ) -> Rows:
        def open_batches() -> Iterator[tuple[int, int, _Batch]]:
            return self._batches(path, start, stop, rest_start or 0, max_rows)

        batches, rest_start = read_chunk(
            self,
            (path, start, stop),
            open_batches,
            rest_start=rest_start,
            max_records=None,
            chunk_bytes=chunk_bytes,
        )
        if not batches:
            return no_rows(self)
        errors = _find_damage(batches)
        table = pa.Table.from_batches([batch.rows for batch in batches]).combine_chunks()
        columns = {name: _extract(table, name) for name in self._find_columns(path, table.schema)}
        kept, unfit = keep_rows(
            self.kept_schema,
            columns,
            path,
            num_rows=table.num_rows,
            first_row=batches[0].first_row,
        )
        if self.keeps_all:
            count_unknown(unfit, batches[0].num_others * table.num_rows)
        return Rows(
            texts=self._read_texts(table, errors),
            errors=errors,
            kept=kept,
            unfit=unfit,
            rest_start=rest_start,
        )

    def is_read_whole(self, path: str) -> bool:
        return False

    def measure_file(self, path: str, size_bytes: int) -> int:
        with open_parquet(self.filesystem, path) as file:
            return int(file.metadata.num_rows)

    def sample_span(self, path: str, start: int, stop: int) -> SampledRows:
        columns = list(dict.fromkeys(self.text_columns))
        parts: list[pa.RecordBatch] = []
        with open_parquet(self.filesystem, path) as file:
            _check_texts(path, file.schema_arrow, self.text_columns, self.options)
            groups, seen = find_groups(file.metadata, start, stop)
            try:
                for batch in iterate_rows(file, groups, columns):
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
        texts = self._read_texts(pa.Table.from_batches(parts), {})
        return SampledRows(texts=texts, size=stop - start)

    def _read_texts(self, table: pa.Table, errors: dict[int, str]) -> tuple[list[str], ...]:
        """The text columns, "" where a row is bad; adds why to `errors`."""
        values = [_decode_column(_extract(table, name)) for name in self.text_columns]
        return check_texts(values, column_places(self.text_columns), errors)

    def _find_columns(self, path: str, schema: pa.Schema) -> list[str]:
        """Columns that are read, as far as a file has them.

        Raises:
            UnfitFileError: It lacks a text column, or has a column twice.
        """
        _check_texts(path, schema, self.text_columns, self.options)
        check_columns(path, schema.names, self.kept_schema.names, flag=KEEP_FLAG)
        names = dict.fromkeys([*self.text_columns, *self.kept_schema.names])
        return [name for name in names if find_field(schema, name)]

    def _batches(
        self, path: str, start: int, stop: int | None, first_row: int, max_rows: int | None
    ) -> Iterator[tuple[int, int, _Batch]]:
        """Batches of the row groups of a part, with their first rows in it and their bytes.

        Args:
            path, start, stop: The part.
            first_row: Row of the part to begin with.
            max_rows: Rows to read at most, or None.
        """
        with open_parquet(self.filesystem, path) as file:
            if not file.metadata.num_rows:
                return
            columns = self._find_columns(path, file.schema_arrow)
            num_others = len(set(file.schema_arrow.names) - set(self.kept_schema.names))
            groups = groups_between(group_starts(file.metadata), start, stop)
            rows_before = count_rows(file.metadata, range(groups.start))
            row, skip = first_row, first_row
            for run in plan_runs(file.metadata, groups, columns):
                num_rows = count_rows(file.metadata, run)
                if skip < num_rows:
                    for batch, reason in self._read_groups(path, file, run, columns, skip):
                        left = batch.num_rows if max_rows is None else max_rows + first_row - row
                        if left <= 0:
                            return
                        taken = _Batch(
                            rows=batch.slice(0, left),
                            reason=reason,
                            first_row=rows_before + row,
                            num_others=num_others,
                        )
                        yield row, batch.nbytes, taken
                        row += batch.num_rows
                skip = max(0, skip - num_rows)

    def _read_groups(
        self,
        path: str,
        file: pyarrow.parquet.ParquetFile,
        groups: range,
        columns: Sequence[str],
        skip: int,
    ) -> Iterator[tuple[pa.RecordBatch, str | None]]:
        """Batches of some row groups but their first rows, and why all rows of one are bad.

        The rows of a damaged group, from the damage on, are null and carry a reason.

        Raises:
            InputError: A group is damaged, and unreadable files are not to be skipped.
        """
        num_rows = count_rows(file.metadata, groups)
        seen = 0
        try:
            for batch in iterate_rows(file, groups, columns):
                seen += batch.num_rows
                if seen > skip:
                    yield batch.slice(max(0, batch.num_rows - (seen - skip))), None
                    skip = seen
            if seen == num_rows:
                return
            raise OSError(f"it ends after {seen:,} of {num_rows:,} rows")
        except (pa.ArrowException, OSError) as error:
            failure: Exception = error
        if len(groups) > 1:  # one by one, so that only the rows of the damaged ones are lost
            for group in groups:
                num_rows = count_rows(file.metadata, range(group, group + 1))
                if skip < num_rows:
                    one = range(group, group + 1)
                    yield from self._read_groups(path, file, one, columns, skip)
                skip = max(0, skip - num_rows)
            return
        reason = str(failure).splitlines()[0]
        if not self.options.skip_unreadable:
            remedy = self.options.remedy("list its rows as dead letters")
            raise InputError(
                f"{path}: row group {groups.start} cannot be read ({reason}); {remedy}"
            ) from failure
        schema = file.read_row_groups([], list(columns)).schema
        for first in range(skip, num_rows, _DAMAGED_ROWS):
            size = min(_DAMAGED_ROWS, num_rows - first)
            nulls = [pa.nulls(size, field.type) for field in schema]
            batch = pa.RecordBatch.from_arrays(nulls, schema=schema)
            yield batch, f"unreadable row group: {reason}"


def _check_texts(
    path: str, schema: pa.Schema, text_columns: Sequence[str], options: ReadOptions
) -> None:
    """Check that a file has the text columns, and that they hold text.

    Raises:
        UnfitFileError: They do not.
    """
    check_columns(path, schema.names, text_columns, flag=options.text_flags)
    for name in text_columns:
        place = find_field(schema, name)
        if not place:
            raise no_column(path, schema.names, name, flag=options.text_flags)
        kind = plain_type(place[-1].type)
        if is_bytes(kind) and not options.binary_text:
            refused = not_text(path, name, str(kind), flags=options.text_flags)
            raise UnfitFileError(path, f"{refused.reason}; pass --binary-text if it is UTF-8")
        if not (is_text(kind) or is_bytes(kind) or pa.types.is_null(kind)):
            raise not_text(path, name, str(kind), flags=options.text_flags)


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


def _find_damage(batches: Sequence[_Batch]) -> dict[int, str]:
    """Why rows are bad that could not be read, by their positions in all batches."""
    errors: dict[int, str] = {}
    num_rows = 0
    for batch in batches:
        rows = range(num_rows, num_rows + batch.rows.num_rows)
        if batch.reason is not None:
            errors.update(dict.fromkeys(rows, batch.reason))
        num_rows = rows.stop
    return errors


def _extract(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column, or a field inside one, of what was read."""
    column, *fields = find_field(table.schema, name)
    values = table[column.name]
    for field in fields:
        values = pc.struct_field(values, field.name)
    return values


def _decode_column(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column of text; undecodable bytes are surrogates."""
    column = column.cast(plain_type(column.type))
    try:
        if not is_bytes(column.type):
            return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        column = column.cast(pa.large_binary())
    return decode_texts(column.to_pylist())
