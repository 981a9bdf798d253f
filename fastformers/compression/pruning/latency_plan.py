"""Decide which heads and neurons stay by what they cost in time, each layer by itself.

    importance + loss curves + layer_times -> [latency_plan] -> prune -> distill

The budget is the time of a model that loses the same shares in each layer, so that shares mean the
same speed whatever the budget. Within it the sizes are chosen that lose the least: of all
combinations, not greedily, because time is a sum over layers and parts, and loss nearly is. So a
layer keeps what costs little there: all neurons of a last layer that computes them for one token of
a row, for example. This is pure arithmetic; it knows nothing of torch or clocks.

Source:
    Tables of measured time as the cost of structures, and dynamic programming over them: Kurtic,
    Frantar and Alistarh 2023 (ZipLM), arXiv:2302.04089; Frantar and Alistarh 2022 (SPDY),
    arXiv:2201.13096.

Shape suffixes: P parts (attention and feed-forward of each layer), S sizes of a part, K ticks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.compression.pruning.layer_times import LayerTimes, PartTimes, Ticks
from fastformers.compression.pruning.pruning_plan import (
    Importance,
    PruningPlan,
    check_shares,
    count_uniform,
    top_positions,
)


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """Loss of a model of which one part is cut to a size, for a few sizes.

    Attributes:
        sizes: Heads or neurons that stay, ascending; the last are all.
        losses: Loss at each; a larger part never loses more.
    """

    sizes: tuple[int, ...]
    losses: tuple[float, ...]

    @classmethod
    def of(cls, sizes: tuple[int, ...], losses: tuple[float, ...]) -> "LossCurve":
        """A curve of measured losses; where a larger part lost more, the rest is noise."""
        falling = np.minimum.accumulate(np.maximum(losses, 0))
        return cls(sizes=sizes, losses=tuple(falling.tolist()))

    def losses_of(self, sizes_S: NDArray[np.integer]) -> NDArray[np.float64]:
        """Losses at any sizes: they grow with the square of what is gone."""
        roots_S: NDArray[np.float64] = np.interp(sizes_S, self.sizes, np.sqrt(self.losses))
        return roots_S**2


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """Loss curves of the attention and of the feed-forward of each layer."""

    heads: tuple[LossCurve, ...]
    neurons: tuple[LossCurve, ...]


def plan_within_time(
    importance: Importance,
    curves: LossCurves,
    times: LayerTimes,
    *,
    prune_heads: float,
    prune_ffn: float,
    multiple_of: int = 16,
) -> PruningPlan:
    """Choose the heads and neurons that stay within the time of a uniform plan.

    Args:
        importance: Importance of the parts of the model as it is; ranks those of a layer.
        curves: Loss of the model by the size of each part.
        times: Times of its layers.
        prune_heads: Share (0-1) of the heads that each layer of the uniform plan has lost; at 0 no
            heads are removed.
        prune_ffn: The same of neurons.
        multiple_of: Feed-forward widths become multiples of it, unless a layer keeps all neurons.

    Raises:
        InputError: A share is not in [0, 1), or `multiple_of` is below 1.
    """
    check_shares(prune_heads, prune_ffn, multiple_of)
    num_layers = len(importance.heads)
    parts: list[_Part] = []
    for index in range(num_layers):
        of_heads, of_neurons = times.parts_of(index, num_layers)
        parts.append(
            _part(
                importance.heads[index],
                curves.heads[index],
                of_heads,
                num_left=count_uniform(importance.num_heads, prune_heads, 1),
                may_lose=prune_heads > 0,
                multiple_of=1,
            )
        )
        parts.append(
            _part(
                importance.neurons[index],
                curves.neurons[index],
                of_neurons,
                num_left=count_uniform(importance.ffn_width, prune_ffn, multiple_of),
                may_lose=prune_ffn > 0,
                multiple_of=multiple_of,
            )
        )
    chosen = choose_within(
        [part.ticks_S for part in parts],
        [part.losses_S for part in parts],
        sum(part.budget for part in parts),
    )
    kept = [
        top_positions(part.scores, int(part.sizes_S[size]))
        for part, size in zip(parts, chosen, strict=True)
    ]
    return PruningPlan(heads=tuple(kept[::2]), neurons=tuple(kept[1::2]))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part of one layer, and the sizes that it may be given.

    Attributes:
        scores: Importance of its heads or neurons.
        sizes_S: Sizes to choose from.
        ticks_S: Ticks of each.
        losses_S: Loss at each.
        budget: Ticks of the part in a uniform plan.
    """

    scores: Floats
    sizes_S: NDArray[np.int64]
    ticks_S: Ticks
    losses_S: NDArray[np.float64]
    budget: int


def _part(
    scores: Floats,
    curve: LossCurve,
    times: PartTimes,
    *,
    num_left: int,
    may_lose: bool,
    multiple_of: int,
) -> _Part:
    width = len(scores)
    smaller = range(multiple_of, width, multiple_of) if may_lose else ()
    sizes_S = np.array([*smaller, width])
    return _Part(
        scores=scores,
        sizes_S=sizes_S,
        ticks_S=times.ticks_of(sizes_S),
        losses_S=curve.losses_of(sizes_S),
        budget=int(times.ticks_of(np.array(num_left if may_lose else width))),
    )


def choose_within(
    ticks_PS: Sequence[Ticks], losses_PS: Sequence[NDArray[np.float64]], budget: int
) -> list[int]:
    """Choose one size of each part so that the losses add up to the least within a budget.

    Args:
        ticks_PS: Ticks of each size of each part; parts may differ in their number of sizes.
        losses_PS: Loss at each size.
        budget: Ticks that the chosen sizes take together at most.

    Returns:
        Index of the size of each part.

    Raises:
        ValueError: Even the fastest sizes take more.
    """
    least_K = np.zeros(budget + 1)  # the least loss within so many ticks, of the parts so far
    choices_PK = []
    for ticks_S, losses_S in zip(ticks_PS, losses_PS, strict=True):
        totals_SK = np.full((len(ticks_S), budget + 1), np.inf)
        for size, (ticks, loss) in enumerate(zip(ticks_S.tolist(), losses_S, strict=True)):
            if ticks <= budget:
                totals_SK[size, ticks:] = least_K[: budget + 1 - ticks] + loss
        choices_PK.append(totals_SK.argmin(axis=0))
        least_K = totals_SK.min(axis=0)
    if least_K[budget] == np.inf:
        raise ValueError(f"no sizes take {budget} ticks or fewer")
    chosen = []
    for ticks_S, choices_K in zip(reversed(ticks_PS), reversed(choices_PK), strict=True):
        chosen.append(int(choices_K[budget]))
        budget -= int(ticks_S[chosen[-1]])
    return chosen[::-1]
