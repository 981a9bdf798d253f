"""Draw what a search found: quality against cost, and what may be lost.

search -> candidates -> [frontier_plot] -> an SVG file
"""

from collections.abc import Sequence
from pathlib import Path

from fastformers.search import Candidate, frontier


def plot_frontier(candidates: Sequence[Candidate], chosen: Candidate, path: Path) -> None:
    """Write the candidates of a search as a picture.

    Args:
        candidates: In the order tried; the first is the teacher at the same precision.
        chosen: The one whose bundle was written.
        path: An .svg, .png or .pdf file.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    teacher = candidates[0].qualities[0]
    best = frontier(candidates)
    axes.axhline(100 * teacher.quality, color="gray", linewidth=1, label="teacher, float")
    axes.plot(
        [one.seconds_per_million for one in best],
        [100 * one.qualities[-1].quality for one in best],
        color="tab:blue",
        linewidth=1,
        label="frontier",
    )
    for candidate in candidates:
        at = (candidate.seconds_per_million, 100 * candidate.qualities[-1].quality)
        axes.plot(
            *at,
            marker="*" if candidate is chosen else "o",
            markersize=14 if candidate is chosen else 6,
            color="tab:blue" if candidate.holds else "tab:red",
        )
        axes.annotate(candidate.name, at, textcoords="offset points", xytext=(6, -10), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("core-seconds per million rows")
    axes.set_ylabel(f"100 x {teacher.metric} on the evaluation file")
    axes.set_title("Quality and cost; red loses more than allowed, the star was taken")
    axes.legend(loc="lower right")
    axes.margins(0.15)
    figure.savefig(path)
