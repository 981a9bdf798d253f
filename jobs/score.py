"""Score a corpus, or shards that were prepared from one, and print the bill.

fastformers score CORPUS_OR_SHARDS --bundle BUNDLE --output OUT

CORPUS is a Parquet, JSON lines or CSV file, a directory or a glob of them, or a URI (s3://, gs://,
abfs://). Running the same command again goes on where an interrupted run stopped.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cluster.energy import COUNTRY_VARIABLE, EnergyMeter
from cluster.plan import plan_score
from cluster.pricing import HourlyPrice, choose_price, load_prices
from cluster.progress import ProgressDisplay
from cluster.report import SUMMARY_KEYS, build_report
from cluster.report_table import render_bill
from cluster.run import REPORT_FILE, ScoreRun
from cluster.settings import ActorSettings, CorpusSettings
from cluster.topology import describe_core_sets, discover_topology, plan_core_sets
from jobs.cli import columns, console, run
from jobs.report import write_page


def add_corpus_arguments(
    parser: argparse.ArgumentParser,
    *,
    needs_output: bool = True,
    needs_bundle: bool = True,
    scores: bool = True,
) -> None:
    """Arguments that `prepare`, `score` and `bench` share."""
    parser.add_argument(
        "--bundle", type=Path, required=needs_bundle, help="directory of the bundle"
    )
    parser.add_argument("--output", required=needs_output, help="directory or URI to write to")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-pair-column", help="second text, where the bundle reads pairs")
    parser.add_argument(
        "--keep-columns", type=columns, default=(), metavar="A,B", help="passed to the predictions"
    )
    parser.add_argument("--limit", type=int, metavar="ROWS", help="only the first rows")
    parser.add_argument(
        "--shard-seconds", type=float, help="predicted core-seconds a shard (by corpus size, 2-20)"
    )
    parser.add_argument(
        "--skip-unreadable-files",
        action="store_true",
        help="leave out files that cannot be opened, and go on",
    )
    parser.add_argument("--num-actors", type=int, help="over all nodes (as many as fit)")
    parser.add_argument(
        "--cores-per-actor",
        type=_cores,
        default=1,
        metavar="N|auto",
        help="physical cores each actor owns (1); auto measures which split is fastest",
    )
    if scores:
        parser.add_argument(
            "--engine",
            choices=("onnxruntime", "openvino", "auto"),
            default="onnxruntime",
            help="what runs the model (onnxruntime); auto measures which is faster",
        )
    parser.add_argument("--oversubscribe", action="store_true", help="let actors share cores")
    parser.add_argument("--address", help="of a Ray cluster (RAY_ADDRESS, or a local one)")
    parser.add_argument(
        "--timeout-s",
        type=float,
        help="limit for a shard (30 times its prediction, at least 300)",
    )
    parser.add_argument("--usd-per-hour", type=float, help="price of one machine")
    parser.add_argument("--instance-type", help="take the price from the built-in table")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers score`."""
    parser = argparse.ArgumentParser(
        prog="fastformers score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", help="corpus, or the output of `fastformers prepare`")
    add_corpus_arguments(parser)
    parser.add_argument(
        "--max-batch-tokens", type=int, help="token budget of a batch (measured on this machine)"
    )
    parser.add_argument("--on-bad-row", choices=("dead-letter", "fail"), default="dead-letter")
    parser.add_argument(
        "--energy",
        metavar="COUNTRY",
        default=os.environ.get(COUNTRY_VARIABLE),
        help="measure kWh of this node, and CO2 by the mix of a country such as USA "
        f"({COUNTRY_VARIABLE})",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan; score nothing"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers score`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        price = price_of(options)
        score_run = plan_score(
            options.corpus,
            options.bundle,
            options.output,
            corpus_settings(options),
            max_batch_tokens=options.max_batch_tokens,
            fail_on_bad_row=options.on_bad_row == "fail",
            engine=options.engine,
        )
        meter = None if options.energy is None else EnergyMeter(options.energy)
        if options.dry_run:
            return _dry_run(score_run, options, price)
        report = execute(score_run, actor_settings(options), price, meter)
        console.print(render_bill(report))
        assert score_run.output is not None
        write_page(score_run.output, report)
        return {key: report[key] for key in SUMMARY_KEYS}

    return run(job, resume="Finished shards are kept: run the same command again to go on.")


def execute(
    score_run: ScoreRun,
    actors: ActorSettings,
    price: HourlyPrice,
    meter: EnergyMeter | None = None,
) -> dict[str, Any]:
    """Run it with progress on stderr; returns the report, which is also written to the output."""
    unit = "prepared" if score_run.output is None else "scored"
    display = ProgressDisplay(console, unit=unit, usd_per_hour=price.usd_per_hour)
    with meter or nullcontext(), display:
        result = score_run.run(actors, display, console.print)
    energy = meter.energy if meter is not None else None
    report = build_report(score_run, result, price, energy=energy)
    (score_run.output or score_run.shards).write_json(REPORT_FILE, report)
    return report


def corpus_settings(options: argparse.Namespace) -> CorpusSettings:
    """What to read, from the command line."""
    return CorpusSettings(
        text_column=options.text_column,
        text_pair_column=options.text_pair_column,
        keep_columns=options.keep_columns,
        limit=options.limit,
        shard_seconds=options.shard_seconds,
        skip_unreadable_files=options.skip_unreadable_files,
    )


def actor_settings(options: argparse.Namespace) -> ActorSettings:
    """Who works, from the command line."""
    return ActorSettings(
        num_actors=options.num_actors,
        cores_per_actor=options.cores_per_actor,
        oversubscribe=options.oversubscribe,
        address=options.address,
        timeout_s=options.timeout_s,
    )


def price_of(options: argparse.Namespace) -> HourlyPrice:
    """Price of a machine, from the command line or the table."""
    return choose_price(
        usd_per_hour=options.usd_per_hour,
        instance_type=options.instance_type,
        num_cores=discover_topology().num_usable_cores,
        prices=load_prices(),
    )


def _dry_run(
    score_run: ScoreRun, options: argparse.Namespace, price: HourlyPrice
) -> dict[str, Any]:
    plan = score_run.describe()
    if options.address is None:
        topology = discover_topology()
        core_sets = plan_core_sets(
            topology,
            num_actors=options.num_actors,
            cores_per_actor=options.cores_per_actor or 1,
            oversubscribe=options.oversubscribe,
        )
        console.print(describe_core_sets(core_sets, topology))
    for name, value in plan.items():
        console.print(f"{name}: {value}")
    console.print(f"price: {price.usd_per_hour:.4f} USD/h ({price.label})")
    return {"dry_run": True, **plan, "usd_per_hour": price.usd_per_hour, "price": price.label}


def _cores(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


if __name__ == "__main__":
    sys.exit(main())
