"""A scaling test as tables in a terminal, and as the texts that its page shows, too.

    ScaleReport -> [tables] -> stderr, page

This module shows what the report says, and works nothing out.
"""

from rich.console import Group
from rich.table import Table

from fastformers.cluster.formatting import format_usd
from fastformers.cluster.scaling.laws import Estimate
from fastformers.cluster.scaling.scale_report import ScaleReport
from fastformers.formatting import format_count

POINT_HEADS = (*("", "actors", "nodes", "rows/s", "of job", "speed-up", "efficient", "USD/1M"),)


def render_scaling(report: ScaleReport) -> Group:
    """The points, the laws, the check of the simulation, and what the driver carries."""
    tables = [
        _table("Scaling", POINT_HEADS, list_points(report)),
        _table("Laws", ("", ""), _list_laws(report), show_header=False),
    ]
    heads = ("", "actors", "measured", "simulated", "error")
    if report.checked:
        tables.append(_table("Simulation beside what was measured", heads, list_checks(report)))
    driver_heads = ("slots", "nodes", "shards/s", "driver a shard", "a call", "an empty one")
    if report.driver:
        tables.append(_table("Driver, when nothing is scored", driver_heads, list_driver(report)))
    return Group(*tables, *say_doubts(report))


def list_points(report: ScaleReport) -> list[list[str]]:
    """A row of `POINT_HEADS` for each measured and each simulated point."""
    points = [
        *((point.kind, point) for point in report.points),
        *(("simulated", point) for point in report.simulated),
    ]
    return [
        [
            kind,
            f"{point.actors:,}",
            f"{point.nodes:,}",
            f"{point.rows_per_second:,.0f}",
            f"{point.job_rows_per_second:,.0f}",
            f"{point.speedup:,.2f}",
            f"{100 * point.efficiency:.1f}%",
            format_usd(point.usd_per_million).removesuffix(" USD")
            + " *" * (point == report.cheapest),
        ]
        for kind, point in points
    ]


def list_checks(report: ScaleReport) -> list[list[str]]:
    """Measured points beside their simulation, in seconds."""
    return [
        [
            point.kind,
            f"{point.actors:,}",
            f"{point.measured_s:,.1f} s",
            f"{point.simulated_s:,.1f} s",
            f"{100 * point.error:+.1f}%",
        ]
        for point in report.checked
    ]


def list_driver(report: ScaleReport) -> list[list[str]]:
    """What the driver carries, one row for each load test."""
    return [
        [
            f"{load.slots:,} {'Ray actors' if load.are_actors else 'in this process'}",
            format_count(load.nodes, "node"),
            f"{load.shards_per_second:,.0f}",
            f"{load.us_per_shard:,.0f} us",
            f"{load.ms_per_lease:,.2f} ms",
            "" if load.ms_per_empty_lease is None else f"{load.ms_per_empty_lease:,.2f} ms",
        ]
        for load in report.driver
    ]


def say_doubts(report: ScaleReport) -> list[str]:
    """Lines that a reader must not miss."""
    doubts = []
    if not report.is_believed:
        worst = max(report.checked, key=lambda point: abs(point.error))
        doubts.append(
            f"Do not believe the simulation: of {format_count(worst.actors, 'actor')} "
            f"({worst.kind}) it is {100 * worst.error:+.1f}% off what was measured."
        )
    if report.limits is not None:
        doubts.append(
            f"{format_count(report.simulated[-1].actors, 'actor')} work less than 90% of their "
            f"time. What limits them most is {report.limits}."
        )
    if report.serial_share is not None and report.universal_law is None:
        doubts.append(
            "Two numbers of actors cannot tell contention from coordination: the universal "
            "scalability law needs a third."
        )
    return doubts


def describe_share(report: ScaleReport) -> str:
    """Interval of the serial share."""
    share = report.serial_share
    if share is None:
        return "not fitted"
    return f"95% within {_interval(share)}" if report.repeats > 1 else _interval(share)


def describe_knee(report: ScaleReport) -> str:
    """Where throughput is highest, by the universal law."""
    law = report.universal_law
    if law is None:
        return "needs three numbers of actors"
    if law.knee is None:
        return "more actors always bring more"
    return "the most throughput, by the universal law"


def describe_inputs(report: ScaleReport) -> list[str]:
    """What the simulation was given."""
    inputs = report.inputs
    low, middle, high = inputs.seconds_over_predicted
    lines = [
        f"seconds of a shard over predicted ones {low:.2f} to {high:.2f}, median {middle:.2f}",
        f"an actor works after {inputs.actor_startup_s:.1f} s",
        f"{inputs.failures_per_hour:g} deaths of an actor per hour",
    ]
    if report.simulated:
        lines += [
            f"{inputs.shards:,} shards of {inputs.shard_seconds:g} s",
            f"{inputs.interruptions_per_hour:g} interruptions of a node per hour (assumed)",
            *inputs.assumptions,
        ]
    return lines


def _list_laws(report: ScaleReport) -> list[list[str]]:
    rows = []
    if report.serial_share is not None:
        share = report.serial_share
        rows.append(["serial share (Amdahl)", f"{100 * share.value:.2f}% ({_interval(share)})"])
    law = report.universal_law
    if law is not None:
        rows += [
            ["contention (sigma)", f"{100 * law.sigma.value:.3f}% ({_interval(law.sigma)})"],
            ["coordination (kappa)", f"{100 * law.kappa.value:.4f}% ({_interval(law.kappa)})"],
        ]
    knee = "" if law is None or law.knee is None else f"{law.knee:,.0f} actors: "
    cheapest = report.cheapest
    return [
        *rows,
        ["knee", f"{knee}{describe_knee(report)}"],
        [
            "cheapest (*)",
            f"{format_count(cheapest.actors, 'actor')} on {format_count(cheapest.nodes, 'node')}, "
            f"{format_usd(cheapest.usd_per_million)} a million rows",
        ],
        ["price", f"{report.usd_per_hour:.4f} USD/h a node ({report.price})"],
    ]


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "of one turn, so without an interval"
    return f"{100 * estimate.low:.3g} to {100 * estimate.high:.3g}%"


def _table(
    title: str, heads: tuple[str, ...], rows: list[list[str]], *, show_header: bool = True
) -> Table:
    table = Table(title=title, title_justify="left", show_header=show_header)
    for place, head in enumerate(heads):
        is_text = place == 0 or not show_header
        table.add_column(
            head, style="bold" if place == 0 else None, justify="left" if is_text else "right"
        )
    for row in rows:
        table.add_row(*row)
    return table
