"""Seconds that a bundle takes on one machine, in a file that can be carried to another.

    bundle + machine -> [machine_profile] -> FILE -> workload, instance costs

A bundle's own cost profile is that of one thread, alone on the machine that made it. A machine
profile is measured with all cores busy at once, as in a job, and adds what a job does besides
inference. It names the bundle by digest, the cloud's type of the machine and whatever else decides
its speed, and is not part of the bundle, which a digest protects. Machines are compared by profiles
of one bundle that everybody has, the built-in one. This module knows nothing of prices or corpora.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from fastformers.atomic_file import whole_file
from fastformers.clock import CpuTimer, median_in_turns
from fastformers.cluster.cost.measured.machine import MeasuredMachine
from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.cluster.report.run_report import RunReport
from fastformers.errors import InputError
from fastformers.inference.bundle import DEMO_BUNDLE, Bundle, open_bundle
from fastformers.inference.cascade.graphs import measure_profile
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.cpu import read_processor
from fastformers.inference.tokenizer import Tokenizer
from fastformers.installation import how_to_upgrade

T = TypeVar("T")

FORMAT_VERSION = 3
# Fields that older formats lack.
_ADDED: dict[str, Any] = {"gpu_name": None, "machine": None}
# Profiles that ship with the package: of the built-in bundle, on machines of whoever sent them.
SHIPPED_PROFILES = Path(__file__).with_name("measured") / "profiles"

# Assumed where nothing was measured. 0.9 million tokens per second and core: `tokenizers` on EPYC
# Zen 5, 2026-11. Reading and writing add 0.4% to the seconds of inference of a 4 x 312 student on
# IMDB and 0.6% on Wikipedia, on the same machine.
DEFAULT_TOKENIZE_S_PER_TOKEN = 1 / 900_000
DEFAULT_OVERHEAD_SHARE = 0.005


@dataclass(frozen=True, kw_only=True)
class MachineProfile:
    """Seconds that a bundle's rows take on one machine.

    Attributes:
        bundle_digest: `Bundle.digest` of the bundle that was measured.
        instance_type: The cloud's name of the machine, or None if it was not given.
        num_workers: One-thread workers that ran at once; the machine does that many rows at a time.
        cost: Seconds by length, on one worker.
        tokenize_s_per_token: Seconds to tokenize a token, on one worker.
        overhead_share: Seconds of reading and writing, as a share of those of inference.
        origin: "bundle" (when it was compressed), "calibration", or "run" (fitted to a run).
        measured_at: ISO date; empty if not known.
        gpu_name: GPU, by its name in price tables, of which `cost` has the seconds; None where they
            are of a core. Tokenizing is of a core of the machine in either case.
        machine: What the machine is; None where no clock ran on it for this profile.
    """

    bundle_digest: str
    instance_type: str | None
    num_workers: int
    cost: CostProfile
    tokenize_s_per_token: float
    overhead_share: float
    origin: Literal["bundle", "calibration", "run"]
    measured_at: str
    gpu_name: str | None = None
    machine: MeasuredMachine | None = None


def profile_of_bundle(bundle: Bundle) -> MachineProfile:
    """The bundle's own profile, measured on one thread where it was compressed."""
    return MachineProfile(
        bundle_digest=bundle.digest,
        instance_type=None,
        num_workers=1,
        cost=bundle.cost_profile,
        tokenize_s_per_token=DEFAULT_TOKENIZE_S_PER_TOKEN,
        overhead_share=DEFAULT_OVERHEAD_SHARE,
        origin="bundle",
        measured_at="",
    )


@cache
def reference_profile() -> MachineProfile:
    """The built-in bundle's own profile: what all machines are compared with."""
    return profile_of_bundle(open_bundle(DEMO_BUNDLE))


