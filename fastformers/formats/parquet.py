"""Read row groups of Parquet files.

    slices -> [parquet] -> rows, good and bad, in corpus order -> shards

A file is cut into byte ranges before anyone has seen its footer; a range stands for the row groups
that begin in it, so that each group is in exactly one range. The footer also says how many rows a
group has, so samples are counted in rows. Columns have types, but a text column may hold bytes that
are not UTF-8. This module knows nothing of tokens or shards.
"""

import bisect
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from fastformers.errors import InputError
from fastformers.formats.file_bytes import FileBytes
from fastformers.formats.readers import (
    FilePart,
    ReadOptions,
    Rows,
    SampledRows,
    check_columns,
    check_kept_types,
    check_texts,
    cut_evenly,
    not_text,
    opening,
)
from fastformers.formats.records.record_stream import read_chunk

# Rows that are decoded at a time, unless they are very long.
_BATCH_ROWS = 64
# Small row groups are read together, up to these decompressed bytes.
_RUN_BYTES = 16 * 2**20
# Largest row group whose stored bytes are fetched at once, and of a larger one, bytes of a column.
_MAX_BUFFERED_BYTES, _PAGE_BUFFER_BYTES = 256 * 2**20, 2**20
# Bytes that one stored byte becomes: more of a large row group is a mistake or an attack. Text that
# repeats this often is stored once by all writers, and rarely counted by its size.
_MAX_RATIO = 1000
_DAMAGED_ROWS = 2**14  # null rows that are made at a time

# Rows, and the reason why all of them are bad, or None.
_Batch = tuple[pa.RecordBatch, str | None]


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Row groups of Parquet files."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    first_path: str
    options: ReadOptions
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
        with _open_file(filesystem, path) as file:
            kept_schema = _check_schema(path, file.schema_arrow, text_columns, keep_columns)
            if file.metadata.num_rows == 0:
                return None
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=kept_schema,
            first_path=path,
            options=options,
        )

    def keep(self, kept_schema: pa.Schema) -> Self:
        return replace(self, kept_schema=kept_schema)

    def cut_file(self, path: str, size_bytes: int, part_bytes: int) -> Iterator[FilePart]:
        return cut_evenly(size_bytes, part_bytes, self.expansion)

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        with _open_file(self.filesystem, path) as file:
            self._check(path, file)
            metadata = file.metadata
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
        rest_start: int | None = None,
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
        errors: dict[int, str] = {}
        num_rows = 0
        for batch, reason in batches:
            if reason is not None:
                errors.update(dict.fromkeys(range(num_rows, num_rows + batch.num_rows), reason))
            num_rows += batch.num_rows
        if not batches:
            table = pa.table({name: pa.array([], pa.string()) for name in self._columns})
        else:
            table = pa.Table.from_batches([batch for batch, _ in batches]).combine_chunks()
        texts = tuple(_decode_column(table[name]) for name in self.text_columns)
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=self._keep_columns(table),
            rest_start=rest_start,
        )

    def is_read_whole(self, path: str) -> bool:
        return False

    def measure_file(self, path: str, size_bytes: int) -> int:
        with _open_file(self.filesystem, path) as file:
            return int(file.metadata.num_rows)

    def sample_span(self, path: str, start: int, stop: int) -> SampledRows:
        columns = list(dict.fromkeys(self.text_columns))
        parts: list[pa.RecordBatch] = []
        with _open_file(self.filesystem, path) as file:
            self._check(path, file)
            groups, seen = _find_groups(file.metadata, start, stop)
            try:
                for batch in _iterate(file, groups, columns):
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
        texts = [_decode_column(table[name]) for name in self.text_columns]
        return SampledRows(texts=check_texts(texts, self.text_columns, errors), size=stop - start)

    def _check(self, path: str, file: pyarrow.parquet.ParquetFile) -> None:
        """Check that a file holds the columns of the corpus."""
        names = tuple(self.kept_schema.names)
        check_kept_types(
            path, _check_schema(path, file.schema_arrow, self.text_columns, names), self
        )

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys([*self.text_columns, *self.kept_schema.names]))

    def _batches(
        self, path: str, start: int, stop: int | None, first_row: int, max_rows: int | None
    ) -> Iterator[tuple[int, int, _Batch]]:
        """Batches of the row groups of a part, with their first rows in it and their bytes.

        Args:
            path, start, stop: The part.
            first_row: Row of the part to begin with.
            max_rows: Rows to read at most, or None.
        """
        with _open_file(self.filesystem, path) as file:
            self._check(path, file)
            groups = _groups_between(_group_starts(file.metadata), start, stop)
            row, skip = first_row, first_row
            for run in _runs(file.metadata, groups, set(self._columns)):
                num_rows = _num_rows(file.metadata, run)
                if skip < num_rows:
                    for batch, reason in self._read_groups(path, file, run, skip):
                        left = batch.num_rows if max_rows is None else max_rows + first_row - row
                        if left <= 0:
                            return
                        yield row, batch.nbytes, (batch.slice(0, left), reason)
                        row += batch.num_rows
                skip = max(0, skip - num_rows)

    def _read_groups(
        self, path: str, file: pyarrow.parquet.ParquetFile, groups: range, skip: int
    ) -> Iterator[_Batch]:
        """Batches of some row groups but their first rows.

        The rows of a damaged group, from the damage on, are null and carry a reason.

        Raises:
            InputError: A group is damaged, and unreadable files are not to be skipped.
        """
        num_rows = _num_rows(file.metadata, groups)
        seen = 0
        try:
            for batch in _iterate(file, groups, self._columns):
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
                num_rows = _num_rows(file.metadata, range(group, group + 1))
                if skip < num_rows:
                    yield from self._read_groups(path, file, range(group, group + 1), skip)
                skip = max(0, skip - num_rows)
            return
        reason = str(failure).splitlines()[0]
        if not self.options.skip_unreadable:
            raise InputError(
                f"{path}: row group {groups.start} cannot be read ({reason}); repair it, or pass "
                "--skip-unreadable-files to list its rows as dead letters"
            ) from failure
        schema = pa.schema([file.schema_arrow.field(name) for name in self._columns])
        for first in range(skip, num_rows, _DAMAGED_ROWS):
            size = min(_DAMAGED_ROWS, num_rows - first)
            nulls = [pa.nulls(size, field.type) for field in schema]
            batch = pa.RecordBatch.from_arrays(nulls, schema=schema)
            yield batch, f"unreadable row group: {reason}"

    def _keep_columns(self, table: pa.Table) -> pa.Table:
        """The kept columns in the types of the corpus."""
        columns = [
            pa.nulls(table.num_rows, field.type)
            if pa.types.is_null(table[field.name].type)
            else table[field.name].cast(field.type)
            for field in self.kept_schema
        ]
        return pa.table(columns, schema=self.kept_schema)


