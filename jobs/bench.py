"""Measure a bundle here beside what else a user could run: engines, operators, whole jobs.

fastformers bench CORPUS --bundle BUNDLE --teacher CHECKPOINT --peers all
fastformers bench CORPUS --shape student --teacher CHECKPOINT --peers all

CHECKPOINT is the Hugging Face classifier that the bundle was made from: what the others run. With
--shape only its tokenizer is used, and the weights are random: speed does not depend on them.

engines    tokens/s at fixed shapes and on real rows, on one core and on all: ours, PyTorch, ONNX
           Runtime's stock int8 recipe, OpenVINO by itself
operators  where the time goes, and which share of this machine's peak is reached
job        the whole job (start, read, tokenize, score, write), then the same actors on the same
           batches, tokenized and in memory, and nothing else
peers      whole jobs of others on the first texts of the corpus that differ, and ours on the same
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cluster.cost.machine_profile import write_profile
from cluster.execution.engine_alone import measure_engine_alone
from cluster.execution.job import plan_prepare, plan_score
from cluster.execution.topology import discover_topology
from cluster.pricing.prices import find_price, load_prices
from cluster.report.run_report import RunReport
from cluster.settings import CorpusSettings
from cluster.storage import open_directory
from fastformers.benchmark.comparison import (
    Comparison,
    OperatorBreakdown,
    compare_engines,
    our_name,
    profile_engines,
)
from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME
from fastformers.errors import InputError
from fastformers.inference.autotune import tune
from fastformers.inference.cpu import read_cpu_model
from jobs.benchmarks.job_baselines import (
    JOB_BASELINES,
    TEXT_COLUMN,
    BaselineJob,
    BaselineName,
    BaselineResult,
    run_baseline,
    write_different_texts,
)
from jobs.benchmarks.subject import Subject, open_subject
from jobs.benchmarks.tables import (
    check_plot,
    describe_breakdown,
    describe_comparisons,
    print_comparison,
    print_report,
    save_plot,
)
from jobs.console.arguments import (
    actor_settings,
    add_corpus_arguments,
    corpus_settings,
    price_of,
)
from jobs.console.calibrate import calibrate, check_own_type
from jobs.console.execute import connect_ray, execute
from jobs.console.flags import split_names
from jobs.console.output import console, run

PARTS = ("engines", "operators", "job", "peers")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers bench`."""
    parser = argparse.ArgumentParser(
        prog="fastformers bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", nargs="?", help="file, directory, glob or URI")
    add_corpus_arguments(parser, needs_output=False, needs_bundle=False)
    parser.add_argument("--teacher", type=Path, help="Hugging Face checkpoint of the bundle")
    parser.add_argument(
        "--shape",
        choices=tuple(SHAPES_BY_NAME),
        help="random weights of the paper's shape, in place of a bundle",
    )
    parser.add_argument(
        "--parts",
        type=split_names,
        default=PARTS,
        metavar="A,B",
        help=f"of {','.join(PARTS)} (all)",
    )
    parser.add_argument(
        "--peers",
        type=split_names,
        default=(),
        metavar="A,B",
        help=f"of {','.join(JOB_BASELINES)}, or all (none: they are slow)",
    )
    parser.add_argument("--peer-rows", type=int, default=5000, help="rows for the peers (5000)")
    parser.add_argument(
        "--peer-python",
        type=Path,
        default=Path(sys.executable),
        help="interpreter for sentence-transformers, where its ONNX backend is installed",
    )
    parser.add_argument("--sample-rows", type=int, default=1000, help="rows for engines (1000)")
    parser.add_argument("--repeats", type=int, default=1, help="of everything, in turn (1)")
    parser.add_argument(
        "--profile-out",
        type=Path,
        metavar="FILE",
        help="measure this machine, too, for `fastformers cost --profiles` elsewhere",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw what was measured")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers bench`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        _check(options)
        with tempfile.TemporaryDirectory(prefix="fastformers-bench-") as scratch:
            return _bench(options, Path(scratch))

    return run(job)


def _check(options: argparse.Namespace) -> None:
    for flag, given, known in (
        ("--parts", options.parts, PARTS),
        ("--peers", options.peers, (*JOB_BASELINES, "all")),
    ):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"{flag} {unknown[0]}: not one of {', '.join(known)}")
    for flag, value in (
        ("--repeats", options.repeats),
        ("--peer-rows", options.peer_rows),
        ("--sample-rows", options.sample_rows),
    ):
        if value < 1:
            raise InputError(f"{flag} {value}: give at least 1")
    if (options.bundle is None) == (options.shape is None):
        raise InputError("give --bundle, or --shape for random weights, and not both")
    if options.shape is not None and options.teacher is None:
        raise InputError(f"--shape {options.shape}: give --teacher, too, for its tokenizer")
    if options.peers and options.teacher is None:
        raise InputError("--peers: give --teacher, the checkpoint that the others run")
    if options.peers and not options.peer_python.is_file():
        raise InputError(f"--peer-python {options.peer_python}: no such file")
    if options.output is not None and not open_directory(options.output).is_empty():
        raise InputError(f"--output {options.output}: not empty, so there is less left to measure")
    if options.cores_per_actor is None:
        raise InputError("--cores-per-actor auto: engines and jobs share one split; give a number")
    if options.profile_out is not None and options.bundle is None:
        raise InputError("--profile-out: a profile is of a bundle; give --bundle")
    if options.plot is not None:
        check_plot(options.plot)
    actor_settings(options), price_of(options)  # refused before anything is measured


