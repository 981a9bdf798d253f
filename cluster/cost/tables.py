"""Show costs to people, as tables, and to programs, as JSON.

    instance costs -> [tables] -> tables on stderr, the last line of stdout

Every figure says where it comes from: measured, scaled and from what, a stale or estimated price,
modeled energy. Money and time are shown rounded; the JSON has them in full. This module knows
nothing of how they are computed.
"""

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fastformers.cluster.cost.bundle_cost import BundleCost
from fastformers.cluster.cost.instances import JOB_START_S, InstanceCost
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.cost.measured.tables import describe_experience
from fastformers.cluster.cost.workload import Interval
from fastformers.cluster.formatting import format_short_duration
from fastformers.cluster.pricing.hardware import GPU_RULES, SAME_GPU_ERROR
from fastformers.cluster.pricing.market import STALE_AFTER_DAYS


def describe_cost(cost: BundleCost) -> dict[str, Any]:
    """A bundle's costs as plain values."""
    quality = cost.bundle.quality
    return {
        "bundle": str(cost.bundle),
        "bundle_digest": cost.bundle.digest,
        "accuracy": None if quality is None else quality.quality,
        **cost.workload.to_json(),
        "profiles": [
            {
                "origin": profile.origin,
                "instance_type": profile.instance_type,
                "cpu_model": profile.cost.cpu_model,
                "cpu_generation": profile.cost.cpu_generation,
                "gpu_name": profile.gpu_name,
                "engine": profile.cost.engine,
                "measured_at": profile.measured_at,
            }
            for profile in cost.profiles
        ],
        **describe_experience(cost.experience),
        "audit": None if cost.audit is None else cost.audit.describe(),
        "instances": [_instance_json(instance) for instance in cost.instances.costs],
        "left_out": cost.instances.left_out,
    }


