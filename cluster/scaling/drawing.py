"""The plots and the page of a scaling test.

    ScaleReport -> [drawing] -> scale.html

Throughput and efficiency over the number of actors: what was measured, with the slowest and fastest
turn, the laws that were fitted, and what was simulated. The look is that of the report of a run.
Needs the extra `report`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from fastformers.cluster.formatting import format_usd
from fastformers.cluster.report.page import Card, fill_page
from fastformers.cluster.report.sections import Section, SectionTable
from fastformers.cluster.report.theme import THEME, draw_legend, render_twice
from fastformers.cluster.scaling.laws import ScalingLaw
from fastformers.cluster.scaling.scale_report import SCALE_FILE, ScalePoint, ScaleReport
from fastformers.cluster.scaling.tables import (
    POINT_HEADS,
    describe_inputs,
    describe_knee,
    describe_share,
    list_checks,
    list_driver,
    list_points,
    say_doubts,
)
from fastformers.formatting import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_FILE = "scale.html"
_MEASURED, _LAW, _SIMULATED, _WEAK = THEME.series[:4]
_CURVE_POINTS = 60


def render_page(report: ScaleReport) -> str:
    """The page of a scaling test."""
    sections = [_show_throughput(report), _show_efficiency(report)]
    best = max(report.points, key=lambda point: point.rows_per_second)
    measured_at = datetime.fromisoformat(report.measured_at)
    name = format_count(best.actors, "actor")
    facts = {
        "corpus": f"{report.corpus}: {report.rows:,} rows in {report.shards:,} shards",
        "bundle": f"{report.bundle} ({report.bundle_digest[:12]}), {report.engine}",
        "price": f"{report.usd_per_hour:g} USD/h a node ({report.price})",
        "simulation": "; ".join(describe_inputs(report)),
        "driver": "; ".join(", ".join(row) for row in list_driver(report)) or "not loaded",
    }
    return fill_page(
        title=f"Scaling to {name}",
        heading=f"{name}: {best.speedup:.2f} times one",
        note=f"{measured_at:%Y-%m-%d %H:%M} UTC · {report.cpu_model} · {report.corpus}",
        cards=_cards(report),
        warnings=say_doubts(report),
        sections=sections,
        facts=facts,
        source=SCALE_FILE,
    )


def _cards(report: ScaleReport) -> list[Card]:
    best = max(report.points, key=lambda point: point.rows_per_second)
    cheapest = report.cheapest
    usd, unit = format_usd(cheapest.usd_per_million).split()
    cards = [
        Card(
            name="Speed",
            value=f"{best.rows_per_second:,.0f}",
            unit="rows/s",
            note=f"{format_count(best.actors, 'actor')}, {format_count(best.nodes, 'node')}",
        ),
        Card(
            name="Efficiency",
            value=f"{100 * best.efficiency:.1f}",
            unit="%",
            note=f"{best.speedup:.2f} times one actor",
        ),
        Card(
            name="A million rows",
            value=usd,
            unit=unit,
            note=f"cheapest: {format_count(cheapest.actors, 'actor')}",
        ),
    ]
    if report.serial_share is not None:
        cards.append(
            Card(
                name="Serial share",
                value=f"{100 * report.serial_share.value:.2f}",
                unit="%",
                note=describe_share(report),
            )
        )
    cards.append(Card(name="Knee", value=_knee(report), unit="actors", note=describe_knee(report)))
    if report.simulated:
        last = report.simulated[-1]
        cards.append(
            Card(
                name=f"Simulated, {format_count(last.actors, 'actor')}",
                value=f"{100 * last.efficiency:.1f}",
                unit="%",
                note=f"{last.rows_per_second:,.0f} rows/s on {format_count(last.nodes, 'node')}",
            )
        )
    return cards


def _knee(report: ScaleReport) -> str:
    law = report.universal_law
    return "none" if law is None or law.knee is None else f"{law.knee:,.0f}"


def _show_throughput(report: ScaleReport) -> Section:
    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        _draw_points(axes, report, lambda point: point.rows_per_second)
        _draw_laws(axes, report, lambda actors, rate: rate)
        _mark_cheapest(axes, report, lambda point: point.rows_per_second)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:,.0f}")
        axes.set_ylabel("rows/s")
        _finish(axes, figure, is_wide)

    num_points = len(report.points) + len(report.simulated)
    checks = "; ".join(
        f"{kind}, {actors}: {measured} measured, {simulated} simulated ({error})"
        for kind, actors, measured, simulated, error in list_checks(report)
    )
    return Section(
        heading="Throughput",
        caption="Rows a second from when all actors were up: medians, with the slowest and the "
        f"fastest of {format_count(report.repeats, 'turn')}. The simulation beside what was "
        f"measured, in seconds: {checks}.",
        svg=render_twice(
            draw, "throughput", f"Rows per second of {num_points} numbers of actors", (340, 360)
        ),
        table=SectionTable(heads=POINT_HEADS, rows=list_points(report)),
    )


def _show_efficiency(report: ScaleReport) -> Section:
    base = _rate_of_one(report)

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        _draw_points(axes, report, lambda point: 100 * point.efficiency)
        _draw_laws(axes, report, lambda actors, rate: 100 * rate / actors / base)
        _mark_cheapest(axes, report, lambda point: 100 * point.efficiency)
        axes.set_ylim(0, None)
        axes.set_ylabel("efficiency, %")
        _finish(axes, figure, is_wide)

    rows = [
        [kind, f"{point.actors:,}", f"{point.speedup:,.2f}", f"{100 * point.efficiency:.1f}%"]
        for kind, point in [
            *((point.kind, point) for point in report.points),
            *(("simulated", point) for point in report.simulated),
        ]
    ]
    limits = f" What limits the largest: {report.limits}." if report.limits else ""
    return Section(
        heading="Efficiency",
        caption=f"Speed-up over the number of actors.{limits}",
        svg=render_twice(draw, "efficiency", "Efficiency over the number of actors", (300, 320)),
        table=SectionTable(heads=["", "actors", "speed-up", "efficiency"], rows=rows),
    )


def _draw_points(axes: "Axes", report: ScaleReport, value: Callable[[ScalePoint], float]) -> None:
    """Measured points with their whiskers, and the simulated curve."""
    for kind, color, marker in (("strong", _MEASURED, "o"), ("weak", _WEAK, "D")):
        points = [point for point in report.points if point.kind == kind]
        if not points:
            continue
        values = np.array([value(point) for point in points])
        rates = np.array([point.rows_per_second for point in points])
        lows = np.array([point.rows_per_second_low for point in points])
        highs = np.array([point.rows_per_second_high for point in points])
        axes.errorbar(
            [point.actors for point in points],
            values,
            yerr=[values * (1 - lows / rates), values * (highs / rates - 1)],
            color=color,
            marker=marker,
            markersize=5,
            linestyle="none",
            capsize=3,
            label=f"measured, {kind}",
        )
    if report.simulated:
        axes.plot(
            [point.actors for point in report.simulated],
            [value(point) for point in report.simulated],
            color=_SIMULATED,
            marker=".",
            linewidth=1.5,
            label="simulated",
        )


def _draw_laws(axes: "Axes", report: ScaleReport, value: Callable[[float, float], float]) -> None:
    """Both laws, through the rate of one actor, to twice the number that was measured.

    Args:
        axes: Where to draw.
        report: The scaling test.
        value: Function that makes the height of an actor count and its rate.
    """
    laws = []
    base = _rate_of_one(report)
    if report.serial_share is not None:
        laws.append(("Amdahl", "--", ScalingLaw(base=base, contention=report.serial_share.value)))
    law = report.universal_law
    if law is not None:
        fitted = ScalingLaw(base=base, contention=law.sigma.value, coordination=law.kappa.value)
        laws.append(("universal law", ":", fitted))
    largest = 2.0 * max(point.actors for point in report.points)
    if law is not None and law.knee is not None:
        largest = max(largest, min(law.knee, max([p.actors for p in report.simulated] or [0])))
    actors = np.geomspace(1, largest, _CURVE_POINTS)
    for label, style, fitted in laws:
        heights = [value(number, fitted.rate(number)) for number in actors]
        axes.plot(actors, heights, color=_LAW, linestyle=style, linewidth=1.5, label=label)
    if law is not None and law.knee is not None and law.knee <= largest:
        axes.axvline(law.knee, color=THEME.muted, linewidth=1, label="knee")


def _mark_cheapest(axes: "Axes", report: ScaleReport, value: Callable[[ScalePoint], float]) -> None:
    axes.scatter(
        [report.cheapest.actors],
        [value(report.cheapest)],
        color=_MEASURED,
        marker="*",
        s=190,
        zorder=3,
        label="cheapest",
    )


def _finish(axes: "Axes", figure: "Figure", is_wide: bool) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
    axes.set_xlabel("actors")
    axes.grid(True)
    draw_legend(figure, is_wide)


def _rate_of_one(report: ScaleReport) -> float:
    return next(point.rows_per_second for point in report.points if point.actors == 1)
