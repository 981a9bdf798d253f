"""Which tokens a model passes on from layer to layer, as its configuration says it.

    config.keep_tokens, config.pool_tokens -> [token_reduction] -> reduced_layers, graph, losses

Its settings stay with a model as any other of its Hugging Face configuration does: `keep_tokens`
lists the share of the tokens entering a layer that leave it, from the first layer on; `pool_tokens`
has the layer before which tokens are pooled, how many make one, and how. Which tokens stay is
learned, and stands among the weights. This module knows nothing of torch.

Shape suffixes: N rows, L layers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import InputError
from fastformers.models.variants.token_counts import count_kept_tokens, count_pooled_tokens

PoolHow = Literal["mean", "max"]


@dataclass(frozen=True, kw_only=True)
class TokenPool:
    """How tokens are pooled; the first one stays as it is.

    Attributes:
        before_layer: Layer that is the first to get pooled tokens; 0 pools the embeddings.
        every: Tokens that make one; the last group of a row may have fewer.
        how: Mean or maximum of the tokens of a group.
    """

    before_layer: int
    every: int
    how: PoolHow


@dataclass(frozen=True, kw_only=True)
class TokenReduction:
    """What a model does with its tokens, besides computing on them.

    Attributes:
        keep_shares: Share of the tokens entering a layer that leave it, from the first layer on;
            the layers that follow keep all.
        pool: How tokens are pooled; None where they are not.
    """

    keep_shares: tuple[float, ...] = ()
    pool: TokenPool | None = None

    @property
    def drops(self) -> bool:
        """Whether a layer drops tokens."""
        return any(share < 1 for share in self.keep_shares)

    @property
    def reduces(self) -> bool:
        """Whether any layer gets fewer tokens than there are."""
        return self.drops or self.pool is not None

    def shares_of(self, num_layers: int) -> list[float]:
        """Share of the tokens entering each layer that leave it."""
        return [*self.keep_shares, *[1.0] * (num_layers - len(self.keep_shares))]

    def pool_of_state(self, state: int) -> TokenPool | None:
        """How the tokens of a hidden state were pooled: 0 is the embeddings, before any pooling."""
        if self.pool is None or state <= self.pool.before_layer:
            return None
        return self.pool

    def count_tokens(self, lengths_N: NDArray[np.int64], num_layers: int) -> NDArray[np.int64]:
        """Tokens of each hidden state of each row, (L + 1, N), from the embeddings on."""
        counts_LN = np.empty((num_layers + 1, len(lengths_N)), np.int64)
        counts_LN[0] = lengths_N
        for layer in range(num_layers):
            entering_N = counts_LN[layer]
            if self.pool is not None and layer == self.pool.before_layer:
                entering_N = count_pooled_tokens(entering_N, self.pool.every)
            share = self.keep_shares[layer : layer + 1] or (1.0,)
            counts_LN[layer + 1] = count_kept_tokens(entering_N, share)[0]
        return counts_LN

    def count_entering(self, lengths_N: NDArray[np.int64], num_layers: int) -> NDArray[np.int64]:
        """Tokens of each row that enter each layer, (L, N)."""
        entering_LN = self.count_tokens(lengths_N, num_layers)[:-1].copy()
        if self.pool is not None:
            first = self.pool.before_layer
            entering_LN[first] = count_pooled_tokens(entering_LN[first], self.pool.every)
        return entering_LN

    def drops_any(self, lengths_N: NDArray[np.int64], num_layers: int) -> bool:
        """Whether a row of these lengths loses a token: short ones may be rounded up to all."""
        whole_LN = replace(self, keep_shares=()).count_tokens(lengths_N, num_layers)
        return bool((self.count_tokens(lengths_N, num_layers) < whole_LN).any())

    def of_layers(self, keep: Sequence[int]) -> "TokenReduction":
        """The same for a model that has only these layers, in this order."""
        shares = tuple([*self.keep_shares, 1.0][min(at, len(self.keep_shares))] for at in keep)
        pool = self.pool
        if pool is not None:
            before = sum(at < pool.before_layer for at in keep)
            pool = TokenPool(
                before_layer=min(before, len(keep) - 1), every=pool.every, how=pool.how
            )
        return replace(self, keep_shares=shares if self.keep_shares else (), pool=pool)


def reduction_of(config: Any, source: str = "config.json") -> TokenReduction:
    """What a Hugging Face configuration says.

    Args:
        config: Configuration of a model.
        source: The file that it is from, for messages.

    Raises:
        InputError: A setting makes no sense; names it.
    """
    shares = getattr(config, "keep_tokens", None) or ()
    pool = getattr(config, "pool_tokens", None)
    num_layers = int(config.num_hidden_layers) if shares or pool else 0
    if not (
        isinstance(shares, (list, tuple))
        and len(shares) <= num_layers
        and all(isinstance(share, (int, float)) and 0 < share <= 1 for share in shares)
    ):
        raise InputError(
            f"{source}: keep_tokens {shares}: give a share above 0, to 1, for each layer that "
            "drops tokens"
        )
    try:
        pooled = None if pool is None else TokenPool(**pool)
        is_valid = pooled is None or (
            0 <= pooled.before_layer < num_layers
            and pooled.every >= 2
            and pooled.how in get_args(PoolHow)
        )
    except TypeError:
        is_valid = False
    if not is_valid:
        raise InputError(
            f"{source}: pool_tokens {pool}: give before_layer (below {num_layers}), every (2 or "
            f"more) and how ({' or '.join(get_args(PoolHow))})"
        )
    reduction = TokenReduction(keep_shares=tuple(map(float, shares)), pool=pooled)
    check_order(reduction, f"{source}: keep_tokens")
    return reduction


def check_order(reduction: TokenReduction, source: str) -> None:
    """Refuse layers that drop tokens before others are pooled: groups would not be of neighbors.

    Raises:
        InputError: There is one; names it.
    """
    if reduction.pool is not None:
        early = reduction.keep_shares[: reduction.pool.before_layer]
        if any(share < 1 for share in early):
            raise InputError(
                f"{source}: layer {next(at for at, one in enumerate(early) if one < 1)} drops "
                f"tokens and stands before the pooling (layer {reduction.pool.before_layer}): "
                "give 1 for it"
            )


def set_reduction(config: Any, reduction: TokenReduction) -> None:
    """Write what a model does with its tokens into its configuration, or take it out."""
    config.keep_tokens = list(reduction.keep_shares) or None
    config.pool_tokens = None if reduction.pool is None else asdict(reduction.pool)
