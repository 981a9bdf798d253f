"""Draw a measured ablation: cumulative speed-up and USD per 100 million, step by step.

    results -> [plot] -> ablate.png, ablate.svg

This module knows results; it knows nothing of how they were measured.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastformers.ablation.measure import StepResult
from fastformers.ablation.report import cells
from fastformers.figure import FILE_PALETTE, Bar, draw_bars, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ABLATION, _ASIDE = FILE_PALETTE.series[0], FILE_PALETTE.series[5]
_NAME_CHARACTERS = 34
_WIDTH, _MARGIN, _BAR_HEIGHT = 860, 116, 45  # in points


def draw_ablation(results: Sequence[StepResult], paths: Sequence[Path], *, title: str) -> None:
    """Write the figure to each path, in the format of its suffix.

    Both axes are logarithmic; every bar carries its number. Steps beside the ablation are pale.
    """

    def draw(figure: "Figure") -> None:
        faster, cheaper = figure.subplots(1, 2, sharey=True)
        shown = [cells(result) for result in results]
        _draw_side(faster, results, [r.cumulative for r in results], [line[2] for line in shown])
        _draw_side(cheaper, results, [r.usd_per_100m for r in results], [line[5] for line in shown])
        faster.set_xlabel("cumulative speed-up (log scale)")
        cheaper.set_xlabel("USD per 100 million texts (log scale)")
        figure.suptitle(textwrap.fill(title, 100))

    save_figure(draw, paths, width=_WIDTH, height=_MARGIN + _BAR_HEIGHT * len(results))


def _draw_side(
    axes: "Axes", results: Sequence[StepResult], values: Sequence[float], labels: Sequence[str]
) -> None:
    draw_bars(
        axes,
        [
            Bar(
                name=textwrap.fill(_name(result), _NAME_CHARACTERS),
                value=value,
                label=label,
                color=_ASIDE if result.is_aside else _ABLATION,
            )
            for result, value, label in zip(results, values, labels, strict=True)
        ],
    )
    axes.set_xscale("log")
    # Room to the left so that the smallest bar has a length, to the right for the labels.
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.minorticks_off()


def _name(result: StepResult) -> str:
    if result.accuracy is None:
        return result.name
    return f"{result.name} (accuracy {100 * result.accuracy:.2f})"
