"""Views of what `compress` and `ablate` say of quality: students, curves, frontiers, whole systems.

    filed measurements -> [quality_views] -> table, picture

Several measurements of one row are runs with other seeds: their mean is shown, and how far apart
they lie. This module knows the keys of what commands print, and nothing of Markdown files.
"""

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastformers.cluster.report.frontier.plot import save_frontier
from fastformers.cluster.report.frontier.points import FrontierPoint, frontier_heads, frontier_rows
from fastformers.errors import InputError
from fastformers.jobs.results.filed import Filed
from fastformers.jobs.results.picture import Picture
from fastformers.jobs.results.table import Table

# Stages after which quality is shown, by their names without numbers of rounds.
_STAGES = {
    "distill": "student",
    "prune": "pruned",
    "keep_tokens": "fewer tokens",
    "quantize": "int8",
    "cascade": "cascade",
}
# What the ratio of energies is where no joules are known.
_ENERGY = {"unknown": "of core-seconds"}
Groups = Sequence[Sequence[Filed]]


def students(groups: Groups) -> Table:
    """A row for each group of `compress` runs: quality after the stages, and what was lost."""
    found = [_qualities(group) for group in groups]
    shown = [name for name in _STAGES if any(name in stages for stages in found)]
    heads = ("", "rows", "seeds", "teacher", *(_STAGES[name] for name in shown), "points lost")
    rows = []
    for group, stages in zip(groups, found, strict=True):
        lost = [one.value("drop_points") for one in group]
        cells = [_points(stages.get(name, ())) for name in ("teacher", *shown)]
        rows.append(
            (_title(group), f"{_judged(group[0]):,}", str(len(group)), *cells, _lost(group, lost))
        )
    return Table(columns=heads, rows=tuple(rows), right=frozenset(range(1, len(heads))))


