"""Which of several profiles says how fast an instance type is, and how sure that is.

    profiles + row of the price table -> [profile_choice] -> the middle profile -> instance costs

A type may have been measured more than once, or be scaled from several machines that are equally
near. Then the middle one counts, of two the slower, and how far they are apart is its error. What
was measured when the machine was busy, or with another engine than the newest profile's, counts
only where there is nothing else. This module knows nothing of markets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from fastformers.cluster.cost.gpu_pace import Helper
from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.cost.type_speed import ModelTraits, Speed, Work, find_speed
from fastformers.cluster.pricing.hardware import error_between_measurements
from fastformers.cluster.pricing.prices import InstancePrice

W = TypeVar("W", bound=Work)


@dataclass(frozen=True, kw_only=True)
class ChosenSpeed(Generic[W]):
    """How a type does the work, by the profile that counts.

    Attributes:
        speed: The speed by that profile; where there are several, its error factor is at least what
            they differ by.
        work: The work by that profile.
        num_profiles: Profiles that it is the middle one of.
        num_left_out: Further profiles of this very type, which do not count.
    """

    speed: Speed
    work: W
    num_profiles: int
    num_left_out: int


def choose_speed(
    works: Sequence[tuple[MachineProfile, W]],
    price: InstancePrice,
    prices: Mapping[str, InstancePrice],
    traits: ModelTraits,
    helper: Helper | None,
    experience: Experience,
) -> ChosenSpeed[W] | None:
    """How fast a type is by the profiles with the least error; None if none says anything of it.

    Args:
        works: Each profile of the bundle, with the work by it.
        price: The type.
        prices: The table of `load_prices`.
        traits: What the bundle's speed follows from.
        helper: Type that could tokenize for its GPUs.
        experience: What measured machines teach of the others.
    """
    found = [
        (profile, speed, work)
        for profile, work in works
        if (speed := find_speed(profile, work, price, prices, traits, helper, experience))
    ]
    if not found:
        return None
    least = min(speed.error_factor for _, speed, _ in found)
    near = [each for each in found if each[1].error_factor == least]
    newest, _, _ = max(near, key=lambda each: (_trust(each[0], price), each[0].measured_at))
    trust, engine = _trust(newest, price), newest.cost.engine
    alike = [
        each for each in near if (_trust(each[0], price), each[0].cost.engine) == (trust, engine)
    ]
    alike.sort(key=lambda each: (_seconds(each[1]), each[1].job_s))
    _, speed, work = alike[len(alike) // 2]
    if len(alike) > 1:
        differing = error_between_measurements([_seconds(each) for _, each, _ in alike])
        speed = replace(
            speed,
            error_factor=max(least, differing),
            scaled_from=f"{speed.scaled_from} (the middle of {len(alike)} profiles)",
        )
    own = [profile for profile, _, _ in near if profile.instance_type == price.instance_type]
    return ChosenSpeed(
        speed=speed,
        work=work,
        num_profiles=len(alike),
        num_left_out=max(0, len(own) - len(alike)) if trust[0] else 0,
    )


def _trust(profile: MachineProfile, price: InstancePrice) -> tuple[bool, bool, bool]:
    """What makes one of two profiles of equal error count, the first difference first."""
    return (
        profile.instance_type == price.instance_type,  # a GPU's host may be all that was measured
        profile.origin != "bundle",  # of one thread alone
        not profile.cost.is_rough,
    )


def _seconds(speed: Speed) -> float:
    """Seconds by which profiles are compared: those of the GPUs where it has any."""
    return speed.job_s if speed.pace is None else speed.pace.gpu_s
