"""One picture of a `fastformers bench`: rows a second of our whole job and of the job baselines.

    BenchReport -> [picture] -> SVG or PNG

What was not measured has no bar, and neither has a floor: it is no transformer, and its bar would
hide theirs. The caption names machine, texts, versions and date, so that the
picture can stand alone. This module knows nothing of how the jobs ran.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fastformers.errors import InputError
from fastformers.figure import FILE_PALETTE, Bar, draw_bars, save_figure
from fastformers.formatting import format_count
from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import BaselinesPart, NotRun
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS, _THEIRS = FILE_PALETTE.series[0], FILE_PALETTE.series[5]
_WIDTH, _TITLE_HEIGHT, _BAR_HEIGHT, _LINE_HEIGHT = 720, 44, 44, 12.5  # in points
_CAPTION_SIZE = 9
_CAPTION_CHARACTERS = 140
# How much longer the axis is than the longest bar, which has its label to the right.
_LABEL_ROOM = 1.35


def draw_whole_jobs(report: BenchReport, path: Path) -> None:
    """Draw the whole jobs as horizontal bars, ours first, each with our ratio beside it.

    Args:
        report: What was measured.
        path: File to write, as SVG or PNG by its suffix.

    Raises:
        InputError: No whole job was measured beside others.
    """
    jobs = report.job_baselines
    if isinstance(jobs, NotRun):
        raise InputError(f"--plot {path}: no whole jobs were measured: {jobs.reason}")
    bars = _plan_bars(jobs)
    caption = _describe(report, jobs)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        draw_bars(axes, bars)
        axes.set_xlim(0, _LABEL_ROOM * max(bar.value for bar in bars))
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=FILE_PALETTE.ink)
        figure.suptitle(
            "Whole jobs, from files to files: rows per second", x=0.01, ha="left", fontsize=14
        )
        figure.supxlabel(
            caption, x=0.01, ha="left", fontsize=_CAPTION_SIZE, color=FILE_PALETTE.muted
        )

    caption_height = _LINE_HEIGHT * (caption.count("\n") + 1)
    height = _TITLE_HEIGHT + _BAR_HEIGHT * len(bars) + caption_height
    save_figure(draw, [path], width=_WIDTH, height=height)


def _plan_bars(jobs: BaselinesPart) -> list[Bar]:
    ours = jobs.ours.rows_per_second
    bars = [Bar(name="fastformers", value=ours, label=f"{ours:,.0f} rows/s", color=_OURS)]
    for name, found in jobs.measured().items():
        ratio = jobs.our_ratio(name)
        if JOB_BASELINES[name].is_floor or isinstance(ratio, NotRun):
            continue
        rate = found.rows_per_second
        label = f"{rate:,.0f} rows/s (fastformers: {ratio.value:.1f}x)"
        bars.append(Bar(name=JOB_BASELINES[name].label, value=rate, label=label, color=_THEIRS))
    return bars


def _describe(report: BenchReport, jobs: BaselinesPart) -> str:
    """The caption: conditions of all jobs, then how each one ran."""
    texts = f"{jobs.ours.rows:,} different texts"
    if report.corpus is not None:
        texts += f" of {PurePosixPath(report.corpus).name}"
    cores = format_count(report.cores, "core")
    runs = "1 run" if report.repeats == 1 else f"median of {report.repeats} runs"
    model = report.precision if report.weights is None else f"{report.weights}, {report.precision}"
    lines = [
        f"{texts}, {cores} of {report.cpu_model}, {report.measured_at}, {runs}.",
        f"fastformers: {model}, engine {report.engine} ({_versions(report.versions)}).",
    ]
    for name, found in jobs.measured().items():
        if JOB_BASELINES[name].is_floor:
            continue
        label = JOB_BASELINES[name].label.replace("\n", " ")
        lines.append(f"{label}: {found.setting} ({_versions(found.versions)}).")
    return "\n".join(textwrap.fill(line, _CAPTION_CHARACTERS) for line in lines)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())
