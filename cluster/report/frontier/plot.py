"""Draw quality over USD per million rows, with the intervals of the rows that choose.

    points -> [plot] -> search page, SVG or PNG file

Colors are kinds of models, shapes what became of them: a cross loses too much, a star was chosen.
Points are numbered from the cheapest on, as the names below and the rows of the table are. This
module does not know where the plot stands. Needs the extra `report`.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastformers.cluster.report.frontier.points import FrontierPoint, find_best, sort_by_cost
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

# In points; a file is as wide, and a line of names as high.
_WIDTH, _AXES_HEIGHT, _TITLE_HEIGHT, _NAME_HEIGHT = 860, 360, 30, 20
# Letters of the longest name where names have two columns, and of any where the page is narrow.
_LONGEST_OF_TWO, _LONGEST = 60, 46
_LOG_FROM = 8  # times the cheapest: a linear axis would press the cheap ones together
_MARKERS = {"": ("o", 44), "chosen": ("*", 190), "loses too much": ("X", 44)}


def render_frontier(points: Sequence[FrontierPoint], *, metric: str) -> str:
    """The plot for a page, for wide and narrow ones."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        _draw(figure, points, metric=metric, is_wide=is_wide, palette=THEME)

    label = f"{metric} over cost of {len(points)} candidates"
    heights = (_height(points, is_wide=True), _height(points, is_wide=False))
    return render_twice(draw, "frontier", label, heights)


def save_frontier(points: Sequence[FrontierPoint], path: Path, *, metric: str, title: str) -> None:
    """Write the plot to a file, as SVG or PNG by its suffix."""

    def draw(figure: "Figure") -> None:
        _draw(figure, points, metric=metric, is_wide=True, palette=FILE_PALETTE)
        figure.axes[0].set_title(title, pad=12)

    height = _height(points, is_wide=True) + _TITLE_HEIGHT
    save_figure(draw, [path], width=_WIDTH, height=height)


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
    axes.grid(True)
    axes.set_ylabel(f"{metric}, %")
    axes.set_xlabel("USD per million rows")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    _explain(axes, points, colors, palette)
    draw_legend(figure, is_wide)
    _name_points(figure, points, is_wide=is_wide)


def _spread_colors(palette: Palette, number: int) -> list[str]:
    """A color for each kind; they repeat where there are more kinds."""
    return [palette.series[place % len(palette.series)] for place in range(number)]


def _draw_point(axes: "Axes", point: FrontierPoint, color: str) -> None:
    low, high = (100 * value for value in point.interval)
    quality = 100 * point.quality
    marker, size = _MARKERS[point.verdict]
    axes.vlines(point.usd, min(low, quality), max(high, quality), color=color, linewidth=1)
    axes.scatter([point.usd], [quality], color=color, s=size, marker=marker, zorder=3)


def _name_points(figure: "Figure", points: Sequence[FrontierPoint], *, is_wide: bool) -> None:
    """Number the points, and give their names below."""
    from matplotlib.lines import Line2D

    (axes,) = figure.axes
    names = []
    for number, place in enumerate(sort_by_cost(points), start=1):
        point = points[place]
        axes.annotate(
            str(number),
            (point.usd, 100 * point.quality),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=11,
        )
        name = point.name if is_wide else textwrap.shorten(point.name, _LONGEST, placeholder=" …")
        names.append(Line2D([], [], linestyle="none", label=f"{number}  {name}"))
    figure.legend(
        handles=names,
        loc="outside lower left",
        ncols=_name_columns(points, is_wide),
        fontsize=11,
        handlelength=0,
        handletextpad=0,
    )


def _name_columns(points: Sequence[FrontierPoint], is_wide: bool) -> int:
    return 2 if is_wide and max(len(point.name) for point in points) <= _LONGEST_OF_TWO else 1


def _height(points: Sequence[FrontierPoint], *, is_wide: bool) -> int:
    """Height of axes, legend and names, in points."""
    return _AXES_HEIGHT + _NAME_HEIGHT * -(-len(points) // _name_columns(points, is_wide))


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
