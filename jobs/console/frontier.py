"""Show what a search found: table, page and picture of quality over cost, and its numbers.

    candidates, price of this machine -> [frontier] -> console, page, picture, JSON

This module knows nothing of how a search decides.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fastformers.atomic_file import check_writable, whole_file
from fastformers.cluster.execution.topology import discover_topology
from fastformers.cluster.formatting import format_clock, format_long_duration
from fastformers.cluster.pricing.prices import HourlyPrice, usd_of
from fastformers.cluster.report.frontier.plot import save_frontier
from fastformers.cluster.report.frontier.points import (
    FrontierPoint,
    frontier_heads,
    frontier_rows,
)
from fastformers.cluster.report.page import can_draw, render_search_page
from fastformers.figure import check_picture
from fastformers.installation import how_to_install
from fastformers.jobs.console.arguments import add_price_arguments, price_of
from fastformers.jobs.console.output import console

if TYPE_CHECKING:
    from fastformers.compression.compress import Compressed
    from fastformers.compression.search.candidate import RecipeCandidate
    from fastformers.compression.search.run_search import LeftOut, SearchProgress

# Flags that say what a search shows.
FRONTIER_FLAGS = ("plot", "usd_per_hour", "instance_type")


@dataclass(frozen=True, kw_only=True)
class FrontierSettings:
    """What the frontier of a search is shown with.

    Attributes:
        price: Price of this machine for an hour.
        num_cores: Cores that are paid for by it.
        plot: File to draw the frontier to; None for the page alone.
    """

    price: HourlyPrice
    num_cores: int
    plot: Path | None


def add_frontier_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the price of a machine, and of the picture."""
    add_price_arguments(parser, machine="this machine, for the frontier of a search")
    parser.add_argument_group("picture").add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the frontier of a search to an .svg or .png file, too (none)",
    )


def read_frontier_settings(options: argparse.Namespace) -> FrontierSettings:
    """Check the price and the picture, before the work that they are for.

    Raises:
        InputError: The price or the file cannot be used.
        ModuleNotFoundError: A picture is asked for, and matplotlib is not installed.
    """
    if options.plot is not None:
        check_picture(options.plot, "--plot")
        check_writable(options.plot)
    return FrontierSettings(
        price=price_of(options),
        num_cores=discover_topology().num_usable_cores,
        plot=options.plot,
    )


class SearchClock:
    """Says how far a whole search is, beside the progress of what it does now."""

    def __init__(self) -> None:
        """Begin before the first candidate."""
        self._told: SearchProgress | None = None
        self._told_at_s = 0.0

    def tell(self, progress: "SearchProgress") -> None:
        """Take how far the search is."""
        self._told, self._told_at_s = progress, time.monotonic()

    def remarks(self) -> list[str]:
        """How far it is, in a line; none before the first candidate."""
        told = self._told
        if told is None:
            return []
        left_s = max(0.0, told.expected_s - (time.monotonic() - self._told_at_s))
        return [
            f"search: {told.name}; {told.num_tried} measured, at most {told.num_expected} to go, "
            f"ETA {format_clock(left_s)}"
        ]


def show_candidate(candidate: "RecipeCandidate", max_accuracy_drop: float) -> None:
    """A line for a candidate as it is measured on the rows that choose."""
    quality, certainty = candidate.quality, candidate.certainty
    low, high = certainty.drop_interval
    doubt = certainty.is_within_noise_of_drop(max_accuracy_drop)
    console.print(
        f"{candidate.name}: {quality.metric} {100 * quality.quality:.2f} on the "
        f"{quality.num_rows:,} rows that choose, points lost "
        f"{candidate.drop:.2f} ({low:.2f} to {high:.2f}), "
        f"{candidate.seconds_per_million:,.0f} core-seconds a million rows, "
        f"{'holds' if candidate.passes else 'loses too much'}"
        + (", within noise of the limit" if doubt else "")
    )


def describe_certainty(one: "RecipeCandidate", max_accuracy_drop: float) -> str:
    """A line that says how sure the loss of a bundle is."""
    quality, certainty = one.quality, one.certainty
    low, high = certainty.drop_interval
    doubts = {
        "the teacher": certainty.is_within_noise_of_teacher,
        f"the limit of {max_accuracy_drop:g}": certainty.is_within_noise_of_drop(max_accuracy_drop),
    }
    names = [name for name, is_within in doubts.items() if is_within]
    return (
        f"{quality.stage}: {one.drop:.2f} points below the teacher (95% interval {low:.2f} to "
        f"{high:.2f}, {quality.num_rows:,} evaluation rows, which chose nothing)"
        + (f": within noise of {' and '.join(names)}" if names else "")
    )


