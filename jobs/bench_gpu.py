"""Measure the paper's shapes on a GPU beside PyTorch, and a whole job from prepared shards.

fastformers bench-gpu CORPUS --teacher CHECKPOINT
fastformers bench-gpu CORPUS --teacher CHECKPOINT --job-corpus LARGE --usd-per-hour 3.5
fastformers bench-gpu --bundle BUNDLE --profile-out profiles/h100.json

CORPUS gives the lengths of the rows: some thousand texts, which are repeated where the card needs
more. Of CHECKPOINT only the tokenizer is used: the weights are random, and speed does not depend on
them. LARGE is prepared by all cores and then scored by the card; a million texts take it seconds.
With --bundle, nothing but that bundle is measured on this GPU, and its tokenizer on all cores, for
`fastformers cost --profile`.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME, ShapeName
from fastformers.cluster.cost.machine_profile import write_profile
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.devices.card_use import CardUse, read_driver_version
from fastformers.cluster.devices.cards import Card
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.topology import discover_topology
from fastformers.cluster.report.energy import EnergyMeter
from fastformers.cluster.settings import ActorSettings, CorpusSettings, ScoringSettings
from fastformers.errors import InputError
from fastformers.files.hub import find_model
from fastformers.inference.cpu import read_cpu_model
from fastformers.inference.description.further_graph import choose_graph
from fastformers.inference.engines import CUDA_ENGINE, open_engine
from fastformers.inference.engines.card_measures import (
    choose_budget,
    measure_batch_difference,
    measure_card_budgets,
)
from fastformers.inference.engines.cuda_setup import check_cuda, read_card_name
from fastformers.jobs.benchmarks.arguments import find_own_type
from fastformers.jobs.benchmarks.card_report import (
    CardJob,
    CardRates,
    CardReport,
    print_job,
    print_rates,
)
from fastformers.jobs.benchmarks.peers.texts import read_different_texts
from fastformers.jobs.benchmarks.subject import encode_sample, read_tokenizer
from fastformers.jobs.console.arguments import (
    add_price_arguments,
    corpus_settings,
    price_of,
)
from fastformers.jobs.console.calibrate import calibrate_gpu, show_profile
from fastformers.jobs.console.command_line.idle_flags import IdleRule, refuse_idle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import execute
from fastformers.jobs.console.flags import add_config_arguments
from fastformers.jobs.console.output import console, run
from fastformers.options import split_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fastformers.inference.bundle import Bundle
    from fastformers.inference.tokenizer import TokenizedRows

_OURS = "fastformers float16"
_PACKAGES = ("fastformers", "onnxruntime", "torch", "transformers", "ray")
# A pass of ours takes some seconds: so many operations, and so many tokens at most.
_PASS_OPERATIONS, _PASS_TOKENS = 1e15, 2**25
_FLOAT16_COPIES = 4  # PyTorch in float16 is several times slower
_COMPARED_ROWS = 64


# A job of `bench-gpu` keeps no column, and its rows are texts, one each.
_NOT_READ = ("text_pair_column", "keep_columns", "shard_seconds", "max_bad_rows")
_READ = ("text_column", "limit", "skip_unreadable_files", "binary_text")
_IDLE = (
    IdleRule(
        (*_READ, "shapes", "job_corpus", "job_shape", "sample_rows", "repeats", "usd_per_hour"),
        lambda options: options.bundle is not None,
        "a bundle is measured alone; give CORPUS and --teacher in its place",
    ),
    IdleRule(
        ("job_shape", "usd_per_hour", "instance_type"),
        lambda options: options.bundle is None and options.job_corpus is None,
        "no whole job is measured; give --job-corpus",
    ),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers bench-gpu`."""
    parser = CommandParser(
        prog="fastformers bench-gpu",
        description=__doc__,
    )
    parser.add_argument(
        "corpus", nargs="?", help="file, directory, glob or URI of texts of usual lengths (none)"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="DIR",
        help="Hugging Face checkpoint with the tokenizer (none)",
    )
    profile = parser.add_argument_group("profile")
    profile.add_argument("--bundle", help="bundle with a float16 graph, or its URI (none)")
    profile.add_argument(
        "--profile-out", type=Path, metavar="FILE", help="keep what was measured here (nowhere)"
    )
    add_config_arguments(parser, CorpusSettings, leave_out=_NOT_READ)
    parser.add_argument(
        "--shapes",
        type=split_names,
        default=("bert-base", "student"),
        metavar="A,B",
        help=f"shapes to measure, of {','.join(SHAPES_BY_NAME)} (bert-base,student)",
    )
    parser.add_argument(
        "--job-corpus", metavar="CORPUS", help="measure a whole job, too, on these texts (none)"
    )
    parser.add_argument(
        "--job-shape",
        choices=tuple(SHAPES_BY_NAME),
        default="student",
        help="shape that the whole job runs (%(default)s)",
    )
    parser.add_argument(
        "--sample-rows",
        type=int,
        default=4000,
        metavar="ROWS",
        help="texts that give the lengths (%(default)s)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="how many times everything runs, in turns (3)"
    )
    add_price_arguments(parser, machine="this machine")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers bench-gpu`."""
    options = parse(arguments)

    def job() -> Mapping[str, Any]:
        refuse_idle(options, _IDLE)
        _check(options)
        check_cuda()
        if options.bundle is not None:
            return _profile(options)
        options.teacher = find_model(options.teacher).path
        with tempfile.TemporaryDirectory(prefix="fastformers-bench-") as scratch:
            return _bench(options, Path(scratch)).to_json()

    return run(job, options, measures=True)


def _check(options: argparse.Namespace) -> None:
    if unknown := [name for name in options.shapes if name not in SHAPES_BY_NAME]:
        raise InputError(f"--shapes {unknown[0]}: not one of {', '.join(SHAPES_BY_NAME)}")
    for flag, value in (("--repeats", options.repeats), ("--sample-rows", options.sample_rows)):
        if value < 1:
            raise InputError(f"{flag} {value}: give at least 1")
    if options.bundle is None:
        if options.corpus is None or options.teacher is None:
            raise InputError("give CORPUS and --teacher, or --bundle and --profile-out")
        if options.profile_out is not None:
            raise InputError("--profile-out: name the --bundle whose rows it is of")
    elif options.profile_out is None or any((options.corpus, options.teacher, options.job_corpus)):
        raise InputError(
            "--bundle: measures this bundle alone; give it with --profile-out, without CORPUS, "
            "--teacher and --job-corpus"
        )
    price_of(options)


def _profile(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a bundle on this machine's GPU, for `fastformers cost --profile`."""
    bundle = pin_bundle(options.bundle).open()
    graph = choose_graph(bundle, "float16")
    instance_type, own = find_own_type(options.instance_type)
    engine: Any = open_engine(CUDA_ENGINE, graph.model_path, num_threads=1)
    profile = calibrate_gpu(bundle, engine, read_card_name(), own, instance_type)
    write_profile(options.profile_out, profile)
    return show_profile(profile, options.profile_out)


def _bench(options: argparse.Namespace, scratch: Path) -> CardReport:
    from fastformers.benchmark.card import make_card_bundle, measure_float16_peak
    from fastformers.benchmark.random_models import make_random_model

    tokenizer = read_tokenizer(options.teacher)
    found = read_different_texts(
        options.corpus,
        corpus_settings(options),
        num_rows=options.sample_rows,
        directory=scratch / "texts",
    )
    rows = encode_sample(found.texts, tokenizer, options.sample_rows)
    if rows is None:
        raise InputError(f"{options.corpus}: has no texts")
    peak = measure_float16_peak()
    shapes: dict[str, CardRates] = {}
    jobs: dict[str, CardJob] = {}
    for name in dict.fromkeys((*options.shapes, *_job_shapes(options))):
        model = make_random_model(replace(SHAPES_BY_NAME[name], vocab_size=tokenizer.vocab_size))
        bundle = make_card_bundle(
            model,
            tokenizer_json=(options.teacher / "tokenizer.json").read_text(encoding="utf-8"),
            path=scratch / f"bundle-{name}",
        )
        if name in options.shapes:
            shapes[name] = _measure_shape(name, model, bundle, rows, peak, options.repeats)
            print_rates(name, shapes[name], console)
        if name in _job_shapes(options):
            jobs[name] = _measure_job(options, bundle, scratch / f"job-{name}")
            print_job(name, jobs[name], console)
    return CardReport(
        card=read_card_name(),
        driver=read_driver_version(),
        cpu_model=read_cpu_model(),
        cores=discover_topology().num_usable_cores,
        versions={name: importlib.import_module(name).__version__ for name in _PACKAGES},
        measured_at=time.strftime("%Y-%m-%d"),
        repeats=options.repeats,
        peak_tflops=peak / 1e12,
        shapes=shapes,
        jobs=jobs,
    )


def _job_shapes(options: argparse.Namespace) -> tuple[ShapeName, ...]:
    return () if options.job_corpus is None else (options.job_shape,)


def _measure_shape(
    name: ShapeName,
    model: "PreTrainedModel",
    bundle: "Bundle",
    rows: "TokenizedRows",
    peak: float,
    repeats: int,
) -> CardRates:
    """Ours and PyTorch's in turns; PyTorch's own rows are fewer, of the same lengths."""
    from fastformers.benchmark import card

    shape = SHAPES_BY_NAME[name]
    engine: Any = open_engine(CUDA_ENGINE, bundle.model_path, num_threads=1)
    budgets = measure_card_budgets(engine, max_length=bundle.max_length)
    budget = choose_budget(budgets)
    operations = card.count_operations(shape, rows.lengths_N)
    num_tokens = int(rows.lengths_N.sum())
    copies = max(1, int(min(_PASS_OPERATIONS / operations, _PASS_TOKENS / num_tokens)))
    many = card.tile_rows(rows, copies)
    ours = card.our_candidate(_OURS, engine, many, max_batch_tokens=budget)
    float32 = card.pytorch_float32(model, rows)
    some = card.tile_rows(rows, min(copies, _FLOAT16_COPIES))
    float16 = [
        card.pytorch_float16(model, some, max_batch_tokens=tokens)
        for tokens in card.PYTORCH_BUDGETS
    ]
    rates = card.measure_rates_on_card([ours, float32, *float16], repeats=repeats)
    fastest = max(rates[candidate.name] for candidate in float16)
    return CardRates(
        rows_per_second=rates,
        over_float32=rates[_OURS] / rates[float32.name],
        over_float16=rates[_OURS] / fastest,
        max_batch_tokens=budget,
        ns_per_token={tokens: 1e9 * seconds for tokens, seconds in budgets.items()},
        mean_tokens=num_tokens / len(rows.lengths_N),
        share_of_peak=operations / len(rows.lengths_N) * rates[_OURS] / peak,
        busy=_measure_busy(ours),
        batch_difference=measure_batch_difference(
            engine,
            max_length=bundle.max_length,
            vocabulary=model.config.vocab_size,
            max_batch_tokens=budget,
        ),
        pytorch_difference=_difference_from_pytorch(model, engine, rows),
    )


def _measure_busy(candidate: Any) -> float | None:
    """Share of a pass's time in which a kernel ran, as the driver counts."""
    use = CardUse.open(Card(index=0))
    candidate.run()
    return None if use is None else use.take()


def _difference_from_pytorch(model: "PreTrainedModel", engine: Any, rows: "TokenizedRows") -> float:
    """Largest difference of a logit from PyTorch's in float32, on the CPU, row by row."""
    import torch

    largest = 0.0
    chosen = np.linspace(0, len(rows.lengths_N) - 1, _COMPARED_ROWS).astype(np.intp)
    for row in chosen:
        ids_BT = rows.batch_ids(row[None])
        with torch.inference_mode():
            exact_BC = model(input_ids=torch.from_numpy(ids_BT)).logits.numpy()
        got_BC = engine.run(ids_BT, rows.batch_types(row[None]))
        largest = max(largest, float(np.abs(got_BC - exact_BC).max()))
    return largest


def _measure_job(options: argparse.Namespace, bundle: "Bundle", path: Path) -> CardJob:
    """Prepare a corpus on all cores, then score its shards on the card: the last of the repeats."""
    settings, price = corpus_settings(options), price_of(options)
    actors = ActorSettings()
    prepared = open_prepare_job(
        options.job_corpus, bundle.path, f"{path}/shards", settings, for_gpus=True
    )
    preparing = execute(prepared, actors, price)
    reports = []
    for repeat in range(options.repeats):
        job = open_score_job(
            f"{path}/shards",
            bundle.path,
            f"{path}/scored-{repeat}",
            settings,
            max_batch_tokens=None,
            scoring=ScoringSettings(device="cuda"),
        )
        reports.append(execute(job, actors, price, EnergyMeter("USA")))
    report = sorted(reports, key=lambda report: report.rows_per_second)[len(reports) // 2]
    kind = next(kind for kind in report.kinds if kind.device == "cuda")
    return CardJob(
        rows=report.rows,
        tokens=report.tokens,
        rows_per_second=report.rows_per_second,
        scoring_rows_per_second=report.rows / (report.wall_s - report.setup_s),
        wall_s=report.wall_s,
        setup_s=report.setup_s,
        usd_per_million=report.usd_per_million,
        computing=kind.computing,
        waiting=kind.waiting,
        busy=kind.gpu_busy,
        bound_by=kind.bound_by,
        phase_s=vars(report.phase_s),
        prepare_s=preparing.wall_s - preparing.setup_s,
        gpu_kwh=None if report.energy is None else report.energy.gpu_kwh,
    )


if __name__ == "__main__":
    sys.exit(main())