def _bench(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    settings = corpus_settings(options)
    files: list[str] = []
    if options.corpus is not None:
        num_rows = max(options.peer_rows, options.sample_rows)
        files = write_different_texts(
            options.corpus, settings, num_rows=num_rows, directory=scratch / "texts"
        )
    subject = open_subject(
        bundle_path=options.bundle,
        teacher=options.teacher,
        shape=options.shape,
        files=files,
        sample_rows=options.sample_rows,
        scratch=scratch,
    )
    tuning = tune(subject.bundle, engine=options.engine)
    report: dict[str, Any] = {
        "engine": tuning.engine,
        "max_batch_tokens": tuning.max_batch_tokens,
        "precision": subject.bundle.precision,
        "weights": options.shape or subject.bundle.provenance.get("teacher"),
        "cpu_model": read_cpu_model(),
        "cores": discover_topology().num_usable_cores,
        "repeats": options.repeats,
        "measured_at": time.strftime("%Y-%m-%d"),
        **dict.fromkeys(
            ("engine_over_stock", "engine_over_openvino", "engine_of_peak", "job_over_engine")
        ),
        **{f"job_over_{_key(name)}": None for name in JOB_BASELINES},
        "not_run": {},
    }
    breakdown: OperatorBreakdown | None = None
    if "operators" in options.parts:
        breakdown = profile_engines(subject.bundle, subject.baselines)
    comparisons: list[Comparison] = []
    if "engines" in options.parts:
        limits = breakdown.dense_limits() if breakdown is not None else {}
        comparisons = _comparison(options, subject, tuning.max_batch_tokens, limits)
    report.update(describe_comparisons(comparisons, our_name(tuning.engine)))
    if breakdown is not None:
        report.update(describe_breakdown(breakdown, comparisons, our_name(tuning.engine)))
    if options.corpus is not None and "job" in options.parts:
        report.update(_measure_job(options, settings, subject, scratch))
    if options.corpus is not None and "peers" in options.parts:
        report.update(_measure_job_baselines(options, settings, subject, scratch))
    if options.profile_out is not None:
        report["profile"] = _write_profile(options, subject)
    report["not_run"].update(_why_not(options, subject, report))
    print_report(report, console)
    if options.plot is not None:
        save_plot(report, options.plot)
    return report


def _write_profile(options: argparse.Namespace, subject: Subject) -> str:
    own = find_price(options.instance_type, load_prices()) if options.instance_type else None
    profile = calibrate(subject.bundle, options.instance_type)
    check_own_type(profile, own)
    write_profile(options.profile_out, profile)
    return str(options.profile_out)


def _comparison(
    options: argparse.Namespace,
    subject: Subject,
    max_batch_tokens: int,
    limits: dict[str, float],
) -> list[Comparison]:
    """On one core and on all; each is shown as soon as it is measured, for it may take minutes."""
    comparisons = []
    for num_threads in sorted({1, discover_topology().num_usable_cores}):
        comparison = compare_engines(
            subject.bundle,
            max_batch_tokens=max_batch_tokens,
            baselines=subject.baselines,
            rows=subject.rows,
            num_threads=num_threads,
            repeats=options.repeats,
        )
        print_comparison(comparison, limits, console)
        comparisons.append(comparison)
    return comparisons


def _measure_job(
    options: argparse.Namespace, settings: CorpusSettings, subject: Subject, scratch: Path
) -> dict[str, Any]:
    actors, price = actor_settings(options), price_of(options)
    home = options.output or str(scratch)
    prepare_job = plan_prepare(options.corpus, subject.bundle.path, f"{home}/shards", settings)
    execute(prepare_job, replace(actors, cores_per_actor=1), price)
    jobs: list[RunReport] = []
    engines: list[float] = []
    for repeat in range(options.repeats):
        score_job = plan_score(
            options.corpus,
            subject.bundle.path,
            f"{home}/scored-{repeat}",
            settings,
            max_batch_tokens=None,
            fail_on_bad_row=False,
            engine=options.engine,
        )
        jobs.append(execute(score_job, actors, price))
        prepared_job = replace(score_job, shards=prepare_job.shards)
        engines.append(measure_engine_alone(prepared_job, actors, connect_ray, console.print))
        console.print(
            f"job {jobs[-1].rows_per_second:,.1f} rows/s, engine alone {engines[-1]:,.1f} rows/s"
        )
    job_rate = statistics.median(report.rows_per_second for report in jobs)
    engine_rate = statistics.median(engines)
    return {
        "job_over_engine": job_rate / engine_rate,
        "job_rows_per_second": job_rate,
        "engine_rows_per_second": engine_rate,
        "job_wall_s": [report.wall_s for report in jobs],
        "rows": jobs[0].rows,
        "unique_rows": jobs[0].unique_rows,
        "tokens": jobs[0].tokens,
        "saved_by_scoring_equal_texts_once": 1 - jobs[0].unique_tokens / jobs[0].tokens,
        "padding_efficiency": jobs[0].padding_efficiency,
        "phase_s": asdict(jobs[0].phase_s),
        "predicted_over_inferred": statistics.median(
            report.predicted_s / report.phase_s.infer for report in jobs
        ),
        "num_actors": jobs[0].num_actors,
    }


def _measure_job_baselines(
    options: argparse.Namespace, settings: CorpusSettings, subject: Subject, scratch: Path
) -> dict[str, Any]:
    names = [name for name in JOB_BASELINES if {name, "all"} & set(options.peers)]
    if not names or subject.baselines is None or subject.checkpoint is None:
        return {}
    actors, price = actor_settings(options), price_of(options)
    files = write_different_texts(
        options.corpus, settings, num_rows=options.peer_rows, directory=scratch / "peer-texts"
    )
    ours: list[float] = []
    results: dict[BaselineName, list[BaselineResult]] = {name: [] for name in names}
    for repeat in range(options.repeats):
        score_job = plan_score(
            str(scratch / "peer-texts"),
            subject.bundle.path,
            str(scratch / f"beside-peers-{repeat}"),
            CorpusSettings(text_column=TEXT_COLUMN),
            max_batch_tokens=None,
            fail_on_bad_row=False,
            engine=options.engine,
        )
        job = execute(score_job, actors, price)
        ours.append(job.rows / (job.wall_s - job.setup_s))
        work = BaselineJob(
            files=tuple(files),
            model=str(subject.checkpoint),
            stock_graph=str(subject.baselines.stock_graph),
            tokenizer=str(subject.checkpoint / "tokenizer.json"),
            max_length=subject.bundle.max_length,
            num_workers=job.num_actors,
            scratch=str(scratch),
        )
        for name in names:
            console.print(f"{name} on {job.rows:,} rows")
            python = options.peer_python if name == "sentence-transformers" else sys.executable
            results[name].append(run_baseline(name, work, python=Path(python)))
    report: dict[str, Any] = {
        "peer_rows": job.rows,
        "job_beside_peers_rows_per_second": statistics.median(ours),
        "peers": {},
    }
    reasons: dict[str, str] = {}
    for name, runs in results.items():
        failed = [result.reason for result in runs if result.reason]
        if failed:
            reasons[f"job_over_{_key(name)}"] = failed[0]
            continue
        rate = statistics.median(result.rows / result.seconds for result in runs)
        report[f"job_over_{_key(name)}"] = statistics.median(ours) / rate
        report["peers"][name] = {
            "rows_per_second": rate,
            "rows": runs[0].rows,
            "setting": runs[0].setting,
            "versions": dict(runs[0].versions),
        }
    return {**report, "not_run": reasons}


def _why_not(
    options: argparse.Namespace, subject: Subject, report: dict[str, Any]
) -> dict[str, str]:
    """The reason of each ratio that is null."""
    reasons: dict[str, str] = dict(report["not_run"])
    for key, part in (
        ("engine_over_stock", "engines"),
        ("engine_over_openvino", "engines"),
        ("engine_of_peak", "operators"),
        ("job_over_engine", "job"),
        *((f"job_over_{_key(name)}", "peers") for name in JOB_BASELINES),
    ):
        if report[key] is not None or key in reasons:
            continue
        if part not in options.parts:
            reasons[key] = f"--parts leaves {part} out"
        elif key == "engine_of_peak":
            reasons[key] = "--parts leaves engines out"
        elif subject.baselines is None and part != "job":
            reasons[key] = "no --teacher"
        elif options.corpus is None:
            reasons[key] = "no corpus"
        else:
            reasons[key] = "--peers leaves it out"
    return reasons


def _key(name: str) -> str:
    return name.replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
