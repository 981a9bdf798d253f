"""List the rows that have no prediction, by file and row, with the reason.

    predictions, receipts -> [dead_letters] -> dead_letters.parquet

This module knows nothing of how rows are read or scored.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet

from cluster.shards.layout import Shard
from cluster.shards.predictions import read_errors
from cluster.shards.receipts import Receipt
from cluster.storage.directory import Directory

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


def write_dead_letters(output: Directory, shards: list[Shard], receipts: list[Receipt]) -> int:
    """Write the list of the rows without a prediction; returns how many there are."""
    num_errors = {receipt.shard: receipt.num_errors for receipt in receipts}
    letters: list[dict[str, Any]] = []
    corpus_row = 0
    file, file_row = "", 0
    predictions = output.child("predictions")
    for shard in shards:
        errors = dict(read_errors(predictions, shard.file_name)) if num_errors[shard.name] else {}
        part_row = 0
        for path, num_rows in shard.spans:
            file, file_row = path, (file_row if path == file else 0)
            letters.extend(
                {
                    "part": shard.file_name,
                    "part_row": row,
                    "corpus_row": corpus_row + row,
                    "file": path,
                    "file_row": file_row + row - part_row,
                    "error": error,
                }
                for row, error in errors.items()
                if part_row <= row < part_row + num_rows
            )
            part_row += num_rows
            file_row += num_rows
        corpus_row += part_row
    with output.write(DEAD_LETTERS_FILE) as sink:
        pyarrow.parquet.write_table(pa.Table.from_pylist(letters, SCHEMA), sink)
    return len(letters)
