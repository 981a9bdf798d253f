"""Outputs as columns of Arrow: the types that predictions have, in files and in Python.

    outputs of texts, columns -> [arrow_columns] -> columns -> predictions

This module knows nothing of texts, batches or files.

Shape suffixes: N rows, U different texts, C outputs of a text.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastformers.inference.tasks import CellKind, Cells, PredictionColumn

# Kinds of cells that Arrow makes from Python's values; the others are rows of a matrix.
_CELL_TYPES: Mapping[CellKind, pa.DataType] = {
    "label": pa.string(),
    "labels": pa.list_(pa.string()),
    "number": pa.float32(),
    "ranked": pa.list_(pa.struct({"label": pa.string(), "probability": pa.float32()})),
}


def prediction_columns(
    columns: Sequence[PredictionColumn],
    outputs_UC: NDArray[np.float32],
    labels: tuple[str, ...],
    text_N: pa.Array,
) -> dict[str, pa.Array]:
    """Columns of predictions for N rows, by name.

    Args:
        columns: The columns, see `choose_columns`.
        outputs_UC: Logits, scores or embeddings of the different texts.
        labels: Class names; none for scores and embeddings.
        text_N: Number of each row's text among the U; null where the row could not be scored.
    """
    return {
        column.name: _to_arrow(column.read(outputs_UC, labels), column.kind).take(text_N)
        for column in columns
    }


def _to_arrow(cells_U: Cells, kind: CellKind) -> pa.Array:
    """Cells of the different texts, as a column of their kind."""
    if kind in _CELL_TYPES:
        return pa.array(cells_U, _CELL_TYPES[kind])
    values_UC = np.asarray(cells_U)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values_UC.ravel()), values_UC.shape[1])
    return vectors if kind == "vector" else vectors.cast(pa.list_(pa.float32()))
