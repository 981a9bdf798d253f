"""One shard's predictions: one Parquet file in corpus order, and the proof that it is done.

    actors -> [predictions] -> predictions/part-*.parquet -> report

Each file has the receipt of its shard in its footer, so the bill of a resumed run covers the shards
of the runs before it. This module knows nothing of models, batches or actors.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How much predictions of the same texts agree that were computed in two precisions.

    Attributes:
        num_texts: Texts that were scored in both.
        num_equal: Those with equal labels; all of them where no column has labels.
        largest_difference: The largest difference of a probability, score or value.
    """

    num_texts: int = 0
    num_equal: int = 0
    largest_difference: float = 0.0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            num_texts=self.num_texts + other.num_texts,
            num_equal=self.num_equal + other.num_equal,
            largest_difference=max(self.largest_difference, other.largest_difference),
        )


def compare_predictions(
    stored: pa.Table,
    logits_SC: NDArray[np.float32],
    columns: Sequence[PredictionColumn],
    labels: tuple[str, ...],
) -> Agreement:
    """Compare stored predictions with logits of the same texts.

    Args:
        stored: Predictions of S texts, see `build_predictions`.
        logits_SC: Logits (S, C) of these texts; a row that is not finite is left out, as is one
            without a stored prediction.
        columns: Columns of the predictions.
        labels: Class names; none for scores and embeddings.
    """
    is_good_S = stored["error"].is_null().to_numpy() & np.isfinite(logits_SC).all(axis=1)
    stored, logits_SC = stored.filter(pa.array(is_good_S)), logits_SC[is_good_S]
    is_equal_S, largest = np.ones(len(logits_SC), bool), 0.0
    computed = prediction_columns(columns, logits_SC, labels, pa.array(np.arange(len(logits_SC))))
    for column in columns if len(logits_SC) else ():
        here, there = computed[column.name].to_pylist(), stored[column.name].to_pylist()
        if column.kind == "ranked":  # the label that is ranked first
            here, there = ([cell[0]["label"] for cell in cells] for cells in (here, there))
        if column.kind in ("label", "labels", "ranked"):
            is_equal_S &= np.array([a == b for a, b in zip(here, there, strict=True)], bool)
        else:
            largest = max(largest, float(np.abs(np.array(here) - np.array(there)).max()))
    return Agreement(
        num_texts=len(logits_SC),
        num_equal=int(is_equal_S.sum()),
        largest_difference=largest,
    )


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
