"""Choose the share of tokens that each layer keeps.

    effect of shares on training rows -> [token_plan] -> keep_tokens -> distill

Layers differ in how much they mind: one share for all drops too many in some and too few in others.
So shares are lowered a step at a time, each time that of the layer where a saved multiply-add does
the least harm, for as long as the model, not yet trained again, agrees with itself as it was. This
module measures nothing; it knows nothing of torch or models.

Shape suffixes: N rows, L layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shares = tuple[float, ...]

_STEP = 0.1
_LEAST_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class TokenEffect:
    """What dropping tokens does to a model that was not trained for it.

    Attributes:
        harm: Mean distance of a row's output from that of the model with all tokens; it ranks
            layers more finely than agreement does.
        agreement: Agreement (at most 1) with the model with all tokens.
    """

    harm: float
    agreement: float


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Multiply-adds of one layer.

    Attributes:
        entering: For each token that enters it: the projections to keys and values.
        attending: For each token that attends in it: the projection to queries.
        pair: For each token that attends and each that it attends to: scores and weighted sums.
        leaving: For each token that leaves it: output projection and feed-forward.
    """

    entering: int
    attending: int
    pair: int
    leaving: int


def count_multiply_adds(
    costs: Sequence[LayerCost],
    entering_LN: NDArray[np.int64],
    attending_LN: NDArray[np.int64],
    leaving_LN: NDArray[np.int64],
) -> float:
    """Multiply-adds of a row, mean over rows.

    Args:
        costs: Costs of the L layers.
        entering_LN: Tokens that enter each layer.
        attending_LN: Tokens that attend in it.
        leaving_LN: Tokens that leave it.
    """
    entering, attending, pair, leaving = (
        np.array([getattr(cost, name) for cost in costs], float)
        for name in ("entering", "attending", "pair", "leaving")
    )
    pairs_LN = entering_LN.astype(float) * attending_LN
    of_rows_N = entering @ entering_LN + attending @ attending_LN + leaving @ leaving_LN
    return float((of_rows_N + pair @ pairs_LN).mean())


def choose_shares(
    measure: Callable[[Shares], TokenEffect],
    cost_of: Callable[[Shares], float],
    *,
    num_layers: int,
    first_layer: int = 0,
    min_agreement: float,
) -> Shares:
    """Lower the shares of layers, those that mind least first.

    What a step costs in a layer is measured again only when it would be the next one: what was
    measured before other layers dropped tokens is taken as the least that it can cost now.

    Args:
        measure: Measures the effect of shares.
        cost_of: Multiply-adds with shares.
        num_layers: Layers that may drop tokens.
        first_layer: First of them; those before it keep all.
        min_agreement: Agreement (0-1) that must be left.

    Returns:
        A share for each layer; 1 for all where not even one step is allowed.

    Source:
        Lazy evaluation of a greedy choice: Minoux 1978, "Accelerated greedy algorithms".
    """
    shares: Shares = (1.0,) * num_layers
    harm = 0.0
    rates = dict.fromkeys(range(first_layer, num_layers), 0.0)
    effects: dict[Shares, TokenEffect] = {}
    while rates:
        layer = min(rates, key=lambda at: (rates[at], at))
        lower = _lowered(shares, layer)
        if lower in effects:
            shares, harm = lower, effects[lower].harm
            if shares[layer] <= _LEAST_SHARE:
                del rates[layer]
            continue
        effects[lower] = effect = measure(lower)
        if effect.agreement < min_agreement:
            del rates[layer]
        else:
            saved = cost_of(shares) - cost_of(lower)
            rates[layer] = max(effect.harm - harm, 0.0) / max(saved, 1.0)
    return shares


def _lowered(shares: Shares, layer: int) -> Shares:
    """The shares after one step in one layer."""
    lower = round(shares[layer] - _STEP, 2)
    return (*shares[:layer], lower, *shares[layer + 1 :])
