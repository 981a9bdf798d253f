"""What a run left in its output, and what tests compare of two of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet


def read_predictions(output):
    """All predictions in corpus order, without what differs between runs."""
    parts = sorted(Path(output, "predictions").glob("part-*.parquet"))
    tables = [pyarrow.parquet.read_table(part).replace_schema_metadata() for part in parts]
    return pa.concat_tables(tables)


def read_dead_letters(output):
    """The rows without a prediction, as a table."""
    return pyarrow.parquet.read_table(Path(output, "__run__", "dead_letters.parquet"))


def contents(directory):
    """Every file below a directory, with what is in it."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
