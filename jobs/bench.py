"""Measure a bundle here beside what else a user could run: engines, operators, whole jobs.

fastformers bench CORPUS --bundle BUNDLE --teacher CHECKPOINT --peers all
fastformers bench CORPUS --shape student --teacher CHECKPOINT --peers all
fastformers bench --from-json FILE --plot PICTURE.svg
fastformers bench --profile-out FILE

CHECKPOINT is the Hugging Face classifier that the bundle was made from: what the others run. With
--shape only its tokenizer is used, and the weights are random: speed does not depend on them.

engines    tokens/s at fixed shapes and on real rows, on one core and on all: ours, PyTorch, ONNX
           Runtime's stock int8 recipe, OpenVINO by itself
operators  where the time goes, and which share of this machine's peak is reached
job        the whole job (start, read, tokenize, score, write), then the same actors on the same
           batches, tokenized and in memory, and nothing else
peers      whole jobs of others and ours in turns, on texts of the corpus that differ, each on as
           many as last --min-seconds; environments that they need are made and kept

The last form measures this machine alone, with the bundle that everybody has, so that machines can
be compared: FILE says what the machine is and how fast, and nothing of whose it is.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastformers.benchmark.comparison import our_name, profile_engines
from fastformers.cluster.cost.machine_profile import MachineProfile, write_profile
from fastformers.cluster.execution.topology import discover_topology
from fastformers.cluster.settings import CorpusSettings
from fastformers.digest import versions_of
from fastformers.formatting import format_count
from fastformers.inference.autotune import EngineChoice, tune
from fastformers.inference.bundle import DEMO_BUNDLE, Bundle, open_bundle
from fastformers.inference.cascade.record import check_one_graph
from fastformers.inference.cpu import read_cpu_model
from fastformers.jobs.benchmarks.arguments import (
    check,
    chosen_baselines,
    has_peers,
    measures_profile_alone,
    parse_bench,
)
from fastformers.jobs.benchmarks.bench_report import BenchReport, load_report
from fastformers.jobs.benchmarks.engines import (
    describe_engines,
    describe_operators,
    measure_engines,
)
from fastformers.jobs.benchmarks.parts import (
    EnginesPart,
    JobPart,
    NotRun,
    OperatorsPart,
)
from fastformers.jobs.benchmarks.peers.plan import PeerPlan, plan_peers
from fastformers.jobs.benchmarks.peers.texts import DifferentTexts, read_different_texts
from fastformers.jobs.benchmarks.picture import draw_whole_jobs
from fastformers.jobs.benchmarks.subject import Subject, make_subject, open_subject
from fastformers.jobs.benchmarks.tables import print_rates, print_report
from fastformers.jobs.benchmarks.whole_jobs import JobSettings, measure_whole_job
from fastformers.jobs.console.arguments import actor_settings, corpus_settings, price_of
from fastformers.jobs.console.calibrate import calibrate, show_profile
from fastformers.jobs.console.execute import plan_actors
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting

_PACKAGES = ("onnxruntime", "ray")
_SAMPLED_FROM = 5  # texts of the corpus for each text of the sample


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers bench`."""
    return parse_bench(arguments, __doc__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers bench`."""
    options = parse(arguments)

    def job() -> Mapping[str, Any]:
        check(options)
        if measures_profile_alone(options):
            profile = _keep_profile(options, open_bundle(DEMO_BUNDLE))
            return show_profile(profile, options.profile_out)
        if options.from_json is not None:
            report = load_report(options.from_json)
        else:
            with tempfile.TemporaryDirectory(prefix="fastformers-bench-") as scratch:
                report = _bench(options, Path(scratch))
            print_report(report, console)
        if options.plot is not None:
            draw_whole_jobs(report, options.plot)
        return report.to_json()

    return run(job, options, measures=options.from_json is None)


def _bench(options: argparse.Namespace, scratch: Path) -> BenchReport:
    settings = corpus_settings(options)
    with waiting("reading the corpus") as on_step:
        texts = _read_texts(options, settings, scratch)
        on_step("loading the models")
        sample = {
            "texts": () if texts is None else texts.texts,
            "sample_rows": options.sample_rows,
            "scratch": scratch,
        }
        if options.shape is None:
            subject = open_subject(options.bundle, options.teacher, **sample)
        else:
            subject = make_subject(options.shape, options.teacher, **sample)
        if {"engines", "operators"} & {*options.parts}:
            check_one_graph(subject.bundle, "engines and operators are compared on", "--parts job")
        plan = _plan_peers(options, settings, subject, texts, scratch)
        on_step("measuring which engine and batches are fastest here")
        choice = tune(subject.bundle, engine=options.engine)
    job_settings = JobSettings(
        bundle=str(subject.bundle),
        engine=options.engine,
        actors=actor_settings(options),
        price=price_of(options),
        repeats=options.repeats,
    )
    engines, operators = _measure_engines(options, subject, choice)
    return BenchReport(
        engine=choice.engine,
        max_batch_tokens=choice.max_batch_tokens,
        precision=subject.bundle.precision,
        weights=options.shape or subject.bundle.provenance.get("teacher"),
        corpus=options.corpus,
        cpu_model=read_cpu_model(),
        cores=discover_topology().num_usable_cores,
        versions=versions_of(dict.fromkeys((*_PACKAGES, choice.engine))),
        repeats=options.repeats,
        measured_at=time.strftime("%Y-%m-%d"),
        engines=engines,
        operators=operators,
        job=_measure_job(options, settings, job_settings, scratch),
        job_baselines=(
            plan
            if isinstance(plan, NotRun)
            else plan.measure(subject.bundle, job_settings, log=console.print)
        ),
        profile=_profile_beside(options, subject.bundle),
    )


def _measure_engines(
    options: argparse.Namespace, subject: Subject, choice: EngineChoice
) -> tuple[EnginesPart | NotRun, OperatorsPart | NotRun]:
    """Operators come first, because the peak that they find is shown beside the engines' rates."""
    ours = our_name(choice.engine)
    breakdown = None
    if "operators" in options.parts:
        breakdown = profile_engines(subject.bundle, subject.baselines)
    limits = {} if breakdown is None else breakdown.dense_limits()
    comparisons = []
    if "engines" in options.parts:
        comparisons = measure_engines(
            subject,
            max_batch_tokens=choice.max_batch_tokens,
            repeats=options.repeats,
            on_rates=lambda rates: print_rates(rates, limits, console),
        )
    return (
        describe_engines(comparisons, ours) if comparisons else _left_out("engines"),
        _left_out("operators")
        if breakdown is None
        else describe_operators(breakdown, comparisons, ours),
    )


def _measure_job(
    options: argparse.Namespace,
    settings: CorpusSettings,
    job_settings: JobSettings,
    scratch: Path,
) -> JobPart | NotRun:
    if "job" not in options.parts:
        return _left_out("job")
    if options.corpus is None:
        return NotRun(reason="no corpus")
    output = options.output or str(scratch)
    return measure_whole_job(
        options.corpus, settings, job_settings, output=output, log=console.print
    )


def _read_texts(
    options: argparse.Namespace, settings: CorpusSettings, scratch: Path
) -> DifferentTexts | None:
    """Enough texts for the sample to be spread over, and for all whole jobs."""
    if options.corpus is None:
        return None
    num_rows = _SAMPLED_FROM * options.sample_rows
    if has_peers(options):
        num_rows = max(num_rows, options.peer_rows)
    texts = read_different_texts(
        options.corpus,
        settings,
        num_rows=num_rows,
        directory=scratch / "texts",
        label_column=options.label_column,
    )
    if texts.num_unlabeled:
        console.print(
            f"--label-column {options.label_column}: {format_count(texts.num_unlabeled, 'row')} "
            "without a label left out"
        )
    return texts


def _plan_peers(
    options: argparse.Namespace,
    settings: CorpusSettings,
    subject: Subject,
    texts: DifferentTexts | None,
    scratch: Path,
) -> PeerPlan | NotRun:
    if "peers" not in options.parts:
        return _left_out("peers")
    if options.teacher is None:
        return NotRun(reason="no --teacher")
    if texts is None:
        return NotRun(reason="no corpus")
    names = chosen_baselines(options)
    if not names:
        return NotRun(reason="--peers leaves it out")
    num_workers = len(plan_actors(actor_settings(options)))
    plan = plan_peers(
        options,
        names,
        subject,
        texts.first(options.peer_rows),
        settings,
        num_workers=num_workers,
        scratch=scratch,
    )
    return plan or NotRun(reason="no --teacher")


def _left_out(part: str) -> NotRun:
    return NotRun(reason=f"--parts leaves {part} out")


def _profile_beside(options: argparse.Namespace, bundle: Bundle) -> str | None:
    """Path of the profile that was asked for beside the rest."""
    if options.profile_out is None:
        return None
    _keep_profile(options, bundle)
    return str(options.profile_out)


def _keep_profile(options: argparse.Namespace, bundle: Bundle) -> MachineProfile:
    """Measure this machine with a bundle, and keep it."""
    profile = calibrate(bundle, options.own_type)
    write_profile(options.profile_out, profile)
    return profile


if __name__ == "__main__":
    sys.exit(main())