def measure_machine_profile(
    bundle: Bundle,
    *,
    texts: Sequence[str],
    core_sets: Sequence[frozenset[int]],
    machine: MeasuredMachine,
    instance_type: str | None = None,
) -> MachineProfile:
    """Time the bundle here, one worker on each core set, all at once.

    Args:
        bundle: Bundle to measure.
        texts: Texts to tokenize; some hundreds.
        core_sets: Logical CPUs of each worker.
        machine: What this machine is.
        instance_type: The cloud's name of this machine.

    Raises:
        ValueError: There are no texts or core sets.
    """
    if not texts or not core_sets:
        raise ValueError("a machine is measured with at least one text and one core set")
    measured = _on_all_cores(_measure_worker, bundle, texts, core_sets)
    costs = [cost for cost, _ in measured]
    return MachineProfile(
        bundle_digest=bundle.digest,
        instance_type=instance_type,
        num_workers=len(core_sets),
        cost=replace(
            costs[0],
            seconds_per_row=_median([c.seconds_per_row for c in costs]),
            seconds_alone=_median([c.seconds_alone for c in costs]),
            waiting_share=max(c.waiting_share for c in costs),
        ),
        tokenize_s_per_token=float(np.median([seconds for _, seconds in measured])),
        overhead_share=DEFAULT_OVERHEAD_SHARE,
        origin="calibration",
        measured_at=time.strftime("%Y-%m-%d"),
        machine=machine,
    )


def measure_host_tokenizing(
    bundle: Bundle, *, texts: Sequence[str], core_sets: Sequence[frozenset[int]]
) -> float:
    """CPU seconds of a core to tokenize a token, one worker on each core set, all at once."""
    return float(np.median(_on_all_cores(_measure_tokenizing_worker, bundle, texts, core_sets)))


