"""One shard's predictions: one Parquet file in corpus order, and the proof that it is done.

    actors -> [predictions] -> predictions/part-*.parquet -> report

Each file has the receipt of its shard in its footer, so the bill of a resumed run covers the shards
of the runs before it. This module knows nothing of models, batches or actors.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.storage.directory import Directory
from fastformers.inference.outputs.arrow_columns import prediction_columns
from fastformers.inference.tasks import PredictionColumn

_RECEIPT_KEY = b"fastformers"


def build_predictions(
    shard: pa.Table,
    logits_UC: NDArray[np.float32],
    task_columns: Sequence[PredictionColumn],
    labels: tuple[str, ...],
    errors_U: dict[int, str],
    keep_columns: tuple[str, ...],
) -> pa.Table:
    """Predictions of a shard's rows in corpus order.

    Args:
        shard: The shard as stored, see `layout.build_shard_table`.
        logits_UC: Logits, scores or embeddings of its different texts.
        task_columns: Columns of predictions, see `choose_columns`.
        labels: Class names; none for scores and embeddings.
        errors_U: Reason why a text could not be scored, by its number.
        keep_columns: Columns to pass through.

    Returns:
        The kept columns, those of predictions, and `error`.
    """
    inverse = np.argsort(shard["place"].to_numpy())
    shard = shard.take(pa.array(inverse))
    is_good = shard["unique"].is_valid().to_numpy()
    unique_N = shard["unique"].fill_null(0).to_numpy()
    errors = shard["error"].to_pylist()
    if errors_U:
        for row in np.flatnonzero(is_good & np.isin(unique_N, list(errors_U))).tolist():
            errors[row] = errors_U[int(unique_N[row])]
    missing = np.array([error is not None for error in errors], bool)
    place_N = pa.array(unique_N, pa.int64(), mask=missing)  # null takes null
    columns = {name: shard[f"keep.{name}"] for name in keep_columns}
    columns.update(prediction_columns(task_columns, logits_UC, labels, place_N))
    columns["error"] = pa.array(errors, pa.string())
    return pa.table(columns)


def write_predictions(
    directory: Directory, file_name: str, table: pa.Table, receipt: Receipt
) -> Receipt:
    """Commit a shard: its file appears whole, with its receipt, or not at all.

    Returns:
        The receipt with the size of the file.

    Raises:
        StorageError: It cannot be written.
    """
    stored = table.replace_schema_metadata({_RECEIPT_KEY: json.dumps(asdict(receipt)).encode()})
    with directory.write(file_name) as file:
        pyarrow.parquet.write_table(stored, file, compression="zstd")
        file_bytes = file.tell()
    return replace(receipt, file_bytes=file_bytes)


def read_receipt(directory: Directory, file_name: str) -> Receipt | None:
    """Receipt of a finished shard; None if the file is not a complete one of ours."""
    try:
        with directory.open_input(file_name) as file:
            schema = pyarrow.parquet.read_schema(file)
        fields: dict[str, Any] = json.loads((schema.metadata or {})[_RECEIPT_KEY])
        return Receipt(**fields)
    except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError):
        return None


def read_errors(directory: Directory, file_name: str) -> list[tuple[int, str]]:
    """Position in the file and reason of each row without a prediction."""
    errors = directory.read_table(file_name, columns=["error"])["error"].to_pylist()
    return [(row, error) for row, error in enumerate(errors) if error is not None]
