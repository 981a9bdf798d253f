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
import re
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from fastformers.cluster.cost.bundle_cost import (
    BundleCost,
    CostSettings,
    estimate_cost,
    open_sample,
    plan_offers,
)
from fastformers.cluster.cost.cluster_plan import PlanSettings, plan_cluster
from fastformers.cluster.cost.machine_profile import (
    MachineProfile,
    fit_to_run,
    load_profiles,
    write_profile,
)
from fastformers.cluster.cost.tables import (
    describe_cost,
    describe_plans,
    explain_instances,
    explain_plans,
    render_comparison,
    render_instances,
    render_plans,
    render_workload,
)
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.launch.launch_directory import check_launch_directory, write_launch_files
from fastformers.cluster.launch.ray_cluster_file import CloudCluster
from fastformers.cluster.pricing.market import Market
from fastformers.cluster.pricing.price_lists import SOURCE_OF_CLOUD, refresh_prices, write_prices
from fastformers.cluster.pricing.prices import InstancePrice, find_price, load_prices
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.jobs.console.arguments import add_storage_arguments
from fastformers.jobs.console.calibrate import calibrate, check_own_type
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run

_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_DURATION = re.compile(
    rf"(?:(?P<d>{_NUMBER})d)?(?:(?P<h>{_NUMBER})h)?(?:(?P<m>{_NUMBER})m(?:in)?)?(?:(?P<s>{_NUMBER})s)?",
    re.ASCII,
)
_SECONDS_OF_UNIT = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers cost`."""
    parser = CommandParser(
        prog="fastformers cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", nargs="?", help="file, directory, glob or URI")
    parser.add_argument(
        "--bundle", action="append", required=True, help="bundle (or its URI); several are compared"
    )
    add_storage_arguments(parser)
    sample = parser.add_argument_group("sample")
    # A cost is of the whole corpus, or of --rows, whatever is kept beside its predictions.
    left_out = ("keep_columns", "limit", "shard_seconds")
    add_config_arguments(sample, CorpusSettings, leave_out=left_out)
    add_config_arguments(sample, CorpusSettings.text_files)
    add_config_arguments(
        sample, CostSettings, leave_out=("discount_percent",), parsers={"rows": _whole}
    )
    prices = parser.add_argument_group("prices")
    prices.add_argument("--prices", type=Path, metavar="FILE", help="your own table, see above")
    add_config_arguments(prices, CostSettings, leave_out=("sample", "seed", "rows"))
    market = prices.add_mutually_exclusive_group()
    market.add_argument(
        "--spot", action="store_true", help="spot prices; a plan's head node stays on demand"
    )
    market.add_argument("--reserved", action="store_true", help="prices of reserved machines")
    prices.add_argument(
        "--top", type=int, default=20, help="types to show (%(default)s); JSON has all"
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--profiles", type=Path, metavar="DIR", help="profiles of machines measured before"
    )
    speed.add_argument("--calibrate", action="store_true", help="measure this machine")
    speed.add_argument(
        "--fit-run",
        metavar="OUTPUT",
        help="output of a finished run on this machine, to learn from",
    )
    speed.add_argument("--profile-out", type=Path, metavar="FILE", help="keep what was measured")
    speed.add_argument("--instance-type", help="the cloud's name of this machine, if it has one")
    plan = parser.add_argument_group("plan")
    add_config_arguments(plan, PlanSettings, parsers={"deadline_s": _duration})
    plan.add_argument(
        "--write-cluster",
        type=Path,
        metavar="DIR",
        help="write what `ray up` starts the planned cluster from",
    )
    return parser.parse_args(arguments)


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
    parser.add_argument("--output", type=Path, required=True, help="CSV to write, for --prices")
    parser.add_argument(
        "--prices",
        type=Path,
        help="table of the types to look up (the one that ships with the package)",
    )
    parser.add_argument("--endpoint", help="URL of the price list, if a mirror serves it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers cost` or `fastformers cost refresh`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["refresh"]:
        return _refresh(arguments[1:])
    options = parse(arguments)
    return run(lambda: _cost(options))


