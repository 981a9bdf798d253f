"""Measure this machine for `cost`, and check it against the type that it is said to be."""

import argparse
import builtins

from fastformers.cluster.cost.machine_profile import (
    MachineProfile,
    fit_to_run,
    measure_machine_profile,
    write_profile,
)
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.shards.identity import RUN_DIRECTORY
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.bundle import Bundle
from fastformers.jobs.console.progress import waiting


def measure_here(
    options: argparse.Namespace, bundle: Bundle, own: InstancePrice | None
) -> list[MachineProfile]:
    """Profiles of this machine, as the options of `cost` ask: by a clock, by a run, or none.

    Raises:
        InputError: There is no such run, or the machine is not of the type.
    """
    if options.calibrate:
        profile = calibrate(bundle, options.instance_type)
    elif options.fit_run is not None:
        output = open_directory(options.fit_run, options.storage_options)
        home = output.child(RUN_DIRECTORY)
        path = f"{home}/{REPORT_FILE}"
        report = RunReport.from_json(
            home.read_json(REPORT_FILE),
            path=path,
            remedy="give --fit-run the --output of a score by this version",
        )
        profile = fit_to_run(bundle, report, path=path, instance_type=options.instance_type)
    else:
        return []
    check_own_type(profile, own)
    if options.profile_out is not None:
        write_profile(options.profile_out, profile)
    return [profile]


def calibrate(bundle: Bundle, instance_type: str | None) -> MachineProfile:
    """Measure this machine with all its cores busy at once."""
    core_sets = plan_core_sets(discover_topology(), num_actors=None, cores_per_actor=1)
    with waiting(f"measuring {bundle} on {format_count(len(core_sets), 'core')} at once"):
        return measure_machine_profile(
            bundle,
            texts=_calibration_texts(),
            core_sets=[frozenset(core_set.cpus) for core_set in core_sets],
            instance_type=instance_type,
        )


def check_own_cores(own: InstancePrice | None) -> None:
    """Refuse a type that this machine cannot be, before it is measured.

    Raises:
        InputError: Neither its cores nor its vCPUs are as many as would be measured.
    """
    core_sets = plan_core_sets(discover_topology(), num_actors=None, cores_per_actor=1)
    _check_cores(own, len(core_sets))


def check_own_type(profile: MachineProfile, own: InstancePrice | None) -> None:
    """Refuse a type that this machine cannot be, or that was measured in part.

    Raises:
        InputError: Neither its cores nor its vCPUs are as many as were measured.
    """
    _check_cores(own, profile.num_workers)


def _check_cores(own: InstancePrice | None, num_cores: int) -> None:
    if own is None or own.gpu_count or num_cores in (own.physical_cores, own.vcpus):
        return
    raise InputError(
        f"--instance-type {own.instance_type} has {own.physical_cores} physical cores, but "
        f"{num_cores} are measured; measure all of such a machine, or leave it out"
    )


def _calibration_texts() -> list[str]:
    """English texts that every machine has: docstrings of Python's builtins."""
    texts = [value.__doc__ for value in vars(builtins).values() if value.__doc__]
    return list(texts)
