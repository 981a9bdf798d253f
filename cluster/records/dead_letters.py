"""List the rows that have no prediction, by file and row, with the reason.

    predictions, slice table -> [dead_letters] -> __run__/dead_letters.parquet

Only slices with such rows are looked at, a few at a time, so the list may be longer than memory.
This module knows nothing of how rows are read or scored.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from fastformers.cluster.records.slice_table import Place, SliceTable, load_slice_receipt
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import read_errors
from fastformers.cluster.shards.preparation import receipt_name
from fastformers.cluster.shards.shard_set import ShardSet, split_key
from fastformers.cluster.storage.directory import Directory

DEAD_LETTERS_FILE = "dead_letters.parquet"
SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("part_row", pa.int64()),
        ("corpus_row", pa.int64()),
        ("file", pa.string()),
        ("file_row", pa.int64()),
        ("error", pa.string()),
    ]
)
_ROWS_A_GROUP = 65_536


def write_dead_letters(
    home: Directory,
    predictions: Directory,
    shards: Directory,
    table: SliceTable,
    *,
    with_errors: ShardSet,
) -> int:
    """Write the list of the rows without a prediction; returns how many there are.

    Args:
        home: Directory of the list.
        predictions: Directory of the predictions.
        shards: Directory of the receipts of slices.
        table: All slices of the corpus.
        with_errors: Shards with such rows.
    """
    num_letters = 0
    with (
        home.write(DEAD_LETTERS_FILE) as sink,
        pyarrow.parquet.ParquetWriter(sink, SCHEMA) as writer,
    ):
        for letters in _in_groups(_read_letters(predictions, shards, table, with_errors)):
            writer.write_table(pa.Table.from_pylist(letters, SCHEMA))
            num_letters += len(letters)
    return num_letters


def _read_letters(
    predictions: Directory, directory: Directory, table: SliceTable, with_errors: ShardSet
) -> Iterator[list[dict[str, Any]]]:
    """Rows without a prediction of one slice after the other, in corpus order."""

    def read(place: Place) -> list[dict[str, Any]]:
        shards = load_slice_receipt(directory, place.key).shards
        errors = {
            shard.name: read_errors(predictions, shard.file_name)
            for shard in shards
            if shard.name in with_errors
        }
        return _letters_of(place, shards, errors)

    place_of = {receipt_name(*split_key(place.key)): place for place in table.find(with_errors)}
    return directory.map_files(place_of, lambda name: read(place_of[name]))


def _letters_of(
    place: Place, shards: tuple[Shard, ...], errors_of: dict[str, list[tuple[int, str]]]
) -> list[dict[str, Any]]:
    """Rows without a prediction of one slice, from the errors of its shards by their names."""
    letters: list[dict[str, Any]] = []
    corpus_row, path_hash, file_row = place.corpus_row, place.path_hash, place.file_row
    for shard in shards:
        errors = errors_of.get(shard.name, [])
        part_row = 0
        for path, num_rows in shard.spans:
            file_row = file_row if hash(path) == path_hash else 0
            path_hash = hash(path)
            letters.extend(
                {
                    "part": shard.file_name,
                    "part_row": row,
                    "corpus_row": corpus_row + row,
                    "file": path,
                    "file_row": file_row + row - part_row,
                    "error": error,
                }
                for row, error in errors
                if part_row <= row < part_row + num_rows
            )
            part_row += num_rows
            file_row += num_rows
        corpus_row += part_row
    return letters


def _in_groups(lists: Iterator[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """Lists joined until they are as long as a row group."""
    group: list[dict[str, Any]] = []
    for letters in lists:
        group.extend(letters)
        if len(group) >= _ROWS_A_GROUP:
            yield group
            group = []
    if group:
        yield group