def show_frontier(
    result: "Compressed", settings: FrontierSettings, max_accuracy_drop: float
) -> dict[str, Any]:
    """Show what a search found: table, notes, page and picture.

    Returns:
        The numbers, for the summary.
    """
    points = make_points(result, settings, max_accuracy_drop)
    metric = result.bundle.metric
    console.print(frontier_table(points, metric))
    rows = describe_rows(result)
    console.print(rows, markup=False)
    for left in result.left_out:
        console.print(describe_left_out(left), markup=False)
    heading = f"{len(points)} recipes for {result.bundle.path.name}"
    if settings.plot is not None:
        save_frontier(points, settings.plot, metric=metric, title=heading)
        console.print(f"picture: {settings.plot}")
    page = write_search_page(
        points,
        result.bundle.path,
        metric=metric,
        heading=heading,
        note=f"{rows} Price: {settings.price.label}.",
    )
    return {
        "candidates": [point.to_json() for point in points],
        "left_out": [vars(left) for left in result.left_out],
        "usd_per_hour": settings.price.usd_per_hour,
        "price": settings.price.label,
        "num_cores": settings.num_cores,
        "page": page,
        "plot": None if settings.plot is None else str(settings.plot),
    }


def describe_rows(result: "Compressed") -> str:
    """Which rows the numbers of a frontier are of, and how good the chosen one is on others."""
    quality, certainty = result.chosen.quality, result.chosen.certainty
    low, high = (100 * value for value in certainty.interval)
    least, most = certainty.drop_interval
    return (
        f"All candidates: on the {result.selected.quality.num_rows:,} rows that choose. The chosen "
        f"one on {quality.num_rows:,} evaluation rows, which chose nothing: {quality.metric} "
        f"{100 * quality.quality:.2f} ({low:.2f} to {high:.2f}), points lost "
        f"{result.chosen.drop:.2f} ({least:.2f} to {most:.2f})."
    )


def make_points(
    result: "Compressed", settings: FrontierSettings, max_accuracy_drop: float
) -> list[FrontierPoint]:
    """The candidates as points of a frontier."""
    usd_per_core_hour = settings.price.usd_per_hour / settings.num_cores
    return [
        FrontierPoint(
            name=one.name,
            kind=one.kind,
            quality=one.quality.quality,
            interval=one.certainty.interval,
            drop=one.drop,
            drop_interval=one.certainty.drop_interval,
            seconds=one.seconds_per_million,
            usd=usd_of(one.seconds_per_million, usd_per_hour=usd_per_core_hour),
            verdict="chosen" if one is result.selected else "" if one.passes else "loses too much",
            remarks=_remarks(one, result.selected, max_accuracy_drop),
        )
        for one in result.candidates
    ]


def _remarks(
    one: "RecipeCandidate", chosen: "RecipeCandidate", max_accuracy_drop: float
) -> tuple[str, ...]:
    """What the rows that choose cannot tell the candidate from."""
    found = {
        "the teacher": one.certainty.is_within_noise_of_teacher,
        "the chosen": one is not chosen and one.certainty.is_within_noise_of(chosen.certainty),
        "the limit": one.certainty.is_within_noise_of_drop(max_accuracy_drop),
    }
    names = [name for name, is_within in found.items() if is_within]
    return (f"within noise of {' and '.join(names)}",) if names else ()


def describe_left_out(left: "LeftOut") -> str:
    """A line for what a search did not measure."""
    reasons = {
        "no time": f"would take about {format_long_duration(left.predicted_s)}, more than "
        "--max-hours leaves",
        "stopped": "stopped, for it would end after --max-hours; its training is kept, and the "
        "same command goes on with it",
        "failed": left.reason,
    }
    return f"left out: {left.name}: {reasons[left.why]}"


def frontier_table(points: Sequence[FrontierPoint], metric: str) -> Table:
    """The table of the console, from the cheapest to the dearest."""
    table = Table(title="Quality and cost", title_justify="left")
    number, name, *measured, standing = frontier_heads(metric)
    table.add_column(number, justify="right")
    table.add_column(name)
    for head in measured:
        table.add_column(head, justify="right")
    table.add_column(standing)
    for row in frontier_rows(points):
        table.add_row(*row)
    return table


def write_search_page(
    points: Sequence[FrontierPoint],
    bundle: Path,
    *,
    metric: str,
    heading: str,
    note: str,
) -> str | None:
    """Draw the frontier on a page beside the bundle, where the extra `report` is installed."""
    if not can_draw():
        console.print(f"no page of the frontier: {how_to_install('report')}")
        return None
    path = bundle.with_name(f"{bundle.name}-search.html")
    page = render_search_page(points, metric=metric, heading=heading, note=note)
    with whole_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    console.print(f"page: {path}")
    return str(path)
