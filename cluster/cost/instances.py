"""What a corpus costs on each instance type: USD, hours and energy, cheapest first.

    work + profiles + prices -> [instances] -> table, plan

A type that a profile was measured on takes what was measured. Any other CPU type is scaled from the
profile with the least error by the rule of `hardware.py`: inference by cores, clock and vector
extensions, tokenizing and reading by cores and clock alone. A GPU type is scaled from published
throughput, and its host must tokenize as fast as the GPU scores. Energy is modeled from design
power. This module knows nothing of clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol, Self

from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.workload import Interval
from fastformers.cluster.pricing.hardware import (
    GPUS,
    NODE_WATTS_PER_CORE_WATT,
    CpuSpec,
    error_between,
    plan_cpu,
)
from fastformers.cluster.pricing.market import Market, MarketPrice, find_market_price
from fastformers.cluster.pricing.prices import InstancePrice, usd_of, usd_per_million
from fastformers.errors import BundleError
from fastformers.inference.bundle import Bundle
from fastformers.inference.cpu import CPU_GENERATIONS

Basis = Literal["measured", "scaled", "scaled (published)"]
# To start Ray and one actor on each core of a running machine; from the demo's runs of 2026-11.
JOB_START_S = 6.0
# Power of a core whose generation is not known. Assumed: about the median of `CPU_GENERATIONS`,
# which was 4.15 W in 2026-11, of entries from 3 to 10 W.
UNKNOWN_CORE_WATTS = 4.0


class Work(Protocol):
    """What a job asks of the machine that a profile was measured on; see `workload.Workload`."""

    @property
    def rows(self) -> Interval: ...
    @property
    def scored_tokens(self) -> Interval: ...
    @property
    def infer_s(self) -> Interval: ...
    @property
    def tokenize_s(self) -> float: ...
    @property
    def other_s(self) -> float: ...
    @property
    def core_s(self) -> float: ...
    @property
    def relative_error(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Amount of arithmetic of a bundle's graph, as the bundle states it: see `Bundle`."""

    multiply_adds_per_token: int
    width: int

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        """The size that a bundle states.

        Raises:
            BundleError: It was written before bundles stated that.
        """
        if bundle.multiply_adds_per_token is None or bundle.width is None:
            raise BundleError(
                f"{bundle}: was written before bundles said how much arithmetic they do, "
                "which costs on GPUs need; write it again with compress (it still scores)"
            )
        return cls(multiply_adds_per_token=bundle.multiply_adds_per_token, width=bundle.width)


@dataclass(frozen=True, kw_only=True)
class InstanceCost:
    """A whole job on one machine of a type.

    Attributes:
        price: The type's row of the price table.
        market_price: Price of an hour of it.
        basis: Whether its speed was measured on this very type, or how it was scaled.
        scaled_from: Description of what it was measured on or scaled from, for people.
        error_factor: The speed is taken to be right up to this factor; 1 where measured.
        wall_s: Seconds on one machine, with `JOB_START_S`; without starting the machine.
        usd_total: Price of one machine for that time; more machines cost the same and take less.
        usd_per_million: Price of a million rows.
        usd_low, usd_high: `usd_total` at the ends of the sample's interval and the error factor.
        kwh: Energy of the server's share, modeled from design power; no cooling.
        num_actors: Actors on one machine.
        job_s: `wall_s` without `JOB_START_S`.
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


@dataclass(frozen=True, kw_only=True)
class InstanceCosts:
    """Costs of all types that can be priced.

    Attributes:
        costs: Costs by type, cheapest first.
        left_out: Reason why a type is not among them, by its name.
    """

    costs: tuple[InstanceCost, ...]
    left_out: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Speed:
    """How a type does the work: see `InstanceCost`."""

    job_s: float
    num_actors: int
    basis: Basis
    scaled_from: str
    error_factor: float


def estimate_instances(
    works: Sequence[tuple[MachineProfile, Work]],
    prices: Mapping[str, InstancePrice],
    *,
    is_int8: bool,
    model_size: ModelSize,
    market: Market,
    discount_percent: float,
    today: date,
) -> InstanceCosts:
    """Price a corpus on every type of a table.

    Args:
        works: Each profile of the bundle, with the work of the corpus by it.
        prices: The table of `load_prices`.
        is_int8: Whether the bundle's matrix products are int8.
        model_size: Arithmetic of the bundle's graph, for GPUs.
        market: How machines are bought.
        discount_percent: Discount off on-demand prices, in percent.
        today: Date that tells whether a price is stale.
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
        speeds = [
            (_find_speed(profile, work, price, prices, is_int8, model_size), work)
            for profile, work in works
        ]
        known = [(speed, work) for speed, work in speeds if speed is not None]
        if not known:
            left_out[name] = _why_unknown(price)
            continue
        speed, work = min(known, key=lambda pair: pair[0].error_factor)
        costs.append(_cost(price, market_price, speed, work))
    costs.sort(key=lambda cost: (cost.usd_total, cost.price.instance_type))
    return InstanceCosts(costs=tuple(costs), left_out=left_out)


