"""Decide which heads and feed-forward neurons of each layer stay, as many in each.

    importance -> [pruning_plan] -> prune -> distill -> importance -> ...

`latency_plan` decides by what they cost, with the same shares.

This is pure arithmetic on arrays; it knows nothing of torch, models or where importance comes from.

Shares are of the model as it was before any pruning, so a plan may be made again on a model that
was pruned before: 0.5 always means that half of the original is gone, however many rounds it took.

Shape suffixes: H heads of one layer, F feed-forward neurons of one layer, D hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.errors import InputError

Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much a model's loss depends on each of its parts; only comparisons mean anything.

    Attributes:
        heads: Importance of the heads of each layer, (H,).
        neurons: Importance of the feed-forward neurons of each layer, (F,).
        hidden_D: Importance of each hidden dimension, over all layers.
        num_heads: Heads of every layer before any pruning.
        ffn_width: Feed-forward neurons of every layer before any pruning.
    """

    heads: tuple[Floats, ...]
    neurons: tuple[Floats, ...]
    hidden_D: Floats
    num_heads: int
    ffn_width: int


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """Heads and neurons that stay in each layer: indices into the model as it is, ascending."""

    heads: tuple[Indices, ...]
    neurons: tuple[Indices, ...]


def plan_pruning(
    importance: Importance,
    *,
    prune_heads: float,
    prune_ffn: float,
    multiple_of: int = 16,
) -> PruningPlan:
    """Choose the heads and neurons that stay, as many in each layer.

    At least the share asked for is removed, rounded to whole heads and to blocks of `multiple_of`
    neurons; but one head and `multiple_of` neurons stay in each layer.

    Args:
        importance: Importance of the parts of the model as it is.
        prune_heads: Share (0-1) of the unpruned model's heads to be gone afterwards.
        prune_ffn: Share (0-1) of its feed-forward neurons to be gone afterwards.
        multiple_of: Feed-forward widths become multiples of it, which suits matrix kernels. A
            layer that loses nothing keeps its width.

    Raises:
        InputError: A share is not in [0, 1), or `multiple_of` is below 1.
    """
    check_shares(prune_heads, prune_ffn, multiple_of)
    return PruningPlan(
        heads=_choose(importance.heads, importance.num_heads, prune_heads, 1),
        neurons=_choose(importance.neurons, importance.ffn_width, prune_ffn, multiple_of),
    )


def plan_rounds(share: float, num_rounds: int) -> list[float]:
    """Spread pruning over rounds that each take the same share of what is left.

    Returns:
        The share of the unpruned model that is gone after each round; the last is `share`.

    Raises:
        InputError: `share` is not in [0, 1), or `num_rounds` is below 1.
    """
    check_share("share to prune", share)
    if num_rounds < 1:
        raise InputError(f"{num_rounds} rounds of pruning: give at least 1")
    return [1 - (1 - share) ** (done / num_rounds) for done in range(1, num_rounds)] + [share]


def count_uniform(num_unpruned: int, share: float, multiple_of: int) -> int:
    """Heads or neurons that each layer keeps when it loses a share; one multiple at least."""
    return max(_num_left(num_unpruned, share) // multiple_of, 1) * multiple_of


def check_shares(prune_heads: float, prune_ffn: float, multiple_of: int) -> None:
    """Raise InputError unless both shares are in [0, 1), and `multiple_of` is at least 1."""
    for flag, share in (("--prune-heads", prune_heads), ("--prune-ffn", prune_ffn)):
        check_share(flag, share)
    if multiple_of < 1:
        raise InputError(f"neurons to a multiple of {multiple_of}: give at least 1")


def check_share(flag: str, share: float) -> None:
    """Raise InputError unless a share to prune is in [0, 1)."""
    if not 0 <= share < 1:
        raise InputError(f"{flag} {share:g}: give a share from 0 to below 1")


def _num_left(num_unpruned: int, share: float) -> int:
    # 10 * (1 - 0.9) is a hair below 1 in floating point.
    return int(num_unpruned * (1 - share) + 1e-9)


def _choose(
    scores: Sequence[Floats], num_unpruned: int, share: float, multiple: int
) -> tuple[Indices, ...]:
    if share == 0:
        return tuple(np.arange(len(layer)) for layer in scores)
    num_kept = count_uniform(num_unpruned, share, multiple)
    return tuple(top_positions(layer, num_kept) for layer in scores)


def top_positions(layer: Floats, num_kept: int) -> Indices:
    """Indices of the highest scores, ascending; of equal scores the first are taken."""
    return np.sort(np.argsort(-layer, kind="stable")[:num_kept])
