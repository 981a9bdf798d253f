"""Measure this machine for `cost`, and check it against the type that it is said to be.

    bundle + this machine -> [calibrate] -> profile in a file

This module knows nothing of corpora.
"""

import argparse
import builtins
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastformers.cluster.cost.card_profile import measure_card_profile
from fastformers.cluster.cost.machine_profile import (
    MachineProfile,
    fit_to_run,
    measure_machine_profile,
    write_profile,
)
from fastformers.cluster.cost.measured.machine import MeasuredMachine, describe_machine
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.cluster.json_values import to_plain
from fastformers.cluster.pricing.hardware import find_gpu_name
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.shards.identity import RUN_DIRECTORY
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.bundle import Bundle
from fastformers.inference.engines.card_measures import CardEngine
from fastformers.jobs.console.output import console
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
    """Measure this machine: what matrix products reach, then the bundle on all cores at once."""
    core_sets = _all_cores()
    with waiting(f"measuring {bundle} on {format_count(len(core_sets), 'core')} at once"):
        return measure_machine_profile(
            bundle,
            texts=_calibration_texts(),
            core_sets=core_sets,
            machine=_describe_machine(),
            instance_type=instance_type,
        )


def _describe_machine() -> MeasuredMachine:
    """This machine; what its matrix products reach is left out where the package onnx is."""
    if find_spec("onnx") is None:
        return describe_machine()
    from fastformers.benchmark.operator_profile import measure_gemm_peak

    peak = measure_gemm_peak()
    return describe_machine(
        int8_gops=peak.int8_ops_per_second / 1e9, float_gops=peak.float_ops_per_second / 1e9
    )


def show_profile(profile: MachineProfile, path: Path) -> dict[str, Any]:
    """Say what was measured, line by line; returns it as plain values.

    Args:
        profile: What was measured of this machine.
        path: File that it was written to.
    """
    rates = {
        length: length / seconds
        for length, seconds in zip(profile.cost.lengths, profile.cost.seconds_per_row, strict=True)
    }
    on = profile.gpu_name or "each core"
    for length, rate in rates.items():
        console.print(f"{length:>5} tokens a row: {rate:,.0f} tokens/s on {on}")
    console.print(f"tokenizing: {1 / profile.tokenize_s_per_token:,.0f} tokens/s on a core")
    machine = profile.machine
    if machine is not None and machine.int8_gops is not None:
        console.print(
            f"matrix products: {machine.int8_gops:,.0f} GOPS in int8, {machine.float_gops:,.0f} in "
            "float32 on a core by itself"
        )
    console.print(f"wrote {path}: what this machine is and how fast, and nothing of whose it is")
    return {
        "profile": str(path),
        "bundle_digest": profile.bundle_digest,
        "instance_type": profile.instance_type,
        "gpu_name": profile.gpu_name,
        "cpu_model": profile.cost.cpu_model,
        "cpu_generation": profile.cost.cpu_generation,
        "num_workers": profile.num_workers,
        "max_batch_tokens": profile.cost.max_batch_tokens,
        "tokens_per_second": rates,
        "tokenized_per_core_second": 1 / profile.tokenize_s_per_token,
        "is_rough": profile.cost.is_rough,
        "machine": to_plain(machine),
    }


def check_own_cores(own: InstancePrice | None) -> None:
    """Refuse a type that this machine cannot be, before it is measured.

    Raises:
        InputError: Neither its cores nor its vCPUs are as many as would be measured.
    """
    _check_cores(own, len(_all_cores()))


def calibrate_gpu(
    bundle: Bundle,
    engine: CardEngine,
    card: str,
    own: InstancePrice | None,
    instance_type: str | None,
) -> MachineProfile:
    """Measure a GPU of this machine with a bundle's graph, and all cores with its tokenizer.

    Args:
        bundle: The bundle.
        engine: Its graph for GPUs, on the card.
        card: The driver's name of the card.
        own: Row of this machine's type in the price table; None if it has none.
        instance_type: The cloud's name of this machine, or None.

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
    with waiting(f"measuring {bundle} on {card}, and its tokenizer on {len(core_sets)} cores"):
        return measure_card_profile(
            bundle,
            engine,
            gpu_name=gpu_name,
            texts=_calibration_texts(),
            core_sets=core_sets,
            machine=describe_machine(),
            instance_type=instance_type,
        )


def check_own_type(profile: MachineProfile, own: InstancePrice | None) -> None:
    """Refuse a type that this machine cannot be, or that was measured in part.

    Raises:
        InputError: Neither its cores nor its vCPUs are as many as were measured.
    """
    _check_cores(own, profile.num_workers)


def _check_cores(own: InstancePrice | None, num_cores: int) -> None:
    if own is None or num_cores in (own.physical_cores, own.vcpus):
        return
    raise InputError(
        f"--instance-type {own.instance_type} has {own.physical_cores} physical cores, but "
        f"{num_cores} are measured; measure all of such a machine, or leave it out"
    )


def _all_cores() -> list[frozenset[int]]:
    """Logical CPUs of each worker when every core has one."""
    core_sets = plan_core_sets(discover_topology(), num_actors=None, cores_per_actor=1)
    return [frozenset(core_set.cpus) for core_set in core_sets]


def _calibration_texts() -> list[str]:
    """English texts that every machine has: docstrings of Python's builtins."""
    texts = [value.__doc__ for value in vars(builtins).values() if value.__doc__]
    return list(texts)