def _cost(options: argparse.Namespace) -> dict[str, Any]:
    _check(options)
    prices = load_prices(options.prices)
    own = find_price(options.instance_type, prices) if options.instance_type else None
    bundles = [pin_bundle(source, options.storage_options).open() for source in options.bundle]
    measured = _measure(options, bundles[0], own)
    if options.corpus is None:
        return {"profile": str(options.profile_out), "instance_type": options.instance_type}
    profiles = [*measured, *(load_profiles(options.profiles, bundles) if options.profiles else [])]
    market: Market = "spot" if options.spot else "reserved" if options.reserved else "on-demand"
    settings = read_config(CostSettings, options, today=date.today(), market=market)
    plan_settings = read_config(PlanSettings, options, spot=options.spot)
    costs = [_cost_of(options, bundle, profiles, prices, settings) for bundle in bundles]
    if len(costs) > 1:
        console.print(render_comparison(costs))
    first = describe_cost(costs[0])
    others = [describe_cost(cost) for cost in costs[1:]]
    is_planned = options.deadline is not None or options.budget is not None
    plan = _plan(options, costs[0], prices, settings, plan_settings) if is_planned else None
    return {**first, "others": others, "plan": plan}


def _check(options: argparse.Namespace) -> None:
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
    if options.top < 1:
        raise InputError(f"--top {options.top}: give at least 1")


def _measure(
    options: argparse.Namespace, bundle: Bundle, own: InstancePrice | None
) -> list[MachineProfile]:
    if options.calibrate:
        profile = calibrate(bundle, options.instance_type)
    elif options.fit_run is not None:
        output = open_directory(options.fit_run, options.storage_options)
        path = f"{output}/{REPORT_FILE}"
        report = RunReport.from_json(
            output.read_json(REPORT_FILE),
            path=path,
            remedy="give --fit-run the --output of a score by this version",
        )
        profile = fit_to_run(bundle, report, path=path, instance_type=options.instance_type)
    else:
        return []
    check_own_type(profile, own)
    if options.profile_out is not None:
        write_profile(options.profile_out, profile)
    return [profile]


def _cost_of(
    options: argparse.Namespace,
    bundle: Bundle,
    profiles: Sequence[MachineProfile],
    prices: dict[str, InstancePrice],
    settings: CostSettings,
) -> BundleCost:
    corpus_settings = read_config(CorpusSettings, options)
    sample = open_sample(
        options.corpus, bundle, corpus_settings, settings, storage=options.storage_options
    )
    cost = estimate_cost(bundle, sample, profiles=profiles, prices=prices, settings=settings)
    if not cost.instances.costs:
        reasons = "; ".join(dict.fromkeys(cost.instances.left_out.values()))
        raise InputError(f"no instance type of the price table can be costed: {reasons}")
    console.print(render_workload(cost))
    console.print(render_instances(cost, top=options.top))
    for line in explain_instances(cost, top=options.top):
        console.print(line)
    return cost


def _plan(
    options: argparse.Namespace,
    cost: BundleCost,
    prices: dict[str, InstancePrice],
    settings: CostSettings,
    plan_settings: PlanSettings,
) -> dict[str, Any]:
    plans = plan_cluster(plan_offers(cost, settings), plan_settings)
    console.print(render_plans(plans, plan_settings))
    for line in explain_plans(plans, plan_settings):
        console.print(line)
    if options.write_cluster is not None:
        helper = plans[0].offer.helper
        cluster = CloudCluster(
            worker=prices[plans[0].offer.instance_type],
            num_workers=plans[0].num_instances - 1,  # the head is of the same type and scores
            spot=plan_settings.spot,
            helper=None if helper is None else prices[helper.instance_type],
            num_helpers=plans[0].num_helpers,
        )
        source = options.bundle[0]
        shipped = None if "://" in source else Path(source)  # every machine reads the bucket
        path = write_launch_files(options.write_cluster, cluster, bundle=shipped)
        console.print(f"wrote {path}; next: ray up {path}")
    return describe_plans(plans, plan_settings)


def _refresh(arguments: Sequence[str]) -> int:
    """Run `fastformers cost refresh`."""
    options = parse_refresh(arguments)

    def job() -> dict[str, Any]:
        known = load_prices(options.prices)
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

    return run(job)


def _whole(text: str) -> int:
    """A whole number that may be written as 1e9."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)


def _duration(text: str) -> float:
    """Seconds of 45s, 90m, 90min, 1.5h, 2d or 1h30m: each unit once, from days to seconds."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write 90m, 6h, 2d or 1h30m, always with the unit"
        )
    parts = match.groupdict(default="0")
    return sum(float(parts[unit]) * seconds for unit, seconds in _SECONDS_OF_UNIT.items())


if __name__ == "__main__":
    sys.exit(main())
