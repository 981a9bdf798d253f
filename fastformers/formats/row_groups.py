"""Row groups of a Parquet file: where they are, which are read together, and their rows in batches.

    footer of a file -> [row_groups] -> row groups of a part -> batches of rows -> parquet

A row group says how many bytes it becomes; what cannot be true is refused before it is decoded.
This module knows nothing of texts or kept columns.
"""

import bisect
import itertools
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from fastformers.files.file_bytes import FileBytes
from fastformers.formats.readers import opening

# Rows that are decoded at a time, unless they are very long.
_BATCH_ROWS = 64
# Small row groups are read together, up to these decompressed bytes.
_RUN_BYTES = 16 * 2**20
# Largest row group whose stored bytes are fetched at once, and of a larger one, bytes of a column.
_MAX_BUFFERED_BYTES, _PAGE_BUFFER_BYTES = 256 * 2**20, 2**20
# Bytes that one stored byte becomes: more of a large row group is a mistake or an attack. Text that
# repeats this often is stored once by all writers, and rarely counted by its size.
_MAX_RATIO = 1000


def open_parquet(filesystem: pyarrow.fs.FileSystem, path: str) -> pyarrow.parquet.ParquetFile:
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
        _ = file.schema_arrow.names  # a damaged footer may hold names that are no text
        metadata = file.metadata
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
            raise OSError(
                f"its footer says {metadata.num_rows:,} rows, but {sum(rows):,} in its row groups"
            )
        sizes = (metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if max(sizes, default=0) <= _MAX_BUFFERED_BYTES:
            return file
        return pyarrow.parquet.ParquetFile(
            source.open(), metadata=metadata, pre_buffer=False, buffer_size=_PAGE_BUFFER_BYTES
        )


def iterate_rows(
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


def group_starts(metadata: pyarrow.parquet.FileMetaData) -> list[int]:
    """Byte where each row group begins, never before the one of the group before it.

    Writers may leave offsets out or give them in any order; the rows must keep theirs.
    """
    starts: list[int] = []
    for index in range(metadata.num_row_groups):
        column = metadata.row_group(index).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        starts.append(max(start, starts[-1] if starts else 0))
    return starts


def groups_between(starts: Sequence[int], start: int, stop: int | None) -> range:
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
        if any(f"{_path_of(chunk)}.".startswith(f"{name}.") for name in columns)
    ]
    return (
        sum(chunk.total_uncompressed_size for chunk in chunks),
        sum(chunk.total_compressed_size for chunk in chunks),
    )


def _path_of(chunk: pyarrow.parquet.ColumnChunkMetaData) -> str:
    """Names that lead to a column, as a damaged footer may not tell it."""
    try:
        return str(chunk.path_in_schema)
    except UnicodeDecodeError:
        return ""


def count_rows(metadata: pyarrow.parquet.FileMetaData, groups: range) -> int:
    return sum(metadata.row_group(group).num_rows for group in groups)


def plan_runs(
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


def find_groups(
    metadata: pyarrow.parquet.FileMetaData, start: int, stop: int
) -> tuple[list[int], int]:
    """Row groups that hold the rows of a span, and the number of the first row in them."""
    ends = list(
        itertools.accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    )
    begins = [0, *ends[:-1]]
    groups = [i for i, end in enumerate(ends) if begins[i] < stop and end > start]
    return groups, begins[groups[0]]
