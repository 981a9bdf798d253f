"""How fast an instance type does a job, by one profile of one machine.

    work + profile + row of the price table -> [type_speed] -> Speed -> instance costs

A type that the profile was measured on takes what was measured; another takes it scaled by the
rules of `hardware.py`, corrected by whatever was measured of such machines, with an error factor.
This module knows no markets.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from fastformers.cluster.cost.gpu_pace import GpuPace, Helper, plan_pace
from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.cost.workload import Interval
from fastformers.cluster.pricing.hardware import (
    GPUS,
    SAME_GPU_ERROR,
    CpuSpec,
    GpuSpec,
    error_between,
    plan_cpu,
)
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.errors import BundleError
from fastformers.inference.bundle import Bundle
from fastformers.inference.cascade.record import graphs_by_share
from fastformers.inference.description.further_graph import graphs_of

Basis = Literal["measured", "scaled", "scaled (published)"]
# The precision of graphs that are laid out for GPUs.
_GPU_PRECISION = "float16"
NO_EXPERIENCE = Experience()


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


@dataclass(frozen=True, kw_only=True)
class ModelTraits:
    """What the speed of a bundle's model on a type follows from.

    Attributes:
        multiply_adds_per_token, width: Amount of arithmetic, as the bundle states it: see `Bundle`;
            of a cascade, what is expected of both graphs.
        is_int8: Whether matrix products on cores are int8.
        has_gpu_graph: Whether the bundle has a graph that GPUs can run.
    """

    multiply_adds_per_token: int
    width: int
    is_int8: bool
    has_gpu_graph: bool

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        """The traits of a bundle.

        Raises:
            BundleError: It was written before bundles stated their arithmetic.
        """
        parts = [(graph.multiply_adds_per_token, share) for graph, share in graphs_by_share(bundle)]
        known = [count * share for count, share in parts if count is not None]
        if len(known) < len(parts) or bundle.width is None:
            raise BundleError(
                f"{bundle}: was written before bundles said how much arithmetic they do, "
                "which costs on GPUs need; write it again with compress (it still scores)"
            )
        return cls(
            multiply_adds_per_token=round(math.fsum(known)),
            width=bundle.width,
            is_int8=bundle.precision.startswith("int8"),
            has_gpu_graph=_GPU_PRECISION in graphs_of(bundle),
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How a type does the work.

    Attributes:
        job_s: Seconds of the job on one machine of it, if nobody else tokenizes.
        num_actors: Actors on one machine.
        basis: Whether it was measured on this very type, or how it was scaled.
        scaled_from: What it was measured on or scaled from, for people.
        error_factor: The speed is taken to be right up to this factor; 1 where it was measured
            once, and what profiles differ by where there are several.
        pace: What GPUs take alone and with help; None without GPUs.
    """

    job_s: float
    num_actors: int
    basis: Basis
    scaled_from: str
    error_factor: float
    pace: GpuPace | None = None


def find_speed(
    profile: MachineProfile,
    work: Work,
    price: InstancePrice,
    prices: Mapping[str, InstancePrice],
    traits: ModelTraits,
    helper: Helper | None,
    experience: Experience = NO_EXPERIENCE,
) -> Speed | None:
    """How fast a type is by one profile; None if it says nothing of its speed."""
    measured = measured_core(profile, prices)
    if price.gpu_count:
        if profile.gpu_name is None:
            return _published_gpu(work, price, measured, traits, helper, experience)
        return _measured_gpu(profile, work, price, measured, helper)
    if profile.gpu_name is not None:
        return None
    if profile.instance_type == price.instance_type:
        return Speed(
            job_s=work.core_s / profile.num_workers,
            num_actors=profile.num_workers,
            basis="measured",
            scaled_from=f"{profile.origin} of {profile.measured_at}",
            error_factor=1.0,
        )
    return _scaled_cores(profile, work, price, prices, traits, experience)