def _find_speed(
    profile: MachineProfile,
    work: Work,
    price: InstancePrice,
    prices: Mapping[str, InstancePrice],
    is_int8: bool,
    model_size: ModelSize,
) -> _Speed | None:
    """How fast a type is by one profile; None if nothing is known of its speed."""
    if profile.instance_type == price.instance_type:
        return _Speed(
            job_s=work.core_s / profile.num_workers,
            num_actors=profile.num_workers,
            basis="measured",
            scaled_from=f"{profile.origin} of {profile.measured_at}",
            error_factor=1.0,
        )
    measured = _measured_cpu(profile, prices)
    if price.gpu_count:
        return _gpu_speed(work, price, measured, model_size)
    if price.cpu_generation is None:
        return None
    core = plan_cpu(generation=price.cpu_generation, features=(), clock_ghz=price.clock_ghz)
    infer = measured.speed(is_int8=is_int8) / core.speed(is_int8=is_int8)
    actor_s = work.infer_s.value * infer + (work.tokenize_s + work.other_s) * (
        measured.clock_ghz / core.clock_ghz
    )
    own = prices.get(profile.instance_type or "")
    if own is not None and not own.gpu_count:  # workers may have been threads of one core
        actor_s *= own.physical_cores / profile.num_workers
    guess = " or the like" if measured.is_guess else ""
    return _Speed(
        job_s=actor_s / price.physical_cores,
        num_actors=price.physical_cores,
        basis="scaled",
        scaled_from=f"{measured.generation}{guess} at {measured.clock_ghz:g} GHz",
        error_factor=error_between(measured, core),
    )


def _gpu_speed(
    work: Work, price: InstancePrice, measured: CpuSpec, model_size: ModelSize
) -> _Speed | None:
    gpu = GPUS.get(price.gpu_name or "")
    if gpu is None:
        return None
    tokens_per_s = gpu.multiply_adds_per_s(model_size.width) / model_size.multiply_adds_per_token
    gpu_s = work.scored_tokens.value / tokens_per_s / price.gpu_count
    clock_ghz = price.clock_ghz or measured.clock_ghz
    host_s = (work.tokenize_s + work.other_s) * measured.clock_ghz / clock_ghz
    host_s /= _num_cores(price)
    job_s = max(gpu_s, host_s)
    return _Speed(
        job_s=job_s,
        num_actors=price.gpu_count,
        basis="scaled (published)",
        scaled_from=(
            f"BERT-large on {price.gpu_name}, MLPerf 4.1"
            if gpu.bert_large_per_s is not None
            else f"peak of {price.gpu_name}"
        )
        + (", its host tokenizes slower" if host_s > gpu_s else ""),
        error_factor=gpu.error,
    )


def _cost(
    price: InstancePrice, market_price: MarketPrice, speed: _Speed, work: Work
) -> InstanceCost:
    wall_s = JOB_START_S + speed.job_s
    usd = usd_of(wall_s, usd_per_hour=market_price.usd_per_hour)
    return InstanceCost(
        price=price,
        market_price=market_price,
        basis=speed.basis,
        scaled_from=speed.scaled_from,
        error_factor=speed.error_factor,
        wall_s=wall_s,
        usd_total=usd,
        usd_per_million=usd_per_million(usd, round(max(1.0, work.rows.value))),
        usd_low=usd * (1 - min(1.0, work.relative_error)) / speed.error_factor,
        usd_high=usd * (1 + work.relative_error) * speed.error_factor,
        kwh=_watts(price) * wall_s / 3600 / 1000,
        num_actors=speed.num_actors,
        job_s=speed.job_s,
    )


def _measured_cpu(profile: MachineProfile, prices: Mapping[str, InstancePrice]) -> CpuSpec:
    """The core that a profile was measured on; its clock is known if its type is in the table."""
    own = prices.get(profile.instance_type or "")
    return plan_cpu(
        generation=profile.cost.cpu_generation,
        features=profile.cost.cpu_features,
        clock_ghz=own.clock_ghz if own is not None else None,
    )


def _why_unknown(price: InstancePrice) -> str:
    if price.gpu_count:
        return f"no published throughput of {price.gpu_name}; measure a profile on it"
    return "no cpu_generation in the price table; add it, or measure a profile on it"


def _watts(price: InstancePrice) -> float:
    """Power of the machine's share of a server."""
    generation = CPU_GENERATIONS.get(price.cpu_generation or "")
    per_core = generation.watts_per_core if generation is not None else UNKNOWN_CORE_WATTS
    gpu = GPUS.get(price.gpu_name or "")
    gpu_watts = gpu.watts * price.gpu_count if gpu is not None else 0.0
    return _num_cores(price) * per_core * NODE_WATTS_PER_CORE_WATT + gpu_watts


def _num_cores(price: InstancePrice) -> int:
    # Table rows of GPU types give no physical cores; two vCPUs a core is what their hosts have.
    return max(1, price.vcpus // 2) if price.gpu_count else price.physical_cores
