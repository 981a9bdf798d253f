"""Score a corpus, or shards that were prepared from one, and print the bill.

fastformers score CORPUS_OR_SHARDS --bundle BUNDLE --output OUT

CORPUS is a file, a directory or a glob of files, or a URI (s3://, gs://, abfs://). Running the same
command again goes on where an interrupted run stopped.

ray submit cluster.yaml jobs/score.py -- CORPUS --bundle BUNDLE --output OUT
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

# `ray submit` copies this file alone to the head.
if getattr(find_spec("fastformers"), "origin", None) is None:
    print(
        f"error: fastformers is not installed for {sys.executable}; start the cluster from the "
        "files of fastformers launch, or install its wheel on every node",
        file=sys.stderr,
    )
    sys.exit(2)

from fastformers.cluster.execution.claim import check_claim, describe_holder
from fastformers.cluster.execution.job import ScoreJob, describe, open_score_job
from fastformers.cluster.execution.journal import find_earlier_work
from fastformers.cluster.execution.topology import (
    describe_core_sets,
    discover_topology,
    plan_core_sets,
)
from fastformers.cluster.nodes.addresses import check_address, check_output, resolve_address
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.report.energy import COUNTRY_VARIABLE, EnergyMeter
from fastformers.cluster.report.tables import render_bill
from fastformers.formats.recognize import FORMATS
from fastformers.inference.engines.cuda_setup import check_cuda
from fastformers.jobs.console.arguments import (
    actor_settings,
    add_corpus_arguments,
    add_storage_arguments,
    corpus_settings,
    price_of,
    scoring_settings,
)
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import execute
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.page import write_page


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers score`."""
    parser = CommandParser(
        prog="fastformers score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "corpus",
        help=f"corpus ({', '.join(FORMATS)}), or the output of `fastformers prepare`",
    )
    add_corpus_arguments(parser, gpus=True)
    add_storage_arguments(parser)
    parser.add_argument(
        "--max-batch-tokens", type=int, help="token budget of a batch (measured on this machine)"
    )
    parser.add_argument(
        "--on-bad-row",
        choices=("dead-letter", "fail"),
        default="dead-letter",
        help="keep a row that cannot be scored as a dead letter, or fail at the first, as "
        "--max-bad-rows 0 does (%(default)s)",
    )
    parser.add_argument(
        "--energy",
        metavar="COUNTRY",
        default=os.environ.get(COUNTRY_VARIABLE),
        help="measure the kWh of this node, and CO2 by the mix of a country such as USA "
        f"({COUNTRY_VARIABLE})",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the settings, bundle and some of the files, show the plan, and score nothing",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers score`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        check_output(options.output, os.environ)
        check_address(options.address, os.environ)
        price = price_of(options)
        settings, scoring = corpus_settings(options), scoring_settings(options)
        if scoring.uses_gpus and resolve_address(options.address, os.environ).address is None:
            check_cuda()  # the nodes of a cluster are checked there
        if options.on_bad_row == "fail":
            settings = replace(settings, max_bad_rows="0")
        score_job = open_score_job(
            options.corpus,
            options.bundle,
            options.output,
            settings,
            max_batch_tokens=options.max_batch_tokens,
            engine=options.engine,
            scoring=scoring,
            storage=options.storage_options,
        )
        meter = None if options.energy is None else EnergyMeter(options.energy)
        if options.dry_run:
            return _dry_run(score_job, options, price)
        report = execute(score_job, actor_settings(options), price, meter)
        console.print(render_bill(report))
        assert score_job.output is not None
        write_page(score_job.output, report)
        return report.summarize()

    return run(job, resume="Finished shards are kept: run the same command again to go on.")


def _dry_run(
    score_job: ScoreJob, options: argparse.Namespace, price: HourlyPrice
) -> dict[str, Any]:
    check_claim(score_job)
    if holder := describe_holder(score_job):
        console.print(f"output: a run works there now, on {holder}")
    plan = describe(score_job, find_earlier_work(score_job))
    plan["cores_per_actor"] = options.cores_per_actor or "auto"
    if score_job.uses_gpus:
        console.print("GPUs: counted when the run starts, by Ray")
    if options.cores_per_actor is None:
        console.print("cores of each actor: measured when the run starts (--cores-per-actor auto)")
    elif options.address is None and not score_job.uses_gpus:
        topology = discover_topology()
        core_sets = plan_core_sets(
            topology,
            num_actors=options.num_actors,
            cores_per_actor=options.cores_per_actor,
            oversubscribe=options.oversubscribe,
        )
        console.print(describe_core_sets(core_sets, topology))
    for name, value in plan.items():
        console.print(f"{name}: {value}")
    console.print(f"price: {price.usd_per_hour:.4f} USD/h ({price.label})")
    return {"dry_run": True, **plan, "usd_per_hour": price.usd_per_hour, "price": price.label}


if __name__ == "__main__":
    sys.exit(main())