def _scaled_cores(
    profile: MachineProfile,
    work: Work,
    price: InstancePrice,
    prices: Mapping[str, InstancePrice],
    traits: ModelTraits,
    experience: Experience,
) -> Speed | None:
    """A type without GPUs by the cores of another machine."""
    if price.cpu_generation is None:
        return None
    measured = measured_core(profile, prices)
    core = plan_cpu(generation=price.cpu_generation, features=(), clock_ghz=price.clock_ghz)
    infer = measured.speed(is_int8=traits.is_int8) / core.speed(is_int8=traits.is_int8)
    error = experience.error_of(error_between(measured, core), is_gpu=False)
    scaled_from = f"{measured.name} at {measured.clock_ghz:g} GHz"
    correction = None
    if traits.is_int8:  # as the built-in bundle is
        correction = experience.correct(
            measured_type=profile.instance_type,
            measured_generation=None if measured.is_guess else measured.generation,
            instance_type=price.instance_type,
            generation=price.cpu_generation,
        )
    if correction is not None and correction.error_factor < error:
        infer, error = infer * correction.ratio, correction.error_factor
        scaled_from += f", as {correction.source} did"
    actor_s = work.infer_s.value * infer + (work.tokenize_s + work.other_s) * (
        measured.clock_ghz / core.clock_ghz
    )
    own = prices.get(profile.instance_type or "")
    if own is not None:  # workers may have been threads of one core
        actor_s *= own.physical_cores / profile.num_workers
    return Speed(
        job_s=actor_s / price.physical_cores,
        num_actors=price.physical_cores,
        basis="scaled",
        scaled_from=scaled_from,
        error_factor=error,
    )


def _measured_gpu(
    profile: MachineProfile,
    work: Work,
    price: InstancePrice,
    measured: CpuSpec,
    helper: Helper | None,
) -> Speed | None:
    """A type by the seconds that one GPU of its kind took."""
    if profile.gpu_name != price.gpu_name:
        return None
    is_own = profile.instance_type == price.instance_type
    return _gpu_speed(
        work.infer_s.value / price.gpu_count,
        work,
        price,
        measured,
        helper,
        basis="measured" if is_own else "scaled",
        scaled_from=f"{profile.gpu_name}, {profile.origin} of {profile.measured_at}",
        error_factor=1.0 if is_own else SAME_GPU_ERROR,
    )


def _published_gpu(
    work: Work,
    price: InstancePrice,
    measured: CpuSpec,
    traits: ModelTraits,
    helper: Helper | None,
    experience: Experience,
) -> Speed | None:
    """A type by arithmetic from what was published of its GPU."""
    gpu = GPUS.get(price.gpu_name or "")
    if gpu is None:
        return None
    tokens_per_s = gpu.multiply_adds_per_s(traits.width) / traits.multiply_adds_per_token
    return _gpu_speed(
        work.scored_tokens.value / tokens_per_s / price.gpu_count,
        work,
        price,
        measured,
        helper,
        basis="scaled (published)",
        scaled_from=describe_published(price.gpu_name or "", gpu),
        error_factor=experience.error_of(gpu.error, is_gpu=True),
    )


def describe_published(name: str, gpu: GpuSpec) -> str:
    """Where the speed of a GPU that was not measured comes from, for people."""
    source = f"peak of {name}"
    if gpu.bert_large_per_s is not None:
        source = f"BERT-large on {name}, MLPerf 4.1"
    return f"{source}, int8 halved for float16"


def _gpu_speed(
    gpu_s: float,
    work: Work,
    price: InstancePrice,
    measured: CpuSpec,
    helper: Helper | None,
    *,
    basis: Basis,
    scaled_from: str,
    error_factor: float,
) -> Speed:
    pace = plan_pace(
        gpu_s,
        (work.tokenize_s + work.other_s) * measured.clock_ghz,
        price,
        clock_ghz=price.clock_ghz or measured.clock_ghz,
        helper=helper,
    )
    return Speed(
        job_s=pace.alone_s,
        num_actors=price.gpu_count,
        basis=basis,
        scaled_from=scaled_from,
        error_factor=error_factor,
        pace=pace,
    )


def measured_core(profile: MachineProfile, prices: Mapping[str, InstancePrice]) -> CpuSpec:
    """The core that a profile was measured on; its clock is known if its type is in the table."""
    own = prices.get(profile.instance_type or "")
    return plan_cpu(
        generation=profile.cost.cpu_generation,
        features=profile.cost.cpu_features,
        clock_ghz=own.clock_ghz if own is not None else None,
    )
