"""What a layer costs by its number of heads and neurons: values that were measured once.

    layer_timing -> [layer_times] -> pruning_plan

Time is separable: a layer takes what its attention takes with so many heads, and what its
feed-forward takes with so many neurons. It is counted in whole ticks, of which an unpruned layer
takes about a thousand, so that a budget is kept exactly and not but for rounding. This module knows
nothing of clocks, graphs or importance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ticks = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PartTimes:
    """Ticks of one part of a layer by its size, beyond those of the smallest size.

    Attributes:
        sizes: Sizes that were measured, ascending: heads, or feed-forward neurons.
        ticks: Ticks of each size, beyond the first one's; a larger part never takes fewer.
    """

    sizes: tuple[int, ...]
    ticks: tuple[int, ...]

    @classmethod
    def of(cls, sizes: tuple[int, ...], seconds: NDArray[np.float64], tick_s: float) -> "PartTimes":
        """Times of measured seconds; where a larger part was faster, the rest is noise."""
        beyond = np.maximum.accumulate(seconds - seconds[0])
        return cls(sizes=sizes, ticks=tuple(np.rint(beyond / tick_s).astype(int).tolist()))

    def scaled(self, share: float) -> "PartTimes":
        """Times of a part that is computed for a share of the tokens."""
        return replace(self, ticks=tuple(round(share * ticks) for ticks in self.ticks))

    def ticks_of(self, sizes: NDArray[np.integer]) -> Ticks:
        """Ticks of any sizes, interpolated between those that were measured."""
        ticks: Ticks = np.rint(np.interp(sizes, self.sizes, self.ticks)).astype(np.int64)
        return ticks


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Ticks of the parts of a model's layers on one machine, for a token of a training row.

    The last layer has times of its own, because most of it is computed for the first token alone
    where the classifier reads no other.

    Attributes:
        tick_s: Seconds of a tick.
        whole_s: Seconds of a token in the model that was measured.
        heads, last_heads: Times of attention, of all layers but the last and of the last.
        neurons, last_neurons: Times of the feed-forward.
        token_shares: Share of a row's tokens that attention and feed-forward of each layer compute,
            where tokens are pooled or dropped on the way; empty where they are not.
    """

    tick_s: float
    whole_s: float
    heads: PartTimes
    neurons: PartTimes
    last_heads: PartTimes
    last_neurons: PartTimes
    token_shares: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "LayerTimes":
        """The times that were kept."""
        parts = {
            name: PartTimes(sizes=tuple(part["sizes"]), ticks=tuple(part["ticks"]))
            for name, part in fields.items()
            if isinstance(part, dict)
        }
        shares = tuple((attention, ffn) for attention, ffn in fields["token_shares"])
        return cls(tick_s=fields["tick_s"], whole_s=fields["whole_s"], token_shares=shares, **parts)

    def count_ticks(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Ticks of a model's layers, each given by its heads and neurons, first layer first."""
        total = 0
        for index, (num_heads, num_neurons) in enumerate(sizes):
            of_heads, of_neurons = self.parts_of(index, len(sizes))
            total += int(of_heads.ticks_of(np.array(num_heads)))
            total += int(of_neurons.ticks_of(np.array(num_neurons)))
        return total

    def parts_of(self, layer: int, num_layers: int) -> tuple[PartTimes, PartTimes]:
        """Times of a layer's attention and of its feed-forward."""
        is_last = layer == num_layers - 1
        heads, neurons = (
            (self.last_heads, self.last_neurons) if is_last else (self.heads, self.neurons)
        )
        if not self.token_shares:
            return heads, neurons
        of_attention, of_ffn = self.token_shares[layer]
        return heads.scaled(of_attention), neurons.scaled(of_ffn)
