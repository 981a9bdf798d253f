"""How long GPUs take for a corpus, and who makes its tokens: their own hosts, or CPU machines too.

    seconds of GPUs, core-cycles of tokenizing, prices -> [gpu_pace] -> instance costs, plan

Every actor on a GPU owns a core, and the other cores of its machine tokenize. Where they are slower
than the GPUs, the GPUs wait, or machines without GPUs tokenize, too: those of the type whose cores
cost least for their clock, in the same cloud, region and architecture. The cheaper of the two
counts. This module knows nothing of profiles or clusters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from fastformers.cluster.pricing.market import Market, MarketPrice, find_market_price
from fastformers.cluster.pricing.prices import InstancePrice


@dataclass(frozen=True, kw_only=True)
class Helper:
    """A type without GPUs that tokenizes for the GPUs of other machines.

    Attributes:
        price: The type's row of the price table.
        market_price: Price of an hour of it.
        clock_ghz: Clock of its cores.
    """

    price: InstancePrice
    market_price: MarketPrice
    clock_ghz: float

    @property
    def ghz(self) -> float:
        """Clock of all cores together."""
        return self.price.physical_cores * self.clock_ghz


@dataclass(frozen=True, kw_only=True)
class GpuPace:
    """What a job takes on one machine with GPUs.

    Attributes:
        gpu_s: Seconds in which its GPUs score the corpus, if they never wait.
        alone_s: Seconds of the job if nobody else tokenizes.
        own_s: Seconds in which its free cores tokenize the corpus; infinite without free cores.
        helper: Type that could tokenize, too; None where no machine of such a type is there.
        helper_s: Seconds in which one machine of it tokenizes the corpus.
    """

    gpu_s: float
    alone_s: float
    own_s: float
    helper: Helper | None
    helper_s: float

    @property
    def num_helpers(self) -> float:
        """Machines of the helper for each with GPUs, so that none waits; most often a fraction."""
        if self.helper is None or self.own_s <= self.gpu_s:
            return 0.0
        return (1 / self.gpu_s - 1 / self.own_s) * self.helper_s

    def is_helped(self, usd_per_hour: float) -> bool:
        """Whether the job is cheaper with helpers.

        Args:
            usd_per_hour: Price of the machine with GPUs.
        """
        if self.helper is None or not self.num_helpers:
            return False
        helpers = self.num_helpers * self.helper.market_price.usd_per_hour
        return self.gpu_s * (usd_per_hour + helpers) < self.alone_s * usd_per_hour


def plan_pace(
    gpu_s: float,
    giga_cycles: float,
    price: InstancePrice,
    *,
    clock_ghz: float,
    helper: Helper | None,
) -> GpuPace:
    """The pace of a type with GPUs.

    Args:
        gpu_s: Seconds in which its GPUs score the corpus, if they never wait.
        giga_cycles: Cycles of a core to read, tokenize and write the corpus, in 1e9.
        price: The type's row of the price table.
        clock_ghz: Clock of its cores.
        helper: What `choose_helper` says.
    """
    free_cores = max(0, price.physical_cores - price.gpu_count)
    own_s = giga_cycles / (free_cores * clock_ghz) if free_cores else math.inf
    alone_s = max(gpu_s, own_s)
    if not free_cores:  # the GPUs' actors tokenize, one batch after the other
        alone_s = gpu_s + giga_cycles / (price.physical_cores * clock_ghz)
    return GpuPace(
        gpu_s=gpu_s,
        alone_s=alone_s,
        own_s=own_s,
        helper=helper,
        helper_s=math.inf if helper is None else giga_cycles / helper.ghz,
    )


def choose_helper(
    price: InstancePrice,
    prices: Mapping[str, InstancePrice],
    market: Market,
    *,
    discount_percent: float,
    today: date,
) -> Helper | None:
    """The type that tokenizes cheapest beside a type with GPUs; None where there is none.

    Args:
        price: The type with GPUs.
        prices: The table of `load_prices`.
        market: How machines are bought.
        discount_percent: Discount off on-demand prices, in percent.
        today: Date that tells whether a price is stale.
    """
    helpers = []
    for other in prices.values():
        if other.gpu_count or not _are_neighbors(price, other):
            continue
        market_price = find_market_price(
            other, market, discount_percent=discount_percent, today=today
        )
        generation = other.generation
        clock_ghz = other.clock_ghz or (generation.clock_ghz if generation is not None else None)
        if market_price is not None and clock_ghz is not None:
            helpers.append(Helper(price=other, market_price=market_price, clock_ghz=clock_ghz))
    return min(
        helpers,
        key=lambda helper: (
            helper.market_price.usd_per_hour / helper.ghz,
            helper.price.instance_type,
        ),
        default=None,
    )


def _are_neighbors(price: InstancePrice, other: InstancePrice) -> bool:
    """Whether machines of two types can be in one cluster."""
    places = [(each.cloud, each.region, each.is_arm) for each in (price, other)]
    return places[0] == places[1]
