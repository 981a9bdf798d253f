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
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Unpack

# `ray submit` copies this file alone to the head.
if getattr(find_spec("fastformers"), "origin", None) is None:
    print(
        f"error: fastformers is not installed for {sys.executable}; start the cluster from the "
        "files of fastformers launch, or install its wheel on every node",
        file=sys.stderr,
    )
    sys.exit(2)

from fastformers.cluster.execution.claim import check_unheld
from fastformers.cluster.execution.job import ScoreJob, describe, open_score_job
from fastformers.cluster.execution.journal import find_earlier_work
from fastformers.cluster.execution.topology import describe_core_sets, discover_topology
from fastformers.cluster.nodes.addresses import check_address, check_output
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.records.quotes import EarlyQuote
from fastformers.cluster.report.energy import COUNTRY_VARIABLE, EnergyMeter
from fastformers.cluster.report.forecasts.early_quote import read_early_quote
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.settings import AuditSettings, PredictionSettings
from fastformers.formats.recognize import FORMATS
from fastformers.inference.bundle import Bundle
from fastformers.jobs.console.arguments import (
    actor_settings,
    add_corpus_arguments,
    add_storage_arguments,
    corpus_settings,
    price_of,
    scoring_settings,
)
from fastformers.jobs.console.command_line.idle_flags import (
    ACTORS,
    AUDIT,
    OWN_MACHINE,
    STORAGE,
    IdleRule,
    refuse_idle,
    refuse_idle_reading,
)
from fastformers.jobs.console.command_line.keywords import PathLike, ScoreKeywords
from fastformers.jobs.console.command_line.python_call import called, describes
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import (
    check_run,
    describe_cluster,
    execute_and_show,
    plan_actors,
)
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting

_IDLE = (
    STORAGE,
    ACTORS,
    OWN_MACHINE,
    IdleRule(
        ("actors_per_gpu",),
        lambda options: options.device == "cpu",
        "no actor is on a GPU; give --device cuda or mixed",
    ),
    IdleRule(
        ("engine",),
        lambda options: options.device == "cuda",
        "it is the engine of actors on cores, and with --device cuda they only tokenize",
    ),
    IdleRule(
        ("max_bad_rows",),
        lambda options: options.on_bad_row == "fail",
        "--on-bad-row fail ends the run at the first bad row",
    ),
    *AUDIT,
    IdleRule(
        ("audit_min_agreement",),
        lambda options: options.audit is None,
        "no row is audited; add --audit and --audit-bundle",
    ),
)


def make_parser() -> CommandParser:
    """The parser of `fastformers score`."""
    parser = CommandParser(
        prog="fastformers score",
        description=__doc__,
    )
    parser.add_argument(
        "corpus",
        help=f"corpus ({', '.join(FORMATS)}), or the output of `fastformers prepare`",
    )
    add_corpus_arguments(parser, gpus=True)
    add_config_arguments(parser.add_argument_group("predictions"), PredictionSettings)
    add_config_arguments(parser.add_argument_group("audit"), AuditSettings)
    add_storage_arguments(parser)
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--max-batch-tokens",
        type=int,
        metavar="TOKENS",
        help="token budget of a batch (what is fastest on this machine)",
    )
    scoring.add_argument(
        "--on-bad-row",
        choices=("dead-letter", "fail"),
        default="dead-letter",
        help="keep a row that cannot be scored as a dead letter, or fail at the first, as "
        "--max-bad-rows 0 does (%(default)s)",
    )
    scoring.add_argument(
        "--energy",
        metavar="COUNTRY",
        default=os.environ.get(COUNTRY_VARIABLE),
        help="measure the kWh of this node, and CO2 by the mix of a country such as USA "
        f"({COUNTRY_VARIABLE})",
    )
    scoring.add_argument(
        "--quote",
        metavar="FILE",
        help="what fastformers cost printed last for this job: it stands beside the bill (none)",
    )
    scoring.add_argument(
        "--dry-run",
        action="store_true",
        help="check all that the run checks before it begins to work, show the plan, and stop",
    )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers score`."""
    return make_parser().parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers score`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        if options.dry_run:
            return _dry_run(options)
        return _score(options).summarize()

    return run(
        job, options, resume="Finished shards are kept: run the same command again to go on."
    )