def _open_file(filesystem: pyarrow.fs.FileSystem, path: str) -> pyarrow.parquet.ParquetFile:
    """Open a file; one with large row groups is not fetched a whole group at a time.

    Raises:
        UnreadableFileError: It is no Parquet, or damaged.
    """
    with opening(path):
        source = FileBytes(filesystem, path)
        try:
            file = pyarrow.parquet.ParquetFile(source.open(), pre_buffer=True)
        except (pa.ArrowException, OSError):
            source.check_parquet()
            raise
        metadata = file.metadata
        sizes = (metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if max(sizes, default=0) <= _MAX_BUFFERED_BYTES:
            return file
        return pyarrow.parquet.ParquetFile(
            source.open(), metadata=metadata, pre_buffer=False, buffer_size=_PAGE_BUFFER_BYTES
        )


def _iterate(
    file: pyarrow.parquet.ParquetFile, groups: Sequence[int], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Rows of some row groups, a few at a time, whatever a row decodes to.

    Raises:
        OSError: A group cannot be what it says, or is damaged.
    """
    wanted = set(columns)
    largest = 1
    for group in groups:
        size, stored = _group_bytes(file.metadata.row_group(group), wanted)
        if size > _MAX_BUFFERED_BYTES and size > _MAX_RATIO * stored:
            raise OSError(f"{stored:,} bytes would become {size / 2**30:.1f} GiB")
        largest = max(largest, size)
    num_rows = min(max(_MAX_BUFFERED_BYTES // largest, _BATCH_ROWS // 16), _BATCH_ROWS)
    yield from file.iter_batches(
        batch_size=num_rows, row_groups=list(groups), columns=list(columns), use_threads=False
    )


def _check_schema(
    path: str, schema: pa.Schema, text_columns: Sequence[str], keep_columns: Sequence[str]
) -> pa.Schema:
    """Names and types of the kept columns, after checking that the columns are there."""
    check_columns(path, schema.names, text_columns, keep_columns)
    for name in text_columns:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise not_text(path, name, str(kind))
    return pa.schema([(name, schema.field(name).type) for name in keep_columns])


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


def _group_bytes(
    group: pyarrow.parquet.RowGroupMetaData, columns: Collection[str]
) -> tuple[int, int]:
    """Decompressed and stored bytes of some columns of a row group."""
    chunks = [
        chunk
        for chunk in (group.column(number) for number in range(group.num_columns))
        if chunk.path_in_schema.partition(".")[0] in columns
    ]
    return (
        sum(chunk.total_uncompressed_size for chunk in chunks),
        sum(chunk.total_compressed_size for chunk in chunks),
    )


def _num_rows(metadata: pyarrow.parquet.FileMetaData, groups: range) -> int:
    return sum(metadata.row_group(group).num_rows for group in groups)


def _runs(
    metadata: pyarrow.parquet.FileMetaData, groups: range, columns: Collection[str]
) -> Iterator[range]:
    """Row groups that are read together: small ones are fetched in one request."""
    first = groups.start
    num_bytes = 0
    for group in groups:
        num_bytes += _group_bytes(metadata.row_group(group), columns)[0]
        if num_bytes >= _RUN_BYTES:
            yield range(first, group + 1)
            first, num_bytes = group + 1, 0
    if first < groups.stop:
        yield range(first, groups.stop)


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
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        values: list[Any] = column.cast(pa.large_binary()).to_pylist()
        return [
            value if value is None else value.decode("utf-8", "surrogateescape") for value in values
        ]
