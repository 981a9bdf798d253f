"""Say what a corpus costs before it is scored: on each instance type, and by a deadline.

fastformers cost CORPUS --bundle BUNDLE [--deadline 6h] [--budget 200] [--write-cluster DIR]
fastformers cost --calibrate --bundle BUNDLE --profile-out profiles/here.json
fastformers cost refresh --cloud azure --region eastus --output prices.csv

A sample of CORPUS is tokenized; nothing is scored or rented. A price table for --prices is
CSV with the columns cloud, region, instance_type, vcpus, physical_cores, memory_gib, gpu_name,
gpu_count, cpu, usd_per_hour_on_demand, usd_per_hour_spot, as_of (2026-07-20), source; and, if you
like, cpu_generation, clock_ghz, usd_per_hour_reserved, spot_as_of, spot_is_estimate (yes or no),
currency (USD, or another with its rate in usd_per_unit).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Unpack

from fastformers.atomic_file import check_writable
from fastformers.cluster.corpus.inputs import open_corpus_for
from fastformers.cluster.cost.audit_cost import plan_audit
from fastformers.cluster.cost.bundle_cost import (
    BundleCost,
    CostSettings,
    plan_offers,
    sample_bundle_corpus,
)
from fastformers.cluster.cost.bundle_cost import estimate_cost as cost_sample
from fastformers.cluster.cost.machine_profile import load_profiles, load_shipped_profiles
from fastformers.cluster.cost.measured.tables import show_checks
from fastformers.cluster.cost.planning.cluster_plan import plan_cluster
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.cost.planning.plan_tables import (
    describe_plans,
    explain_plans,
    render_plans,
)
from fastformers.cluster.cost.sampling import CorpusSample
from fastformers.cluster.cost.tables import (
    describe_cost,
    explain_instances,
    render_comparison,
    render_instances,
    render_workload,
)
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.launch.launch_directory import check_launch_directory, write_launch_files
from fastformers.cluster.launch.ray_cluster_file import CloudCluster
from fastformers.cluster.pricing.market import Market
from fastformers.cluster.pricing.price_lists import SOURCE_OF_CLOUD, refresh_prices, write_prices
from fastformers.cluster.pricing.prices import find_price, load_prices
from fastformers.cluster.settings import AuditSettings, CorpusSettings
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.jobs.console.arguments import add_storage_arguments, add_text_file_arguments
from fastformers.jobs.console.calibrate import check_own_cores, measure_here
from fastformers.jobs.console.command_line.idle_flags import (
    AUDIT,
    CORPUS,
    STORAGE,
    IdleRule,
    refuse_idle,
    refuse_idle_reading,
)
from fastformers.jobs.console.command_line.keywords import CostKeywords, PathLike
from fastformers.jobs.console.command_line.python_call import called, describes
from fastformers.jobs.console.command_line.quantities import duration, whole_number
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting


def _is_planned(options: argparse.Namespace) -> bool:
    return options.deadline is not None or options.budget is not None


_IDLE = (
    STORAGE,
    *AUDIT,
    IdleRule(
        (
            *CORPUS,
            *("sample", "seed", "rows", "discount", "spot", "reserved", "top", "profile"),
            *("deadline", "budget", "write_cluster", "audit", "audit_bundle"),
        ),
        lambda options: options.corpus is None,
        "without a CORPUS nothing is costed",
    ),
    IdleRule(
        ("confidence", "max_instances", "startup_s", "interruptions_per_hour"),
        lambda options: not _is_planned(options),
        "no cluster is planned; add --deadline or --budget",
    ),
    IdleRule(
        ("interruptions_per_hour",),
        lambda options: not options.spot,
        "only spot machines are interrupted; add --spot",
    ),
    IdleRule(
        ("discount",),
        lambda options: options.reserved or (options.spot and not _is_planned(options)),
        "it is off on-demand prices, and no machine is bought at one",
    ),
    IdleRule(
        ("prices",),
        lambda options: options.corpus is None and options.instance_type is None,
        "without a CORPUS or --instance-type no price is looked up",
    ),
)


def make_parser() -> CommandParser:
    """The parser of `fastformers cost`."""
    parser = CommandParser(prog="fastformers cost", description=__doc__)
    parser.add_argument("corpus", nargs="?", help="file, directory, glob or URI (none)")
    parser.add_argument_group("model").add_argument(
        "--bundle", action="append", required=True, help="bundle (or its URI); several are compared"
    )
    # A cost is of the whole corpus, or of --rows, whatever is kept beside its predictions.
    left_out = ("keep_columns", "limit", "shard_seconds")
    corpus = parser.add_argument_group("corpus")
    add_config_arguments(corpus, CorpusSettings, leave_out=left_out)
    add_text_file_arguments(parser, CorpusSettings.text_files)
    add_config_arguments(
        parser.add_argument_group("audit"), AuditSettings, leave_out=("min_agreement_percent",)
    )
    add_storage_arguments(parser)
    sample = parser.add_argument_group("sample")
    add_config_arguments(
        sample, CostSettings, leave_out=("discount_percent",), parsers={"rows": whole_number}
    )
    prices = parser.add_argument_group("prices")
    prices.add_argument(
        "--prices", type=Path, metavar="FILE", help="your own table, see above (the built-in one)"
    )
    add_config_arguments(prices, CostSettings, leave_out=("sample", "seed", "rows"))
    market = prices.add_mutually_exclusive_group()
    market.add_argument(
        "--spot", action="store_true", help="spot prices; a plan's head node stays on demand"
    )
    market.add_argument("--reserved", action="store_true", help="prices of reserved machines")
    prices.add_argument(
        "--top", type=int, default=20, help="types to show; JSON has all (%(default)s)"
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--profile",
        action="append",
        metavar="FILE",
        help="profile of a machine that was measured (--profile-out), or a directory of them; may "
        "be repeated (those that ship with the package)",
    )
    speed.add_argument("--calibrate", action="store_true", help="measure this machine")
    speed.add_argument(
        "--fit-run",
        metavar="DIR",
        help="output of a finished run on this machine, with one core an actor, to learn from "
        "(none)",
    )
    speed.add_argument(
        "--profile-out", type=Path, metavar="FILE", help="keep what was measured (none)"
    )
    speed.add_argument("--instance-type", metavar="NAME", help="type of this machine (none)")
    plan = parser.add_argument_group("plan")
    add_config_arguments(plan, PlanSettings, parsers={"deadline_s": duration})
    plan.add_argument(
        "--write-cluster",
        type=Path,
        metavar="DIR",
        help="write what `ray up` starts the planned cluster from (none)",
    )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers cost`."""
    return make_parser().parse_args(arguments)