@describes(make_parser, ScoreKeywords)
def score(
    corpus: PathLike,
    *,
    bundle: Bundle | PathLike,
    output: PathLike,
    **settings: Unpack[ScoreKeywords],
) -> RunReport:
    """Score a corpus, or shards that were prepared from one: `fastformers score` from Python.

    Progress and the bill are shown on stderr. Called again after an interruption, it goes on where
    it stopped; after a finished run it only returns the report.

    Args:
        corpus: File, directory, glob or URI; or the output of `fastformers prepare`.
        bundle: The bundle, its directory, or its URI in a bucket.
        output: Directory or URI to write the predictions to.
        settings: Flags of the command, by their names with underscores.

    Returns:
        The report, which is also in the output: rows, seconds by phase, USD, and who worked.

    Raises:
        InputError: A path, a column or a value cannot be used.
        BundleError: The bundle cannot be used.
        ChangedWorkError: The output holds the work of other settings.
        ClaimedError: Another run works in the output.
        StorageError: The disk or the bucket refused.
        ScoringError: More rows were bad than `max_bad_rows` allows.
        AuditError: The predictions agree less with `audit_bundle` than `audit_min_agreement` bears;
            they are kept.
        TypeError: There is no such keyword.
    """
    places = {"corpus": corpus, "bundle": str(bundle), "output": output}
    options = make_parser().take({**places, **settings})
    with called(options):
        return _score(options)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What a run works with, all of it checked."""

    job: ScoreJob
    price: HourlyPrice
    meter: EnergyMeter | None
    early: EarlyQuote | None


def _open(options: argparse.Namespace) -> _Opened:
    """Check all that can be refused before a run, and open its job."""
    refuse_idle(options, _IDLE)
    check_output(options.output, os.environ)
    check_address(options.address, os.environ)
    price = price_of(options)
    actor_settings(options)
    settings = corpus_settings(options)
    meter = None if options.energy is None else EnergyMeter(options.energy)
    if options.on_bad_row == "fail":
        settings = replace(settings, max_bad_rows="0")
    with waiting("checking the settings") as on_step:
        score_job = open_score_job(
            options.corpus,
            options.bundle,
            options.output,
            settings,
            max_batch_tokens=options.max_batch_tokens,
            written=read_config(PredictionSettings, options),
            engine=options.engine,
            scoring=scoring_settings(options),
            audit=read_config(AuditSettings, options),
            storage=options.storage_options,
            asked=options.settings,
            on_step=on_step,
        )
    corpus = score_job.corpus
    refuse_idle_reading(options, set() if corpus is None else {type(corpus.reader)})
    early = None
    if options.quote is not None:
        digests = {score_job.bundle.digest, score_job.pinned.open().digest}
        early = read_early_quote(
            options.quote,
            digests,
            options.instance_type,
            corpus=str(options.corpus),
            log=console.print,
        )
    return _Opened(job=score_job, price=price, meter=meter, early=early)


def _score(options: argparse.Namespace) -> RunReport:
    """Run the job and show its bill; a finished one is only shown."""
    opened = _open(options)
    return execute_and_show(
        opened.job, actor_settings(options), opened.price, opened.meter, opened.early
    )


def _dry_run(options: argparse.Namespace) -> dict[str, Any]:
    """Check all that a run checks, and say what it would do."""
    opened = _open(options)
    score_job, price = opened.job, opened.price
    actors = actor_settings(options)
    cluster = check_run(score_job, actors)
    check_unheld(score_job, log=console.print)
    plan = describe(score_job, find_earlier_work(score_job))
    plan["cores_per_actor"] = actors.cores_per_actor or "auto"
    if cluster.address is not None:
        plan["cluster"] = describe_cluster(actors.address)
    elif score_job.uses_gpus:
        console.print("GPUs, and the cores of actors: counted when the run starts")
    elif actors.cores_per_actor is None:
        console.print("cores of each actor: measured when the run starts (--cores-per-actor auto)")
    else:
        core_sets = plan_actors(actors)
        console.print(describe_core_sets(core_sets, discover_topology()))
    for name, value in plan.items():
        console.print(f"{name}: {value}")
    console.print(f"price: {price.usd_per_hour:.4f} USD/h ({price})")
    return {"dry_run": True, **plan, "usd_per_hour": price.usd_per_hour, "price": str(price)}


if __name__ == "__main__":
    sys.exit(main())
