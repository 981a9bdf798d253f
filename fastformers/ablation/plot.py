"""Draw a measured ablation: cumulative speed-up and USD per 100 million, step by step.

results -> [plot] -> ablate.png, ablate.svg
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastformers.ablation.measure import StepResult
from fastformers.ablation.report import cells

_ABLATION, _ASIDE = "#2f6f9f", "#b0b0b0"
_NAME_CHARACTERS = 34


def draw_ablation(results: Sequence[StepResult], paths: Sequence[Path], *, title: str) -> None:
    """Write the figure to each path, in the format of its suffix.

    Both axes are logarithmic; every bar carries its number. Steps beside the ablation are gray.
    """
    figure = Figure(figsize=(11, 1.6 + 0.62 * len(results)), layout="constrained")
    faster, cheaper = figure.subplots(1, 2, sharey=True)
    names = [textwrap.fill(_name(result), _NAME_CHARACTERS) for result in results]
    shown = [cells(result) for result in results]
    _bars(faster, results, [r.cumulative for r in results], [line[2] for line in shown])
    _bars(cheaper, results, [r.usd_per_100m for r in results], [line[5] for line in shown])
    faster.set_yticks(range(len(results)), names)
    faster.invert_yaxis()
    faster.set_xlabel("cumulative speed-up (log scale)")
    cheaper.set_xlabel("USD per 100 million texts (log scale)")
    figure.suptitle(textwrap.fill(title, 100))
    for path in paths:
        figure.savefig(path, dpi=150)


def _bars(
    axes: Axes, results: Sequence[StepResult], values: Sequence[float], labels: Sequence[str]
) -> None:
    colors = [_ASIDE if result.is_aside else _ABLATION for result in results]
    bars = axes.barh(range(len(results)), values, color=colors)
    axes.set_xscale("log")
    # Room to the left so that the smallest bar has a length, to the right for the labels.
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.bar_label(bars, labels=list(labels), padding=3)
    axes.spines[["top", "right"]].set_visible(False)


def _name(result: StepResult) -> str:
    if result.accuracy is None:
        return result.name
    return f"{result.name} (accuracy {100 * result.accuracy:.2f})"
