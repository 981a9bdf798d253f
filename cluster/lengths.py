"""How long texts are, and what padding them cost, counted by length.

    shards -> batches -> [lengths] -> receipts -> report

Counts of all shards add up, and a receipt holds at most one entry for each edge below, so a million
shards cost the driver little. This module sees lengths; it knows nothing of text or engines.

Shape suffixes: U different texts of a shard, B rows of one batch.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# Upper edges in tokens, the edge included; a longer text counts under the last one.
EDGES = (
    *(8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192),
)  # fmt: skip


def count_lengths(
    lengths_U: NDArray[np.integer],
    batches: Iterable[NDArray[np.intp]],
    computed_tokens: Sequence[int],
) -> dict[str, list[int]]:
    """Texts, their tokens, and the tokens computed for them, by the upper edge of their length.

    Args:
        lengths_U: Tokens of each text.
        batches: Places (B,) of the texts of each batch.
        computed_tokens: Tokens that each batch computed, padding included.

    Returns:
        [texts, tokens, computed tokens] by edge, for edges that have any, ascending.
    """
    edges = np.searchsorted(EDGES[:-1], lengths_U)
    counts = np.zeros((len(EDGES), 3), np.int64)
    np.add.at(counts[:, 0], edges, 1)
    np.add.at(counts[:, 1], edges, lengths_U.astype(np.int64))
    for batch, computed in zip(batches, computed_tokens, strict=True):
        np.add.at(counts[:, 2], edges[batch], computed // len(batch))  # the same for each row
    return {
        str(edge): count for edge, count in zip(EDGES, counts.tolist(), strict=True) if any(count)
    }


def add_lengths(counts: Iterable[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Sum of the counts of many shards."""
    total: dict[str, list[int]] = {}
    for count in counts:
        for edge, numbers in count.items():
            total[edge] = [a + b for a, b in zip(total.get(edge, [0, 0, 0]), numbers, strict=True)]
    return {edge: total[edge] for edge in sorted(total, key=int)}
