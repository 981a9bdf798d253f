"""Draw quality over USD per million rows, with the intervals of the evaluation rows.

    points -> [plot] -> search page, SVG or PNG file

Colors are kinds of models, shapes what became of them: a cross loses too much, a star was chosen.
This module does not know where the plot stands. Needs the extra `report`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastformers.cluster.report.frontier.points import FrontierPoint, find_best
from fastformers.figure import (
    FILE_PALETTE,
    THEME,
    Palette,
    draw_legend,
    render_twice,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 860, 440  # of a file, in points
_LOG_FROM = 8  # times the cheapest: a linear axis would press the cheap ones together
_MARKERS = {"": ("o", 44), "chosen": ("*", 190), "loses too much": ("X", 44)}


def render_frontier(points: Sequence[FrontierPoint], *, metric: str) -> str:
    """The plot for a page, for wide and narrow ones."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        _draw(figure, points, metric=metric, is_wide=is_wide, palette=THEME)

    label = f"{metric} over cost of {len(points)} candidates"
    return render_twice(draw, "frontier", label, (320, 330))


def save_frontier(points: Sequence[FrontierPoint], path: Path, *, metric: str, title: str) -> None:
    """Write the plot to a file, as SVG or PNG by its suffix."""

    def draw(figure: "Figure") -> None:
        _draw(figure, points, metric=metric, is_wide=True, palette=FILE_PALETTE)
        figure.suptitle(title)

    save_figure(draw, [path], width=_WIDTH, height=_HEIGHT)


def _draw(
    figure: "Figure",
    points: Sequence[FrontierPoint],
    *,
    metric: str,
    is_wide: bool,
    palette: Palette,
) -> None:
    axes = figure.subplots()
    usd = [point.usd for point in points]
    best = find_best(points)
    axes.step(
        [usd[place] for place in best],
        [100 * points[place].quality for place in best],
        where="post",
        color=palette.muted,
        linewidth=1.2,
    )
    kinds = list(dict.fromkeys(point.kind for point in points))
    colors = dict(zip(kinds, _spread_colors(palette, len(kinds)), strict=True))
    for point in points:
        _draw_point(axes, point, colors[point.kind])
    if min(usd) > 0 and max(usd) / min(usd) > _LOG_FROM:
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.15)
    for place in _pick_labels(best, limit=8 if is_wide else 4):
        _label(axes, points[place])
    axes.grid(True)
    axes.set_ylabel(f"{metric}, %")
    axes.set_xlabel("USD per million rows")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    _explain(axes, points, colors, palette)
    draw_legend(figure, is_wide)


def _spread_colors(palette: Palette, number: int) -> list[str]:
    """A color for each kind; they repeat where there are more kinds."""
    return [palette.series[place % len(palette.series)] for place in range(number)]


def _draw_point(axes: "Axes", point: FrontierPoint, color: str) -> None:
    low, high = (100 * value for value in point.interval)
    quality = 100 * point.quality
    marker, size = _MARKERS[point.verdict]
    axes.vlines(point.usd, min(low, quality), max(high, quality), color=color, linewidth=1)
    axes.scatter([point.usd], [quality], color=color, s=size, marker=marker, zorder=3)


def _label(axes: "Axes", point: FrontierPoint) -> None:
    place = point.usd, 100 * point.quality
    across, _ = axes.transLimits.transform(axes.transScale.transform(place))
    axes.annotate(
        point.name,
        place,
        xytext=(6 if across < 0.7 else -6, -13),
        textcoords="offset points",
        ha="left" if across < 0.7 else "right",
        fontsize=11,
    )


def _explain(
    axes: "Axes", points: Sequence[FrontierPoint], colors: dict[str, str], palette: Palette
) -> None:
    """Entries of the legend: kinds by color, verdicts by shape, and the intervals."""
    for kind, color in colors.items():
        axes.scatter([], [], color=color, s=44, marker="o", label=kind)
    for verdict in ("chosen", "loses too much"):
        if any(point.verdict == verdict for point in points):
            marker, _ = _MARKERS[verdict]
            axes.scatter([], [], color=palette.muted, s=60, marker=marker, label=verdict)
    axes.plot([], [], color=palette.muted, linewidth=1, label="95% interval")


def _pick_labels(places: Sequence[int], *, limit: int) -> list[int]:
    if len(places) <= limit:
        return list(places)
    return [places[i] for i in np.linspace(0, len(places) - 1, limit).round().astype(int)]
