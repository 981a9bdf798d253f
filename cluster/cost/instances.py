"""What a corpus costs on each instance type: USD, hours and energy, cheapest first.

    work + profiles + prices -> [instances] -> table, plan

A type that a profile was measured on takes what was measured, by the middle profile where there are
several (`profile_choice.py`). Any other CPU type is scaled from the
profile with the least error by the rule of `hardware.py`: inference by cores, clock and vector
extensions, tokenizing and reading by cores and clock alone. A GPU type takes what was measured on
its GPU, or is scaled from published throughput; who tokenizes for it is part of its price (see
`gpu_pace.py`). Energy is modeled from design power. This module knows nothing of clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from fastformers.cluster.cost.gpu_pace import GpuPace, Helper, choose_helper
from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.cost.profile_choice import ChosenSpeed, choose_speed
from fastformers.cluster.cost.type_speed import (
    NO_EXPERIENCE,
    Basis,
    ModelTraits,
    Work,
)
from fastformers.cluster.pricing.hardware import GPUS, NODE_WATTS_PER_CORE_WATT
from fastformers.cluster.pricing.market import Market, MarketPrice, find_market_price
from fastformers.cluster.pricing.prices import InstancePrice, usd_of, usd_per_million

# To start Ray and one actor on each core of a running machine; from the demo's runs of 2026-11.
JOB_START_S = 6.0
# Power of a core whose generation is not known. Assumed: about the median of `CPU_GENERATIONS`,
# which was 4.15 W in 2026-11, of entries from 3 to 10 W.
UNKNOWN_CORE_WATTS = 4.0


class UnsureWork(Work, Protocol):
    """Work that is known as well as a sample of the corpus tells."""

    @property
    def relative_error(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class InstanceCost:
    """A whole job on one machine of a type.

    Attributes:
        price: The type's row of the price table.
        market_price: Price of an hour of it.
        basis: Whether its speed was measured on this very type, or how it was scaled.
        scaled_from: Description of what it was measured on or scaled from, for people.
        error_factor: The speed is taken to be right up to this factor; 1 where it was measured
            once.
        wall_s: Seconds on one machine, with `JOB_START_S`; without starting the machine.
        usd_total: Price of one machine for that time, and of the helpers beside it; more machines
            cost the same and take less.
        usd_per_million: Price of a million rows.
        usd_low, usd_high: `usd_total` at the ends of the sample's interval and the error factor.
        kwh: Energy of the server's share, modeled from design power; no cooling.
        num_actors: Actors on one machine.
        job_s: `wall_s` without `JOB_START_S`.
        pace: What the job takes if its own cores tokenize, and if others do; None without GPUs.
        helper: Type whose machines tokenize for it, as this cost has it; None where no other does.
        num_helpers: Machines of the helper for each of this type, most often a fraction.
        needs_gpu_graph: Whether the bundle has no graph that it could run.
        num_profiles: Profiles of which the middle one counts.
        num_left_out: Profiles of this very type that do not count beside them.
        audit_usd: Part of `usd_total` that an audit takes.
    """

    price: InstancePrice
    market_price: MarketPrice
    basis: Basis
    scaled_from: str
    error_factor: float
    wall_s: float
    usd_total: float
    usd_per_million: float
    usd_low: float
    usd_high: float
    kwh: float
    num_actors: int
    job_s: float
    pace: GpuPace | None
    helper: Helper | None
    num_helpers: float
    needs_gpu_graph: bool
    num_profiles: int
    num_left_out: int
    audit_usd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class InstanceCosts:
    """Costs of all types that can be priced.

    Attributes:
        costs: Costs by type, cheapest first; those that need a graph that the bundle lacks come
            last.
        left_out: Reason why a type is not among them, by its name.
    """

    costs: tuple[InstanceCost, ...]
    left_out: dict[str, str]

    @property
    def prices(self) -> dict[str, InstancePrice]:
        """Rows of the price table of all types that were costed or help them, by name."""
        helpers = [cost.pace.helper.price for cost in self.costs if cost.pace and cost.pace.helper]
        return {price.instance_type: price for price in (*helpers, *(c.price for c in self.costs))}


def estimate_instances(
    works: Sequence[tuple[MachineProfile, UnsureWork]],
    prices: Mapping[str, InstancePrice],
    *,
    traits: ModelTraits,
    market: Market,
    discount_percent: float,
    today: date,
    experience: Experience = NO_EXPERIENCE,
) -> InstanceCosts:
    """Price a corpus on every type of a table.

    Args:
        works: Each profile of the bundle, with the work of the corpus by it.
        prices: The table of `load_prices`.
        traits: What the bundle's speed follows from.
        market: How machines are bought.
        discount_percent: Discount off on-demand prices, in percent.
        today: Date that tells whether a price is stale.
        experience: What measured machines teach of the others.
    """
    costs: list[InstanceCost] = []
    left_out: dict[str, str] = {}
    for name, price in prices.items():
        market_price = find_market_price(
            price, market, discount_percent=discount_percent, today=today
        )
        if market_price is None:
            left_out[name] = f"no {market} price"
            continue
        helper = None
        if price.gpu_count:
            helper = choose_helper(
                price, prices, market, discount_percent=discount_percent, today=today
            )
        chosen = choose_speed(works, price, prices, traits, helper, experience)
        if chosen is None:
            left_out[name] = _why_unknown(price)
            continue
        costs.append(_cost(price, market_price, chosen, traits))
    costs.sort(key=lambda cost: (cost.needs_gpu_graph, cost.usd_total, cost.price.instance_type))
    return InstanceCosts(costs=tuple(costs), left_out=left_out)


def _cost(
    price: InstancePrice,
    market_price: MarketPrice,
    chosen: ChosenSpeed[UnsureWork],
    traits: ModelTraits,
) -> InstanceCost:
    speed, work = chosen.speed, chosen.work
    usd_per_hour, watts, pace = market_price.usd_per_hour, _watts(price), speed.pace
    job_s, scaled_from, helper, num_helpers = speed.job_s, speed.scaled_from, None, 0.0
    if pace is not None and pace.helper is not None and pace.is_helped(usd_per_hour):
        job_s, helper, num_helpers = pace.gpu_s, pace.helper, pace.num_helpers
        usd_per_hour += num_helpers * helper.market_price.usd_per_hour
        watts += num_helpers * _watts(helper.price)
        scaled_from += f"; {num_helpers:,.2f} x {helper.price.instance_type} tokenize for each"
    elif pace is not None:
        scaled_from += "; its host tokenizes"
        scaled_from += ", slower than it scores" if pace.alone_s > pace.gpu_s else ""
    needs_gpu_graph = pace is not None and not traits.has_gpu_graph
    if needs_gpu_graph:
        scaled_from += "; needs a float16 graph, which the bundle lacks"
    wall_s = JOB_START_S + job_s
    usd = usd_of(wall_s, usd_per_hour=usd_per_hour)
    return InstanceCost(
        price=price,
        market_price=market_price,
        basis=speed.basis,
        scaled_from=scaled_from,
        error_factor=speed.error_factor,
        wall_s=wall_s,
        usd_total=usd,
        usd_per_million=usd_per_million(usd, round(max(1.0, work.rows.value))),
        usd_low=usd * (1 - min(1.0, work.relative_error)) / speed.error_factor,
        usd_high=usd * (1 + work.relative_error) * speed.error_factor,
        kwh=watts * wall_s / 3600 / 1000,
        num_actors=speed.num_actors,
        job_s=job_s,
        pace=pace,
        helper=helper,
        num_helpers=num_helpers,
        needs_gpu_graph=needs_gpu_graph,
        num_profiles=chosen.num_profiles,
        num_left_out=chosen.num_left_out,
    )


def _why_unknown(price: InstancePrice) -> str:
    if price.gpu_count:
        return f"no published throughput of {price.gpu_name}; measure a profile on it"
    return "no cpu_generation in the price table; add it, or measure a profile on it"


def _watts(price: InstancePrice) -> float:
    """Power of the machine's share of a server."""
    generation = price.generation
    per_core = generation.watts_per_core if generation is not None else UNKNOWN_CORE_WATTS
    gpu = GPUS.get(price.gpu_name or "")
    gpu_watts = gpu.watts * price.gpu_count if gpu is not None else 0.0
    return price.physical_cores * per_core * NODE_WATTS_PER_CORE_WATT + gpu_watts
