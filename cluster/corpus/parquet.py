"""Read row groups of Parquet files.

    slices -> [parquet] -> rows, good and bad, in corpus order -> shards

The footer says how many rows each group has, so pieces are groups and samples are counted in rows.
Columns have types, but a text column may hold bytes that are not UTF-8. This module knows nothing
of tokens or shards.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from cluster.corpus.readers import FilePart, Rows, check_columns, check_texts, not_text
from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Row groups of Parquet files."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
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
        skip_unreadable: bool,
    ) -> Self | None:
        with pyarrow.parquet.ParquetFile(path, filesystem=filesystem) as file:
            schema = file.schema_arrow
            num_rows = file.metadata.num_rows
        check_columns(path, schema.names, text_columns, keep_columns)
        for name in text_columns:
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise not_text(path, name, str(kind))
        if num_rows == 0:
            return None
        kept_schema = pa.schema([(name, schema.field(name).type) for name in keep_columns])
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=kept_schema,
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        with pyarrow.parquet.ParquetFile(path, filesystem=self.filesystem) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        for index, group in enumerate(groups):
            if limit is not None and limit <= 0:
                return
            num_rows = group.num_rows if limit is None else min(limit, group.num_rows)
            yield FilePart(
                start=index,
                stop=index + 1,
                num_bytes=group.total_byte_size * num_rows // max(1, group.num_rows),
                num_rows=num_rows,
                max_rows=None if limit is None else num_rows,
            )
            limit = None if limit is None else limit - num_rows

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        columns = [*self.text_columns, *self.kept_schema.names]
        with pyarrow.parquet.ParquetFile(path, filesystem=self.filesystem) as file:
            stop = file.metadata.num_row_groups if stop is None else stop
            num_rows = sum(file.metadata.row_group(i).num_rows for i in range(start, stop))
            num_rows = num_rows if max_rows is None else min(num_rows, max_rows)
            try:
                table = file.read_row_groups(
                    list(range(start, stop)), list(dict.fromkeys(columns)), use_threads=False
                ).slice(0, num_rows)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0]
                if not self.skip_unreadable:
                    raise InputError(
                        f"{path}: row groups {start}-{stop - 1} cannot be read ({reason}); repair "
                        "it, or pass --skip-unreadable-files to list their rows as dead letters"
                    ) from error
                return self._unreadable(num_rows, reason)
        errors: dict[int, str] = {}
        texts = tuple(_decode_column(table[name]) for name in self.text_columns)
        kept = table.select(self.kept_schema.names).cast(self.kept_schema)
        return Rows(texts=check_texts(texts, self.text_columns, errors), errors=errors, kept=kept)

    def is_read_whole(self, path: str) -> bool:
        return False

    def measure_file(self, path: str, size_bytes: int) -> int:
        with pyarrow.parquet.ParquetFile(path, filesystem=self.filesystem) as file:
            return int(file.metadata.num_rows)

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        columns = list(dict.fromkeys(self.text_columns))
        parts: list[pa.RecordBatch] = []
        with pyarrow.parquet.ParquetFile(path, filesystem=self.filesystem) as file:
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
        texts = [_decode_column(table[name]) for name in self.text_columns]
        return check_texts(texts, self.text_columns, errors)

    def _unreadable(self, num_rows: int, reason: str) -> Rows:
        return Rows(
            texts=tuple([""] * num_rows for _ in self.text_columns),
            errors=dict.fromkeys(range(num_rows), f"unreadable row group: {reason}"),
            kept=pa.table(
                [pa.nulls(num_rows, field.type) for field in self.kept_schema],
                schema=self.kept_schema,
            ),
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
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        values: list[Any] = column.cast(pa.large_binary()).to_pylist()
        return [
            value if value is None else value.decode("utf-8", "surrogateescape") for value in values
        ]