def parse_refresh(arguments: Sequence[str]) -> argparse.Namespace:
    """Arguments of `fastformers cost refresh`."""
    parser = CommandParser(
        prog="fastformers cost refresh",
        description="Read today's prices of a region from a cloud's own price list.",
    )
    parser.add_argument(
        "--cloud", choices=tuple(SOURCE_OF_CLOUD), required=True, help="cloud whose list is read"
    )
    parser.add_argument("--region", required=True, help="region, by the cloud's own name")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="CSV to write, for --prices"
    )
    parser.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="table of the types to look up (the one that ships with the package)",
    )
    parser.add_argument("--endpoint", help="URL of a mirror of the price list (the cloud's own)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers cost` or `fastformers cost refresh`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["refresh"]:
        return _refresh(arguments[1:])
    options = parse(arguments)
    return run(lambda: _cost(options), options)


@describes(make_parser, CostKeywords)
def estimate_cost(
    corpus: PathLike,
    *,
    bundle: Bundle | PathLike,
    **settings: Unpack[CostKeywords],
) -> BundleCost:
    """Say what a corpus costs on each instance type: `fastformers cost` from Python.

    A sample of the corpus is tokenized; nothing is scored or rented.

    Args:
        corpus: File, directory, glob or URI.
        bundle: The bundle, its directory, or its URI in a bucket.
        settings: Flags of the command, by their names with underscores; `deadline` is a text such
            as "6h", or seconds.

    Returns:
        Workload in tokens and core-seconds, USD by type, the cheapest first; with a deadline or a
        budget (USD) also the clusters that keep it, the best first.

    Raises:
        InputError: A path, a column or a value cannot be used, or no cluster keeps deadline and
            budget.
        BundleError: The bundle cannot be used.
        TypeError: There is no such keyword.
    """
    options = make_parser().take({"corpus": corpus, "bundle": [str(bundle)], **settings})
    with called(options):
        (cost,) = _estimate(options)
        _write_cluster(options, cost)
        return cost


def _cost(options: argparse.Namespace) -> dict[str, Any]:
    """Estimate, show, and write what was asked for."""
    costs = _estimate(options)
    if not costs:
        return {"profile": str(options.profile_out), "instance_type": options.instance_type}
    for cost in costs:
        console.print(render_workload(cost))
        console.print(render_instances(cost, top=options.top))
        for line in explain_instances(cost, top=options.top):
            console.print(line)
        for part in show_checks(cost.experience):
            console.print(part)
    if len(costs) > 1:
        console.print(render_comparison(costs))
    others = [describe_cost(cost) for cost in costs[1:]]
    plan = None
    if costs[0].plans:
        plan_settings = _read_plan_settings(options)
        console.print(render_plans(costs[0].plans, plan_settings))
        for line in explain_plans(costs[0].plans, plan_settings):
            console.print(line)
        plan = describe_plans(costs[0].plans, plan_settings)
    _write_cluster(options, costs[0])
    corpus = str(options.corpus)
    return {"corpus": corpus, **describe_cost(costs[0]), "others": others, "plan": plan}


def _estimate(options: argparse.Namespace) -> list[BundleCost]:
    """The cost with each bundle, the first one with its plans; none where there is no corpus."""
    _check(options)
    prices = load_prices(options.prices)
    own = find_price(options.instance_type, prices) if options.instance_type else None
    market: Market = "spot" if options.spot else "reserved" if options.reserved else "on-demand"
    settings = read_config(CostSettings, options, today=date.today(), market=market)
    plan_settings = _read_plan_settings(options)
    corpus_settings = read_config(CorpusSettings, options)
    audit = read_config(AuditSettings, options)
    with waiting("reading the bundle") as on_step:
        bundles = [pin_bundle(source, options.storage_options).open() for source in options.bundle]
        audits = [plan_audit(audit, bundle, options.storage_options) for bundle in bundles]
        measured = [*bundles, *(plan.bundle for plan in audits if plan is not None)]
        known = load_profiles([Path(path) for path in options.profile or ()], measured)
        if options.calibrate:
            check_own_cores(own)
        samples = []
        if options.corpus is not None:
            on_step(f"tokenizing a sample of {options.corpus}")
            samples = [_sample(options, bundle, corpus_settings, settings) for bundle in bundles]
    shipped = [profile for profile in load_shipped_profiles() if profile not in known]
    profiles = [*measure_here(options, bundles[0], own), *known, *shipped]
    if not samples:
        return []
    costs = [
        cost_sample(bundle, sample, profiles=profiles, prices=prices, settings=settings, audit=plan)
        for bundle, sample, plan in zip(bundles, samples, audits, strict=True)
    ]
    if _is_planned(options):
        plans = plan_cluster(plan_offers(costs[0], settings), plan_settings)
        costs[0] = replace(costs[0], plans=tuple(plans))
    return costs


def _read_plan_settings(options: argparse.Namespace) -> PlanSettings:
    return read_config(PlanSettings, options, spot=options.spot, seed=options.seed)


def _check(options: argparse.Namespace) -> None:
    refuse_idle(options, _IDLE)
    has_source = options.calibrate or options.fit_run is not None
    if options.corpus is None and not (has_source and options.profile_out):
        raise InputError("give a CORPUS, or --calibrate with --profile-out")
    if options.profile_out is not None and not has_source:
        raise InputError("--profile-out: nothing is measured; add --calibrate or --fit-run")
    if options.instance_type is not None and not has_source:
        raise InputError(
            "--instance-type names what is measured here; add --calibrate or --fit-run"
        )
    if options.calibrate and options.fit_run is not None:
        raise InputError("--calibrate and --fit-run both say how fast this machine is; give one")
    if options.write_cluster is not None and options.deadline is None and options.budget is None:
        raise InputError("--write-cluster: nothing is planned; add --deadline or --budget")
    if options.write_cluster is not None:
        check_launch_directory(options.write_cluster)
        check_writable(options.write_cluster / "cluster.yaml")
    if options.profile_out is not None:
        check_writable(options.profile_out)
    if options.top < 1:
        raise InputError(f"--top {options.top}: give at least 1")


def _sample(
    options: argparse.Namespace,
    bundle: Bundle,
    corpus_settings: CorpusSettings,
    settings: CostSettings,
) -> CorpusSample:
    corpus = open_corpus_for(
        bundle, options.corpus, corpus_settings, storage=options.storage_options
    )
    refuse_idle_reading(options, {type(corpus.reader)})
    return sample_bundle_corpus(options.corpus, corpus, bundle, corpus_settings, settings)


def _write_cluster(options: argparse.Namespace, cost: BundleCost) -> None:
    """Write what the best plan is started from, where that was asked for."""
    if options.write_cluster is None:
        return
    best = cost.plans[0]
    prices = cost.instances.prices
    helper = best.offer.helper
    cluster = CloudCluster(
        worker=prices[best.offer.instance_type],
        num_workers=best.num_instances - 1,  # the head is of the same type and scores
        spot=options.spot,
        helper=None if helper is None else prices[helper.instance_type],
        num_helpers=best.num_helpers,
    )
    source = options.bundle[0]
    shipped = None if "://" in source else Path(source)  # every machine reads the bucket
    path = write_launch_files(options.write_cluster, cluster, bundle=shipped)
    console.print(f"wrote {path}; next: ray up {path}")


def _refresh(arguments: Sequence[str]) -> int:
    """Run `fastformers cost refresh`."""
    options = parse_refresh(arguments)

    def job() -> dict[str, Any]:
        check_writable(options.output)
        known = load_prices(options.prices)
        with waiting(f"reading the prices of {options.cloud}"):
            found = refresh_prices(
                known,
                cloud=options.cloud,
                region=options.region,
                today=date.today(),
                endpoint=options.endpoint,
            )
        write_prices(options.output, found)
        missing = [p.instance_type for p in known.values() if p.cloud == options.cloud]
        missing = [name for name in missing if name not in found]
        console.print(f"{len(found)} types to {options.output}")
        if missing:
            console.print(f"not listed in {options.region}: {', '.join(missing)}")
        return {"output": str(options.output), "types": len(found), "not_listed": missing}

    return run(job, options)


if __name__ == "__main__":
    sys.exit(main())
