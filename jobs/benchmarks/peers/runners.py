"""What runs each whole job on a part of the texts: our own, and every baseline.

    bundle, checkpoint, catalog -> [runners] -> turns

Our clock is the same as theirs: it leaves out the start-up, in which our actors load the model, and
so the seconds that this takes are added again; opening the corpus counts. This module knows nothing
of turns.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastformers.cluster.settings import CorpusSettings
from fastformers.digest import versions_of
from fastformers.inference.autotune import tune
from fastformers.inference.bundle import Bundle
from fastformers.inference.scorer import open_scorer
from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES, BaselineName
from fastformers.jobs.benchmarks.peers.environments import open_environment
from fastformers.jobs.benchmarks.peers.run_baseline import (
    JobRun,
    read_predictions,
    run_baseline,
)
from fastformers.jobs.benchmarks.peers.scripts.work import Work
from fastformers.jobs.benchmarks.peers.texts import ID_COLUMN, TEXT_COLUMN, Part
from fastformers.jobs.benchmarks.peers.turns import Runner
from fastformers.jobs.benchmarks.whole_jobs import JobSettings, plan_ours
from fastformers.jobs.console.execute import execute

_PACKAGES = ("onnxruntime", "ray")


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """What baselines need beside their work.

    Attributes:
        environments: Directory that their environments are kept in.
        static_bundle: Bundle of static vectors; None without.
    """

    environments: Path
    static_bundle: Bundle | None


def our_runner(bundle: Bundle, settings: JobSettings, scratch: Path) -> Callable[[Part], JobRun]:
    """Our whole job.

    Args:
        bundle: What scores.
        settings: How it runs.
        scratch: Directory for the outputs of all runs.
    """
    engine = tune(bundle, engine=settings.engine).engine
    corpus_settings = CorpusSettings(text_column=TEXT_COLUMN, keep_columns=(ID_COLUMN,))
    outputs = (scratch / f"run-{number}" for number in itertools.count())

    def run(part: Part) -> JobRun:
        output = next(outputs)
        start = time.perf_counter()
        job = plan_ours(
            str(part.directory), str(output), corpus_settings, settings, bundle=str(bundle)
        )
        opened_s = time.perf_counter() - start
        report = execute(job, settings.actors, settings.price)
        load_s = _seconds_to_load(bundle, engine)
        found = read_predictions(output / "predictions") or {}
        return JobRun(
            rows=report.rows,
            seconds=opened_s + report.wall_s - report.setup_s + load_s,
            startup_s=max(0.0, report.setup_s - load_s),
            setting=f"{bundle.precision}, engine {engine}, {report.num_actors} actors",
            versions=versions_of(dict.fromkeys((*_PACKAGES, engine))),
            labels={row: label for row, label in found.items() if label is not None},
        )

    return run


def baseline_runners(
    names: Sequence[BaselineName],
    work: Work,
    settings: JobSettings,
    peers: PeerSettings,
    *,
    log: Callable[[str], None],
) -> dict[BaselineName, Runner | NotRun]:
    """What runs each baseline, or why it does not; environments are made here.

    Args:
        names: Which ones.
        work: What they do, but for the texts and the output.
        settings: How our own jobs run, of which one is a floor.
        peers: What they need beside.
        log: Shows a line to the user.
    """
    runners: dict[BaselineName, Runner | NotRun] = {}
    for name in names:
        environment = JOB_BASELINES[name].environment
        if name == "static-vectors":
            runners[name] = _static_runner(settings, peers, Path(work.scratch))
        elif environment is None:
            runners[name] = _runner(name, work, Path(sys.executable))
        else:
            python = open_environment(environment, peers.environments, log)
            if isinstance(python, NotRun):
                log(f"{name}: not run: {python.reason}")
                runners[name] = python
            else:
                runners[name] = _runner(name, work, python)
    return runners


def _static_runner(settings: JobSettings, peers: PeerSettings, scratch: Path) -> Runner | NotRun:
    if peers.static_bundle is None:
        return NotRun(reason="no bundle of static vectors: give --static-bundle")
    return our_runner(peers.static_bundle, settings, scratch / "static-vectors")


def _runner(name: BaselineName, work: Work, python: Path) -> Runner:
    outputs = (Path(work.scratch) / f"{name}-{number}" for number in itertools.count())

    def run(part: Part) -> JobRun | NotRun:
        return run_baseline(name, work, part, python=python, output=next(outputs))

    return run


def _seconds_to_load(bundle: Bundle, engine: str) -> float:
    """Seconds that an actor takes to load the model and to score a first text."""
    start = time.perf_counter()
    open_scorer(bundle, engine, num_threads=1).score(["a text"])
    return time.perf_counter() - start
