"""The ratio of two sums, and how far its parts are from it, in a few numbers.

    finished jobs -> [blocks] -> ratio and spread -> time left

Pairs come in order, such as what was predicted of a shard and what it took. They are kept in at
most 32 blocks of equally many; when these are full, neighbors are joined. So what goes slowly up
and down (a neighbor on the machine, texts of another kind) makes blocks differ, however long the
run is, and what does not outlast a block is averaged away as it will be in the rest of the run.
This module knows nothing of jobs or clocks.
"""

import itertools
import math
from dataclasses import dataclass

_MAX_BLOCKS = 32
_MAX_CORRELATION = 0.9


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What is taken for granted before much was seen.

    Attributes:
        relative: Standard deviation of a typical part of the sum, as a share of it.
        weight: How many parts this is worth.
    """

    relative: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a sum over x, in the rest of a run, may be from the ratio times x.

    Attributes:
        per_x: Variance of the sum, for each unit of x.
        freedom: Degrees of freedom with which that is known.
    """

    per_x: float
    freedom: float


class RatioBlocks:
    """Pairs (x, y) in their order.

    Attributes:
        sum_x, sum_y: Sums of all.
        count: Number of parts that they are of.
    """

    __slots__ = ("_blocks", "_in_last", "_per_block", "count", "sum_x", "sum_y")

    def __init__(self) -> None:
        self.sum_x = self.sum_y = 0.0
        self.count = 0
        self._blocks: list[list[float]] = []
        self._per_block, self._in_last = 1, 0

    @property
    def ratio(self) -> float | None:
        """Sum of y over sum of x; None before there is any x."""
        return self.sum_y / self.sum_x if self.sum_x > 0 else None

    def add(self, x: float, y: float, *, parts: int = 1) -> None:
        """Add a pair; one without x belongs to the pair before it.

        Args:
            x, y: The pair.
            parts: How many parts it is the sum of.
        """
        self.sum_x += x
        self.sum_y += y
        if self._blocks and (x <= 0 or self._in_last < self._per_block):
            last = self._blocks[-1]
            last[0] += x
            last[1] += y
        else:
            if len(self._blocks) == _MAX_BLOCKS:
                self._join()
            self._blocks.append([x, y])
            self._in_last = 0
        if x > 0:
            self.count += parts
            self._in_last += parts

    def _join(self) -> None:
        pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
        self._blocks = [[a[0] + b[0], a[1] + b[1]] for a, b in pairs]
        self._per_block *= 2

    def spread(self, prior: Prior) -> Spread:
        """How much blocks differ, neighbors that resemble each other taken into account.

        With blocks b, their residuals e = y - ratio * x, z = e / sqrt(x), and r the correlation of
        neighboring z, the variance of a sum over x is x * sum(z^2) / (B - 1) * (1 + r) / (1 - r),
        as of a first-order autoregression; the prior is worth `prior.weight` blocks more.

        Raises:
            ValueError: There is no x yet.
        """
        ratio = self.ratio
        if ratio is None:
            raise ValueError("no pair with an x above 0 was added")
        mean_x = self.sum_x / self.count
        z_B = [(y - ratio * x) / math.sqrt(x) for x, y in self._blocks if x > 0]
        squares = math.fsum(z * z for z in z_B)
        products = math.fsum(a * b for a, b in itertools.pairwise(z_B))
        correlation = 0.0
        if squares > 0:  # that of few blocks is taken for too small, by about so much
            correlation = products / squares + 1 / len(z_B)
            correlation *= len(z_B) / (len(z_B) + prior.weight)
        correlation = min(max(correlation, 0.0), _MAX_CORRELATION)
        assumed = (prior.relative * ratio) ** 2 * mean_x
        freedom = prior.weight + len(z_B) - 1
        own = squares * (1 + correlation) / (1 - correlation)
        return Spread(per_x=(prior.weight * assumed + own) / freedom, freedom=freedom)
