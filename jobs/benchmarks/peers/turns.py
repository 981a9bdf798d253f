"""Run our whole job and those of others in turns, each on texts that last long enough.

    runners + texts -> [turns] -> BaselinesPart

Each job first runs on a few texts: that says whether it runs at all, makes what it makes once, and
how many texts it takes to last the seconds that are asked for; where the first turn shows that
these are too few, as loading a model hid the rate, it is run again on more. Then all take turns, so
that other work on the machine hits all alike; medians count, and each turn has its own ratios. This
module knows nothing of how a job works.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastformers.jobs.benchmarks.parts import BaselineRate, BaselinesPart, NotRun
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES, BaselineName
from fastformers.jobs.benchmarks.peers.run_baseline import JobRun
from fastformers.jobs.benchmarks.peers.texts import DifferentTexts, Part

Runner = Callable[[Part], JobRun | NotRun]

_FIRST_ROWS = 1000
# A first run that is shorter than this share of what is wanted says too little of a rate.
_TELLING_SHARE = 1 / 8
# More rows than an estimate asks for: part of a run, such as loading a model, does not grow with
# its rows, and rates on a shared machine differ by a fifth.
_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class TurnSettings:
    """How long and how often jobs run.

    Attributes:
        min_seconds: Seconds that a run lasts at least, while there are texts.
        repeats: How many turns there are.
        num_workers: Processes of each job.
    """

    min_seconds: float
    repeats: int
    num_workers: int


def run_in_turns(
    ours: Runner,
    others: Mapping[BaselineName, Runner | NotRun],
    texts: DifferentTexts,
    settings: TurnSettings,
    *,
    true_labels: Sequence[str] | None,
    log: Callable[[str], None],
) -> BaselinesPart:
    """Run all jobs.

    Args:
        ours: Runs our job.
        others: Runs a baseline, or why it does not run.
        texts: The texts.
        settings: How long and how often.
        true_labels: Name of each text's class; None where there are no labels.
        log: Shows a line to the user.

    Raises:
        InputError: Our own job found a mistake.
    """
    runners = {"fastformers": ours} | {n: r for n, r in others.items() if not isinstance(r, NotRun)}
    failed = {name: r for name, r in others.items() if isinstance(r, NotRun)}
    parts: dict[str, Part] = {}
    for name, runner in runners.items():
        found = _size(name, runner, texts, settings, log)
        if isinstance(found, NotRun):
            failed[_baseline(name)] = found
            log(f"{name}: not run: {found.reason}")
        else:
            parts[name] = found
    runs: dict[str, list[JobRun]] = {name: [] for name in parts}
    for turn in range(settings.repeats):
        for name in [name for name in parts if name not in failed]:
            run = runners[name](parts[name])
            longer = None if turn else _longer(parts[name], run, texts, settings)
            if longer is not None:
                parts[name] = longer
                log(f"{name}: too short; once more on {longer.num_rows:,} rows")
                run = runners[name](longer)
            if isinstance(run, NotRun):  # one that fails makes the others of it worthless
                failed[_baseline(name)] = run
                continue
            log(
                f"turn {turn + 1}: {name} {run.rows / run.seconds:,.1f} rows/s "
                f"({run.rows:,} rows in {run.seconds:.1f} s, start-up {run.startup_s:.1f} s)"
            )
            runs[name].append(run)
    rates = {
        name: failed.get(name) or _describe(runs[name], true_labels)
        for name in JOB_BASELINES
        if name in failed or name in runs
    }
    left_out = NotRun(reason="--peers leaves it out")
    return BaselinesPart(
        ours=_describe(runs["fastformers"], true_labels),
        by_name={name: rates.get(name, left_out) for name in JOB_BASELINES},
    )


def _size(
    name: str,
    runner: Runner,
    texts: DifferentTexts,
    settings: TurnSettings,
    log: Callable[[str], None],
) -> Part | NotRun:
    """The part of the texts on which a job lasts long enough, as short runs of it tell."""
    num_rows = min(_FIRST_ROWS, len(texts.texts))
    while True:
        log(f"{name}: a first run on {num_rows:,} rows")
        run = runner(texts.part(num_rows, num_workers=settings.num_workers))
        if isinstance(run, NotRun):
            return run
        wanted = _MARGIN * settings.min_seconds * run.rows / run.seconds
        telling = _TELLING_SHARE * settings.min_seconds
        if run.seconds >= telling or num_rows == len(texts.texts):
            break
        num_rows = min(len(texts.texts), int(num_rows * max(2.0, _MARGIN * telling / run.seconds)))
    if wanted > len(texts.texts):
        expected_s = len(texts.texts) * run.seconds / run.rows
        log(
            f"{name}: all {len(texts.texts):,} texts last {expected_s:.0f} s of "
            f"{settings.min_seconds:.0f}; for longer runs give a larger CORPUS or --peer-rows"
        )
    return texts.part(max(1, round(wanted)), num_workers=settings.num_workers)


def _longer(
    part: Part, run: JobRun | NotRun, texts: DifferentTexts, settings: TurnSettings
) -> Part | None:
    """More texts for a job that was too short; None where it was not, or there are no more."""
    if isinstance(run, NotRun) or run.seconds >= settings.min_seconds:
        return None
    num_rows = round(_MARGIN * settings.min_seconds * run.rows / run.seconds)
    longer = texts.part(num_rows, num_workers=settings.num_workers)
    return longer if longer.num_rows > part.num_rows else None


def _baseline(name: str) -> BaselineName:
    """The baseline of a name; only ours has another, and its failures are exceptions."""
    return next(baseline for baseline in JOB_BASELINES if baseline == name)


def _describe(runs: Sequence[JobRun], true_labels: Sequence[str] | None) -> BaselineRate:
    """Equal runs together."""
    first = runs[0]
    rates = tuple(run.rows / run.seconds for run in runs)
    return BaselineRate(
        rows_per_second=statistics.median(rates),
        rows_per_second_by_turn=rates,
        rows=first.rows,
        seconds=statistics.median(run.seconds for run in runs),
        startup_s=statistics.median(run.startup_s for run in runs),
        accuracy=_accuracy(first.labels, true_labels),
        setting=first.setting,
        versions=first.versions,
    )


def _accuracy(labels: Mapping[int, str], true_labels: Sequence[str] | None) -> float | None:
    if true_labels is None or not labels:
        return None
    return sum(label == true_labels[row] for row, label in labels.items()) / len(labels)
