"""Predict the machines that were measured as if they were not, by the rules for all others.

    profiles + bundle + prices -> [checks] -> Experience -> instance costs, table

A profile of cores is held against the bundle's own profile, scaled as for any type of the price
table; one of a GPU against what was published of that GPU. This module measures nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fastformers.cluster.cost.machine_profile import (
    MachineProfile,
    profile_of_bundle,
    reference_profile,
)
from fastformers.cluster.cost.measured.experience import Experience, MachineCheck
from fastformers.cluster.cost.type_speed import ModelTraits, describe_published, measured_core
from fastformers.cluster.pricing.hardware import GPUS, error_between, plan_cpu
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.inference.bundle import Bundle


def gain_experience(
    bundle: Bundle, profiles: Sequence[MachineProfile], prices: Mapping[str, InstancePrice]
) -> Experience:
    """What profiles of a bundle, and of the built-in one, say of the rules.

    Args:
        bundle: The bundle that is costed.
        profiles: Profiles of machines; those of other bundles are ignored.
        prices: The table of `load_prices`.

    Raises:
        BundleError: The bundle does not say how much arithmetic it does.
    """
    traits, reference = ModelTraits.of_bundle(bundle), reference_profile()
    bases = {
        reference.bundle_digest: (reference, True),
        bundle.digest: (profile_of_bundle(bundle), traits.is_int8),
    }
    checks: list[MachineCheck] = []
    for profile in profiles:
        if profile.bundle_digest not in bases:
            continue
        if profile.gpu_name is None:
            base, is_int8 = bases[profile.bundle_digest]
            is_reference = profile.bundle_digest == reference.bundle_digest
            checks.append(
                _check_cores(profile, base, prices, is_int8=is_int8, is_reference=is_reference)
            )
        elif profile.bundle_digest == bundle.digest:
            checks.extend(_check_gpu(profile, traits))
    return Experience(checks=tuple(checks), reference_generation=reference.cost.cpu_generation)


def _check_cores(
    profile: MachineProfile,
    base: MachineProfile,
    prices: Mapping[str, InstancePrice],
    *,
    is_int8: bool,
    is_reference: bool,
) -> MachineCheck:
    """All cores of a machine, by the bundle's own profile and the rule for cores."""
    core, num_cores = measured_core(profile, prices), profile.num_workers
    price = prices.get(profile.instance_type or "")
    if price is not None and price.cpu_generation is not None:
        core = plan_cpu(generation=price.cpu_generation, features=(), clock_ghz=price.clock_ghz)
        num_cores = price.physical_cores
    origin = measured_core(base, prices)
    scale = origin.speed(is_int8=is_int8) / core.speed(is_int8=is_int8)
    lengths_N = np.array(profile.cost.lengths)
    tokens = float(lengths_N.sum())
    predicted_s = float(base.cost.estimate_seconds(lengths_N).sum()) * scale / num_cores
    measured_s = sum(profile.cost.seconds_per_row) / profile.num_workers
    return MachineCheck(
        profile=profile,
        scaled_from=f"{origin.name} at {origin.clock_ghz:g} GHz",
        predicted_tokens_per_s=tokens / predicted_s,
        measured_tokens_per_s=tokens / measured_s,
        judged_error=error_between(origin, core),
        is_reference=is_reference,
    )


def _check_gpu(profile: MachineProfile, traits: ModelTraits) -> list[MachineCheck]:
    """One GPU, by what was published of it; nothing if nothing was."""
    gpu = GPUS.get(profile.gpu_name or "")
    if gpu is None:
        return []
    check = MachineCheck(
        profile=profile,
        scaled_from=describe_published(profile.gpu_name or "", gpu),
        predicted_tokens_per_s=(
            gpu.multiply_adds_per_s(traits.width) / traits.multiply_adds_per_token
        ),
        measured_tokens_per_s=sum(profile.cost.lengths) / sum(profile.cost.seconds_per_row),
        judged_error=gpu.error,
        is_reference=False,
    )
    return [check]
