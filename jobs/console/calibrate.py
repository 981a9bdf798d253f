"""Measure this machine for `cost`, and check it against the type that it is said to be."""

import builtins

from fastformers.cluster.cost.card_profile import measure_card_profile
from fastformers.cluster.cost.machine_profile import MachineProfile, measure_machine_profile
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.cluster.pricing.hardware import find_gpu_name
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.inference.engines.card_measures import CardEngine
from fastformers.jobs.console.output import console


def calibrate(bundle: Bundle, instance_type: str | None) -> MachineProfile:
    """Measure this machine with all its cores busy at once."""
    core_sets = _all_cores()
    console.print(f"measuring {bundle} on {len(core_sets)} cores at once")
    return measure_machine_profile(
        bundle,
        texts=_calibration_texts(),
        core_sets=core_sets,
        instance_type=instance_type,
    )


def calibrate_gpu(
    bundle: Bundle, engine: CardEngine, card: str, own: InstancePrice | None
) -> MachineProfile:
    """Measure a GPU of this machine with a bundle's graph, and all cores with its tokenizer.

    Args:
        bundle: The bundle.
        engine: Its graph for GPUs, on the card.
        card: The driver's name of the card.
        own: Row of this machine's type in the price table; None if it has none.

    Raises:
        InputError: Machines of that type have another GPU.
    """
    gpu_name = find_gpu_name(card) or card
    if own is not None and own.gpu_name != gpu_name:
        raise InputError(
            f"--instance-type {own.instance_type} has {own.gpu_name or 'no GPU'}, but this machine "
            f"has {gpu_name}; leave it out"
        )
    core_sets = _all_cores()
    console.print(f"measuring {bundle} on {card}, and its tokenizer on {len(core_sets)} cores")
    return measure_card_profile(
        bundle,
        engine,
        gpu_name=gpu_name,
        texts=_calibration_texts(),
        core_sets=core_sets,
        instance_type=None if own is None else own.instance_type,
    )


def check_own_type(profile: MachineProfile, own: InstancePrice | None) -> None:
    """Refuse a type that this machine cannot be, or that was measured in part.

    Raises:
        InputError: Neither its cores nor its vCPUs are as many as were measured.
    """
    if own is None or profile.num_workers in (own.physical_cores, own.vcpus):
        return
    raise InputError(
        f"--instance-type {own.instance_type} has {own.physical_cores} physical cores, but "
        f"{profile.num_workers} were measured; measure all of such a machine, or leave it out"
    )


def _all_cores() -> list[frozenset[int]]:
    """Logical CPUs of each worker when every core has one."""
    core_sets = plan_core_sets(discover_topology(), num_actors=None, cores_per_actor=1)
    return [frozenset(core_set.cpus) for core_set in core_sets]


def _calibration_texts() -> list[str]:
    """English texts that every machine has: docstrings of Python's builtins."""
    texts = [value.__doc__ for value in vars(builtins).values() if value.__doc__]
    return list(texts)
