"""Group tokenized rows into batches of one exact length.

    corpus -> lengths -> shards -> [batching] -> score -> predictions

An encoder pays for a padded position exactly as it pays for text. A shard holds enough rows that
most lengths occur often, and a CPU loses nothing on a batch of one long row, so a batch holds rows
of one length only: no padding and no attention mask. The plan is a pure function of the lengths
and the token budget: never of timing, actors or retries. This module sees lengths and returns row
indices; it knows nothing of text, ONNX or Ray.

Shape suffixes: N rows in the shard, B rows in one batch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Rows of a batch at most, or as many as have 16 tokens under a GPU's budget: what a row costs
# beside its tokens is not in the budget.
MAX_BATCH_ROWS, _FEWEST_TOKENS = 256, 16


def rows_per_batch(lengths: NDArray[np.integer], max_batch_tokens: int) -> NDArray[np.int64]:
    """Rows of each length that fill a batch; a row longer than the token budget runs alone."""
    most = max(MAX_BATCH_ROWS, max_batch_tokens // _FEWEST_TOKENS)
    limits: NDArray[np.int64] = np.clip(max_batch_tokens // lengths, 1, most)
    return limits


def plan_batches(
    lengths_N: NDArray[np.integer], *, max_batch_tokens: int
) -> list[NDArray[np.intp]]:
    """Split rows into batches of equal length under a token budget.

    Rows of one length are spread evenly over their batches, so no batch of a single short row is
    left at the end.

    Args:
        lengths_N: Tokens per row after truncation, special tokens included.
        max_batch_tokens: Upper bound on rows x length, in tokens; one row may exceed it.

    Returns:
        Row indices (B,) of each batch, longest first, so a shard meets its peak memory in its
        first batch. Every row appears exactly once; rows of equal length keep their order.

    Raises:
        ValueError: A row is empty, or the budget is below 1.
    """
    if max_batch_tokens < 1:
        raise ValueError(f"max_batch_tokens is {max_batch_tokens}; give at least 1")
    if len(lengths_N) == 0:
        return []
    if lengths_N.min() < 1:
        raise ValueError(f"row {int(lengths_N.argmin())} has no tokens")
    order_N = np.argsort(-lengths_N.astype(np.int64), kind="stable")
    starts = np.flatnonzero(np.diff(lengths_N[order_N], prepend=-1))
    batches: list[NDArray[np.intp]] = []
    for group in np.split(order_N, starts[1:]):
        limit = int(rows_per_batch(lengths_N[group[0]], max_batch_tokens))
        batches.extend(np.array_split(group, -(-len(group) // limit)))
    return batches


def in_row_order(
    outputs: Sequence[NDArray[np.float32]], batches: Sequence[NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Outputs of all batches, (N, ...) in the order of the rows.

    Args:
        outputs: Outputs of each batch, (B, ...).
        batches: Row indices (B,) of each batch; every row appears exactly once.
    """
    ordered: NDArray[np.float32] = np.concatenate(outputs)[np.argsort(np.concatenate(batches))]
    return ordered
