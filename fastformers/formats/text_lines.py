"""Turn the records of text files into rows.

    records of a file -> [text_lines, kept_columns] -> rows, good and bad -> json_lines, csv_files

This module knows nothing of JSON or CSV.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fastformers.files.file_bytes import TextFile
from fastformers.formats.kept_columns import (
    count_unknown,
    has_nested,
    keep_rows,
    read_directories,
    read_nested,
)
from fastformers.formats.readers import FileReader, Rows, SampledRows
from fastformers.formats.records.record_stream import MAX_SAMPLE_BYTES, RecordStream
from fastformers.texts import check_texts, column_places

# Values by the names of their columns, or the reason why there are none.
Record = dict[str, Any] | str


def make_rows(
    reader: FileReader,
    path: str,
    found: Sequence[Record],
    *,
    first_row: int,
    rest_start: int | None,
) -> Rows:
    """Rows of N records.

    Args:
        reader: Reader that knows which columns they are to have.
        path: The file that they are of.
        found: The records.
        first_row: Number of the first of them in the file.
        rest_start: Place of the records behind them, see `Rows`.
    """
    errors = {row: record for row, record in enumerate(found) if isinstance(record, str)}
    records = _objects(found)
    names = reader.kept_schema.names
    directories = read_directories(path)  # for records that lack a column that others have
    columns = {
        name: [read_nested(record, name, directories.get(name)) for record in records]
        for name in names
        if any(has_nested(record, name) for record in records)
    }
    kept, unfit = keep_rows(
        reader.kept_schema, columns, path, num_rows=len(records), first_row=first_row
    )
    if reader.keeps_all:
        count_unknown(unfit, sum(len(record.keys() - set(names)) for record in records))
    texts = [[read_nested(record, name) for record in records] for name in reader.text_columns]
    return Rows(
        texts=check_texts(texts, column_places(reader.text_columns), errors),
        errors=errors,
        kept=kept,
        unfit=unfit,
        rest_start=rest_start,
    )


def texts_of(reader: FileReader, found: Sequence[Record]) -> tuple[list[str], ...]:
    """Text columns of N records, "" where a row is bad."""
    records = _objects(found)
    texts = [[read_nested(record, name) for record in records] for name in reader.text_columns]
    return check_texts(texts, column_places(reader.text_columns), {})


def sample_beginning(
    reader: FileReader, text: TextFile, records: Iterator[tuple[int, int, Record]]
) -> SampledRows:
    """Texts of the first rows of a file that can only be read from its start.

    Args:
        reader: Reader that knows which columns they are to have.
        text: The file.
        records: Its records, read `SAMPLE_AHEAD_BYTES` at a time.
    """
    stream = RecordStream(records)
    found = stream.take(max_records=None, chunk_bytes=MAX_SAMPLE_BYTES)
    is_beginning = stream.rest is not None
    size = text.consumed_bytes if is_beginning else text.size_bytes
    return SampledRows(texts=texts_of(reader, found), size=size, is_beginning=is_beginning)


def _objects(found: Sequence[Record]) -> list[dict[str, Any]]:
    return [record if isinstance(record, dict) else {} for record in found]
