"""The points of a frontier of quality and cost, and their table.

    candidates of a search, price -> [points] -> table of the console and the page, plot, JSON

This module knows nothing of recipes, of how intervals are made, or of drawing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastformers.cluster.formatting import format_usd
from fastformers.cluster.report.downsample import pick_frontier

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """A bundle that a recipe search made.

    Attributes:
        name: Its name, for people.
        kind: The way in which its model was made smaller, for people.
        quality: Value of its task's metric, at most 1.
        interval: 95% interval of the quality on the rows that choose.
        drop: Points of 100 x the metric by which it is below the teacher.
        drop_interval: 95% interval of these on the same rows.
        seconds: Core-seconds of a million rows.
        usd: Price of a million rows.
        verdict: Outcome of the search; empty if it passes, but another was chosen.
        remarks: What these rows cannot tell apart.
    """

    name: str
    kind: str
    quality: float
    interval: Interval
    drop: float
    drop_interval: Interval
    seconds: float
    usd: float
    verdict: Literal["", "chosen", "loses too much"] = ""
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All numbers of the table and the plot, by name."""
        return {
            "recipe": self.name,
            "kind": self.kind,
            "quality": self.quality,
            "quality_interval": list(self.interval),
            "drop_points": self.drop,
            "drop_points_interval": list(self.drop_interval),
            "seconds_per_million": self.seconds,
            "usd_per_million": self.usd,
            "holds": self.verdict != "loses too much",
            "is_chosen": self.verdict == "chosen",
            "remarks": list(self.remarks),
        }


def find_best(points: Sequence[FrontierPoint]) -> list[int]:
    """Indices of the points that no other beats in both, from the cheapest to the best."""
    return pick_frontier([point.quality for point in points], [point.usd for point in points])


def sort_by_cost(points: Sequence[FrontierPoint]) -> list[int]:
    """Indices of the points from the cheapest to the dearest."""
    return sorted(range(len(points)), key=lambda at: (points[at].usd, -points[at].quality))


def frontier_heads(metric: str) -> list[str]:
    """Heads of the columns of `frontier_rows`."""
    return [
        *("", "recipe", f"{metric}, % (95%)", "points lost (95%)", "core-s per million"),
        *("USD per million", "times cheaper", ""),
    ]


def frontier_rows(points: Sequence[FrontierPoint]) -> list[list[str]]:
    """The points from the cheapest to the dearest, each with its 95% intervals and what it is."""
    best, whole_s = set(find_best(points)), seconds_of_whole(points)
    return [
        [str(number), *_row(points[place], whole_s, is_best=place in best)]
        for number, place in enumerate(sort_by_cost(points), start=1)
    ]


def seconds_of_whole(points: Sequence[FrontierPoint]) -> float:
    """Core-seconds of a million rows of the dearest: what the others are cheaper than."""
    return max(point.seconds for point in points)


def _row(point: FrontierPoint, whole_s: float, *, is_best: bool) -> list[str]:
    low, high = (100 * value for value in point.interval)
    standing = "frontier" if is_best else "beaten"
    return [
        point.name,
        f"{100 * point.quality:.2f} ({low:.1f} to {high:.1f})",
        f"{point.drop:.2f} ({point.drop_interval[0]:.1f} to {point.drop_interval[1]:.1f})",
        f"{point.seconds:,.0f}",
        format_usd(point.usd).removesuffix(" USD"),
        f"{whole_s / point.seconds:.2f}",
        ", ".join(filter(None, [point.verdict, standing, *point.remarks])),
    ]