def _on_all_cores(
    measure: Callable[[str, Sequence[str], frozenset[int]], T],
    bundle: Bundle,
    texts: Sequence[str],
    core_sets: Sequence[frozenset[int]],
) -> list[T]:
    """What each of as many processes measures of a bundle as there are core sets."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(core_sets), mp_context=context) as pool:
        jobs = [pool.submit(measure, str(bundle.path), texts, cpus) for cpus in core_sets]
        return [job.result() for job in jobs]


def _median(columns: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.median(columns, axis=0).tolist())


def measure_tokenizing(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """CPU seconds to tokenize a token of such texts here; the median of three runs."""
    num_tokens = len(tokenizer.encode(texts).ids)
    timer = CpuTimer()
    seconds = median_in_turns(
        {"tokenize": lambda: timer.time_call(lambda: tokenizer.encode(texts))}, repeats=3
    )
    return seconds["tokenize"] / max(1, num_tokens)


def fit_to_run(
    bundle: Bundle, report: RunReport, *, path: str, instance_type: str | None = None
) -> MachineProfile:
    """The bundle's profile, corrected to what a finished run on this machine took.

    Args:
        bundle: Bundle that ran, with one core for each actor.
        report: Report of the run.
        path: Path of the report, for messages.
        instance_type: The cloud's name of this machine.

    Raises:
        InputError: The report is of another bundle, was resumed, scored nothing, or its actors had
            several cores each.
    """
    misfit = find_misfit(bundle, report)
    if misfit is None and _cores_per_actor(report) > 1:
        misfit = "each actor had several cores, whose seconds together say nothing of one"
    if misfit is not None:
        raise InputError(
            f"{path}: {misfit}; give a run of this --bundle, with one core an actor, that was not "
            "interrupted"
        )
    return replace(profile_of_run(bundle, report), instance_type=instance_type)


def _cores_per_actor(report: RunReport) -> int:
    """Cores that each actor of a run without a misfit had, by what its model took of both."""
    assert report.bill.prediction is not None
    return round(report.bill.prediction.measured_core_s / report.phase_s.infer)


def find_misfit(bundle: Bundle, report: RunReport) -> str | None:
    """Reason why a run does not tell how fast a machine is with a bundle; None if it does."""
    scored = min(report.predicted_s, report.tokens, report.phase_s.infer)
    if report.bundle.digest != bundle.digest:
        return "a run of another bundle"
    if report.uses_gpus:
        return "was scored on GPUs, whose seconds say nothing of cores"
    if report.resumed_rows:
        return "was resumed, so it is not whole"
    if scored <= 0 or report.bill.prediction is None:
        return "scored nothing"
    return None


def profile_of_run(bundle: Bundle, report: RunReport) -> MachineProfile:
    """The profile that a run without a misfit gives.

    The run's seconds of inference, over those that the bundle predicted, scale the seconds of every
    length; its seconds of tokenizing, reading and writing replace the defaults.
    """
    profile, processor = profile_of_bundle(bundle), read_processor()
    phase_s = report.phase_s
    ratio = phase_s.infer / report.predicted_s
    return replace(
        profile,
        num_workers=report.num_actors,
        cost=replace(
            profile.cost,
            cpu_model=processor.model,
            cpu_generation=processor.generation,
            cpu_features=processor.features,
            seconds_per_row=tuple(seconds * ratio for seconds in profile.cost.seconds_per_row),
            seconds_alone=tuple(seconds * ratio for seconds in profile.cost.seconds_alone),
        ),
        tokenize_s_per_token=(phase_s.tokenize / report.tokens) or profile.tokenize_s_per_token,
        overhead_share=(phase_s.read + phase_s.write) / phase_s.infer,
        origin="run",
        measured_at=time.strftime("%Y-%m-%d"),
    )


def write_profile(path: Path, profile: MachineProfile) -> None:
    """Write a profile file, whole or not at all."""
    fields = {"format_version": FORMAT_VERSION, **asdict(profile)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def load_profiles(paths: Sequence[Path], bundles: Sequence[Bundle]) -> list[MachineProfile]:
    """Read profile files: of some bundles, or of the built-in one, which compares machines.

    Args:
        paths: Files, or directories, of which every *.json counts, in name order.
        bundles: Bundles that profiles may be of.

    Returns:
        Each profile once, in how many files it may be: a machine is one machine.

    Raises:
        InputError: A directory has none, or a file is damaged, of a newer format or of another
            bundle; the message names it.
    """
    profiles: list[MachineProfile] = []
    digests = {reference_profile().bundle_digest, *(bundle.digest for bundle in bundles)}
    for path in [file for given in paths for file in _profile_files(given)]:
        profile = load_profile(path)
        if profile.bundle_digest not in digests:
            names = ", ".join(map(str, bundles))
            raise InputError(
                f"{path}: profile of another bundle than {names}, and not of this version's "
                "built-in one; leave it out, or measure that machine again"
            )
        if profile not in profiles:
            profiles.append(profile)
    return profiles


def load_shipped_profiles() -> list[MachineProfile]:
    """The profiles that ship with the package."""
    return [load_profile(path) for path in sorted(SHIPPED_PROFILES.glob("*.json"))]


def _profile_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise InputError(f"--profile {path}: no .json file there; write one with --profile-out")
    return files


def load_profile(path: Path) -> MachineProfile:
    """Read a profile file.

    Raises:
        InputError: It is damaged or of a newer format; the message names the file.
    """
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = fields.pop("format_version")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; give a file of --profile-out"
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: is not a profile of ours; measure it again") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"{path}: profile format {version}, this fastformers reads up to {FORMAT_VERSION}; "
            f"{how_to_upgrade()}"
        )
    try:
        cost = to_plain(CostProfile.from_json(fields["cost"]))
        profile: MachineProfile = from_plain(MachineProfile, {**_ADDED, **fields, "cost": cost})
        _check_numbers(profile)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); measure it again") from error
    return profile


def _check_numbers(profile: MachineProfile) -> None:
    cost = profile.cost
    numbers = (*cost.seconds_per_row, *cost.seconds_alone, profile.tokenize_s_per_token)
    counts = {len(cost.seconds_per_row), len(cost.seconds_alone) or len(cost.lengths)}
    if counts != {len(cost.lengths)} or not cost.lengths:
        raise ValueError("lengths and seconds do not match")
    if not all(np.isfinite(n) and n > 0 for n in numbers) or profile.num_workers < 1:
        raise ValueError("seconds and workers must be above 0")
    if cost.lengths[0] < 1 or list(cost.lengths) != sorted(set(cost.lengths)):
        raise ValueError("the lengths must ascend")
    if not 0 <= profile.overhead_share < np.inf:
        raise ValueError("the overhead must not be below 0")


def _measure_worker(
    bundle_path: str, texts: Sequence[str], cores: frozenset[int]
) -> tuple[CostProfile, float]:
    """Cost profile and seconds per token of one worker; runs in a process of its own."""
    tokenize_s = _measure_tokenizing_worker(bundle_path, texts, cores)
    return measure_profile(open_bundle(bundle_path)), tokenize_s


def _measure_tokenizing_worker(
    bundle_path: str, texts: Sequence[str], cores: frozenset[int]
) -> float:
    """Seconds per token of one worker, which owns its cores from then on."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    return measure_tokenizing(open_bundle(bundle_path).load_tokenizer(), texts)