def render_workload(cost: BundleCost) -> Table:
    """Table of what the corpus holds."""
    workload, repeats = cost.workload, cost.workload.repeat_share
    table = Table(title=f"Corpus, {cost.bundle}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("rows", _interval(workload.rows))
    table.add_row("tokens", _interval(workload.tokens))
    table.add_row(
        "repeats in a shard",
        f"{100 * repeats.value:.1f}% of rows ({100 * repeats.low:.1f} to "
        f"{100 * repeats.high:.1f}); {_interval(workload.scored_tokens)} tokens scored",
    )
    table.add_row(
        "rows without text, cut",
        f"{100 * workload.bad_share:.1f}%, {100 * workload.truncated_share:.1f}%",
    )
    if workload.second_share is not None:
        share = f"{100 * workload.second_share:.1f}% of the texts, as their lengths let expect"
        table.add_row("second graph", share)
    table.add_row("lengths", _histogram(workload.histogram))
    infer = Interval(
        value=workload.infer_s.value / 3600,
        low=workload.infer_s.low / 3600,
        high=workload.infer_s.high / 3600,
    )
    table.add_row(
        "core-hours",
        f"{_interval(infer)} to infer, {workload.tokenize_s / 3600:,.2f} to tokenize, "
        f"{workload.other_s / 3600:,.2f} else, on {cost.profiles[0].cost.cpu_model}",
    )
    if cost.audit is not None:
        plan, audit_s = cost.audit.plan, cost.audit.core_s
        hours = Interval(
            value=audit_s.value / 3600, low=audit_s.low / 3600, high=audit_s.high / 3600
        )
        cheapest = cost.instances.costs[0]
        part = 100 * cheapest.audit_usd / cheapest.usd_total
        table.add_row(
            "audit",
            f"{100 * plan.share:g}% of the rows by {plan.bundle}: {_interval(hours)} core-hours "
            f"on {cost.audit.measured_on}; {part:.2g}% of the USD on "
            f"{cheapest.price.instance_type}",
        )
    table.add_row(
        "sample",
        f"{workload.sampled_rows:,} rows of {workload.sampled_windows} places; 95% intervals",
    )
    return table


def render_instances(cost: BundleCost, *, top: int) -> Table:
    """Table of the cheapest types."""
    costs = cost.instances.costs
    shown = costs[:top]
    table = Table(
        title=f"On one machine, cheapest {len(shown)} of {len(costs)} types",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in ("type", "USD/h", "USD/M", "USD", "within", "time", "kWh", "basis"):
        left = name in ("type", "basis")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for instance in shown:
        table.add_row(
            _name(instance),
            f"{instance.market_price.usd_per_hour:.3f}{_marks(instance)}",
            f"{instance.usd_per_million:.4f}",
            _short(instance.usd_total),
            _within(instance),
            format_short_duration(instance.wall_s),
            _short(instance.kwh),
            _basis(instance),
        )
    return table


def explain_instances(cost: BundleCost, *, top: int) -> list[str]:
    """Lines that explain the table: what its marks mean, and what its figures are based on."""
    shown = cost.instances.costs[:top]
    lines = []
    scaled = [i for i in shown if i.basis == "scaled" and i.pace is None]
    if scaled:
        origins = ", ".join(dict.fromkeys(i.scaled_from for i in scaled))
        factors = sorted({i.error_factor for i in scaled})
        lines.append(
            f"scaled: by cores, clock and vector extensions from {origins}; accurate to "
            f"x/÷ {' - '.join(f'{factor:.3g}' for factor in {factors[0]: 0, factors[-1]: 0})}"
        )
    lines.extend(_explain_gpus([i for i in shown if i.pace is not None], cost.experience))
    needing = [i for i in cost.instances.costs if i.needs_gpu_graph]
    if needing:
        way = "compress --precision int8,float16 makes one"
        if cost.bundle.cascade is not None:
            way = "a cascade has none: its graphs are for cores"
        lines.append(
            f"!: {len(needing)} types with GPUs come last, for they need a float16 graph, which "
            f"the bundle lacks ({way}); the cheapest is "
            f"{_name(needing[0])} at {needing[0].usd_per_million:.4f} USD per million, "
            f"x/÷ {needing[0].error_factor:.3g}"
        )
    lines.extend(_explain_several(cost.instances.costs))
    rough = [p for p in cost.profiles if p.cost.is_rough]
    if rough:
        origins = ", ".join(dict.fromkeys(f"{p.origin} on {p.cost.cpu_model}" for p in rough))
        lines.append(
            f"rough: measured on a busy machine ({origins}); measure again when it is idle "
            "(--calibrate)"
        )
    if any(i.market_price.is_stale for i in shown):
        lines.append(
            f"*: stale price, over {STALE_AFTER_DAYS} days old; see fastformers cost refresh"
        )
    if any(i.market_price.is_estimate for i in shown):
        lines.append("~: estimated price, not read from a price list")
    lines.append(
        "USD/M: per million rows; within: the sample's 95% interval and the scaling's error"
    )
    lines.append(
        f"time: on one machine that runs already, {JOB_START_S:g} s to start the job included; "
        "kWh: modeled from design power"
    )
    if cost.instances.left_out:
        reasons = dict.fromkeys(cost.instances.left_out.values())
        lines.append(f"left out: {len(cost.instances.left_out)} types ({'; '.join(reasons)})")
    return lines


def _explain_several(costs: Sequence[InstanceCost]) -> list[str]:
    """Lines about types that were measured more than once."""
    measured = [i for i in costs if i.basis == "measured"]
    several = [
        f"{i.price.instance_type} {i.num_profiles} (x/÷ {i.error_factor:.3g})"
        for i in measured
        if i.num_profiles > 1
    ]
    lines = []
    if several:
        lines.append(
            f"several profiles: {', '.join(several)}; the middle one counts, of two the slower, "
            "and what they differ by is its error"
        )
    left_out = [f"{i.num_left_out} of {i.price.instance_type}" for i in measured if i.num_left_out]
    if left_out:
        lines.append(
            f"profiles that do not count: {', '.join(left_out)}, of a busy machine or another "
            "engine than the newest profile's"
        )
    return lines


def _explain_gpus(shown: Sequence[InstanceCost], experience: Experience) -> list[str]:
    """Lines about types with GPUs."""
    lines = []
    scaled = dict.fromkeys(i.price.gpu_name for i in shown if i.basis == "scaled")
    if scaled:
        lines.append(
            f"scaled, {', '.join(map(str, scaled))}: measured on such a GPU in another machine, "
            f"x/÷ {SAME_GPU_ERROR:g}"
        )
    if any(i.basis == "scaled (published)" for i in shown):
        by_mlperf, by_peak = (
            experience.error_of(judged, is_gpu=True) for judged in GPU_RULES.values()
        )
        lines.append(
            f"published: from MLPerf 4.1's BERT-large by arithmetic (x/÷ {by_mlperf:.3g}), or the "
            f"GPU's peak (x/÷ {by_peak:.3g}); both are of int8, halved because our graph for "
            "GPUs is float16; fastformers bench-gpu --profile-out measures a GPU instead"
        )
    helpers = dict.fromkeys(i.helper.price.instance_type for i in shown if i.helper is not None)
    if helpers:
        lines.append(
            f"+N: so many {' or '.join(helpers)} tokenize for each machine with GPUs, in its USD; "
            "without a + its own cores do, which is enough or cheaper"
        )
    return lines


def render_comparison(costs: Sequence[BundleCost]) -> Table:
    """Bundles side by side, with their accuracy and cost."""
    table = Table(title="Bundles", title_justify="left")
    for name in ("bundle", "accuracy", "core-hours", "cheapest type", "USD per million", "cost"):
        table.add_column(name, justify="left" if name in ("bundle", "cheapest type") else "right")
    first = costs[0].instances.costs[0].usd_per_million
    for cost in costs:
        cheapest, quality = cost.instances.costs[0], cost.bundle.quality
        table.add_row(
            str(cost.bundle),
            "" if quality is None else f"{100 * quality.quality:.2f}%",
            f"{cost.workload.core_s / 3600:,.2f}",
            cheapest.price.instance_type,
            f"{cheapest.usd_per_million:.4f}",
            f"{cheapest.usd_per_million / first:.2f}x",
        )
    return table


def _name(cost: InstanceCost) -> str:
    """The type, and how many machines tokenize for each of it."""
    name = cost.price.instance_type
    return name if cost.helper is None else f"{name} +{_short(cost.num_helpers)}"


def _within(cost: InstanceCost) -> str:
    """How far the true cost may be from the estimate; a sample may say nothing of the least."""
    if cost.usd_low > 0:
        return f"x/÷{math.sqrt(cost.usd_high / cost.usd_low):.2f}"
    return f"0 to x{cost.usd_high / cost.usd_total:.2f}"


def _basis(cost: InstanceCost) -> str:
    basis = "published" if cost.basis == "scaled (published)" else cost.basis
    return f"{basis}!" if cost.needs_gpu_graph else basis


def _instance_json(cost: InstanceCost) -> dict[str, Any]:
    price, market = cost.price, cost.market_price
    generation = price.generation
    return {
        "instance_type": price.instance_type,
        "cloud": price.cloud,
        "region": price.region,
        "usd_per_million": cost.usd_per_million,
        "usd_total": cost.usd_total,
        "usd_low": cost.usd_low,
        "usd_high": cost.usd_high,
        "wall_s": cost.wall_s,
        "basis": cost.basis,
        "scaled_from": cost.scaled_from,
        "error_factor": cost.error_factor,
        "num_profiles": cost.num_profiles,
        "usd_per_hour": market.usd_per_hour,
        "market": market.market,
        "price_as_of": market.as_of,
        "price_is_stale": market.is_stale,
        "price_is_estimate": market.is_estimate,
        "kwh": cost.kwh,
        "energy_basis": "modelled",
        "vcpus": price.vcpus,
        "physical_cores": price.physical_cores,
        "memory_gib": price.memory_gib,
        "cpu_generation": price.cpu_generation,
        "cpu_features": list(generation.features) if generation else [],
        "gpu_name": price.gpu_name,
        "gpu_count": price.gpu_count,
        "num_actors": cost.num_actors,
        "needs_gpu_graph": cost.needs_gpu_graph,
        "helper_type": None if cost.helper is None else cost.helper.price.instance_type,
        "helpers_per_machine": cost.num_helpers,
        "audit_usd": cost.audit_usd,
    }


def _short(value: float) -> str:
    """Three significant digits, but never an exponent for large values."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _marks(cost: InstanceCost) -> str:
    return ("*" if cost.market_price.is_stale else "") + (
        "~" if cost.market_price.is_estimate else ""
    )


def _interval(interval: Interval) -> str:
    value, low, high = interval.value, interval.low, interval.high
    places = 0 if value >= 1000 else 2
    if low == high:
        return f"{value:,.{places}f}"
    return f"{value:,.{places}f} ({low:,.{places}f} to {high:,.{places}f})"


def _histogram(histogram: dict[int, float]) -> str:
    total = sum(histogram.values()) or 1.0
    return ", ".join(
        f"to {length}: {100 * rows / total:.0f}%" for length, rows in histogram.items() if rows
    )