def transfer_curve(groups: Groups) -> Table:
    """Quality by the number of texts without labels, over all seeds of a group."""
    (group,) = groups
    curves = [one.value("transfer_curve") for one in group]
    rows = []
    for points in zip(*curves, strict=True):
        numbers = {point["texts"] for point in points}
        if len(numbers) > 1:
            raise InputError(f"{group[0].name}: the curves have other numbers of texts")
        qualities = [point["quality"] for point in points]
        agreements = [point["agreement"] for point in points]
        interval = points[0].get("low"), points[0].get("high")
        rows.append(
            (
                f"{numbers.pop():,}",
                _points(qualities),
                _interval(*interval) if len(group) == 1 else "",
                _points(agreements),
            )
        )
    metric, num_seeds = group[0].value("metric"), len(group)
    columns = ("texts without labels", metric, "95% interval", "agreement with the teacher, %")
    if num_seeds > 1:
        columns = (columns[0], f"{metric}, {num_seeds} seeds", "", columns[3])
    kept = [place for place, head in enumerate(columns) if head]
    return Table(
        columns=tuple(columns[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in rows),
        right=frozenset(range(len(kept))),
    )


def frontier(groups: Groups) -> Table:
    """All candidates of a search, from the cheapest to the dearest."""
    one = only(groups)
    heads = frontier_heads(one.value("metric"))
    return Table(columns=tuple(heads), rows=tuple(map(tuple, frontier_rows(_points_of(one)))))


def picture_of_frontier(groups: Groups) -> Picture:
    """The candidates of a search, quality over cost."""
    one = only(groups)
    points, metric = _points_of(one), one.value("metric")
    chosen = next(point for point in points if point.verdict == "chosen")
    title = one.measured.get("title", one.name)
    return Picture(
        name=one.name,
        label=f"{metric} over USD per million rows of {len(points)} recipes for {title}; "
        f"{chosen.name} was chosen with {100 * chosen.quality:.2f}",
        draw=partial(_draw_frontier, points, metric, f"{len(points)} recipes for {title}"),
    )


def systems(groups: Groups) -> Table:
    """Rows of the paper's Table 4, each an `ablate --paper-table 4`."""
    rows = []
    for one in (one for group in groups for one in group):
        theirs, ours = one.value("out_of_the_box"), one.value("bundle")
        low, high = one.value("speedup_range")
        error = one.value("speedup_standard_error")
        of = ""
        if theirs["timed_rows"] < one.value("rows"):
            of = f", scaled from {theirs['timed_rows']:,} of {one.value('rows'):,} texts"
        how = str(one.value("energy_source")).partition(" ")[0].rstrip(":")
        rows.append(
            (
                one.measured.get("title", one.value("task")),
                one.value("metric"),
                f"{100 * theirs['quality']:.2f}",
                f"{100 * ours['quality']:.2f}",
                f"**{one.value('speedup'):,.1f}x**"
                + ("" if error is None else f" ± {error:.1f}" if error >= 0.05 else " ± <0.1")
                + f" ({low:,.1f} to {high:,.1f}{of})",
                f"{one.value('energy_ratio'):,.1f}x, {_ENERGY.get(how, how)}",
            )
        )
    columns = ("task", "metric", "out of the box", "bundle", "speed-up (turns)", "energy")
    return Table(columns=columns, rows=tuple(rows), right=frozenset({2, 3}))


def _draw_frontier(points: list[FrontierPoint], metric: str, title: str, path: Path) -> None:
    save_frontier(points, path, metric=metric, title=title)


def _points_of(one: Filed) -> list[FrontierPoint]:
    return [
        FrontierPoint(
            name=point["recipe"],
            kind=point["kind"],
            quality=point["quality"],
            interval=tuple(point["quality_interval"]),
            drop=point["drop_points"],
            drop_interval=tuple(point["drop_points_interval"]),
            seconds=point["seconds_per_million"],
            usd=point["usd_per_million"],
            verdict=_verdict(point),
            remarks=tuple(point["remarks"]),
        )
        for point in one.value("candidates")
    ]


def _verdict(point: dict[str, Any]) -> Any:
    return "chosen" if point["is_chosen"] else "" if point["holds"] else "loses too much"


def _qualities(group: Sequence[Filed]) -> dict[str, list[float]]:
    """Quality after each stage, of each seed; of several rounds, that after the last."""
    found: dict[str, list[float]] = {}
    for one in group:
        if (what := _what(one)) != _what(group[0]):
            raise InputError(
                f"{one.name}: is of {what}, and {group[0].name} of {_what(group[0])}; one row "
                "shows runs that differ in their seed alone"
            )
        last = {stage["stage"].rstrip("-_ 0123456789"): stage for stage in one.value("stages")}
        for name, stage in last.items():
            found.setdefault(name, []).append(stage["quality"])
    return found


def _what(one: Filed) -> str:
    """What a `compress` measured: metric, rows and stages."""
    stages = ", ".join(stage["stage"] for stage in one.value("stages"))
    return f"{one.value('metric')} on {_judged(one):,} rows after {stages}"


def _judged(one: Filed) -> int:
    return int(one.value("stages.0.num_rows"))


def _title(group: Sequence[Filed]) -> str:
    return str(group[0].measured.get("title", group[0].name))


def _points(qualities: Sequence[float]) -> str:
    """Qualities as 100 x their mean, with the standard deviation of several."""
    if not qualities:
        return ""
    shown = f"{100 * statistics.fmean(qualities):.2f}"
    if len(qualities) > 1:
        shown += f" ± {100 * statistics.stdev(qualities):.2f}"
    return shown


def _lost(group: Sequence[Filed], lost: Sequence[float]) -> str:
    if len(group) == 1:
        low, high = group[0].value("drop_points_interval")
        return f"**{lost[0]:.2f}** (95%: {low:.2f} to {high:.2f})"
    mean, spread = statistics.fmean(lost), statistics.stdev(lost)
    return f"**{mean:.2f}** ± {spread:.2f} ({min(lost):.2f} to {max(lost):.2f})"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}"


def only(groups: Groups) -> Filed:
    """The one measurement of a view that shows one.

    Raises:
        InputError: There are more.
    """
    found = [one for group in groups for one in group]
    if len(found) != 1:
        raise InputError(f"{', '.join(one.name for one in found)}: this view shows one measurement")
    return found[0]
