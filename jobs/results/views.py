"""What a README shows of measurements: a function for each view, by the name in the marker.

    filed measurements -> [views] -> table, picture

This module knows the keys of what commands print, and nothing of Markdown files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastformers.errors import InputError
from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import JOB_BASELINES
from fastformers.jobs.benchmarks.picture import draw_whole_jobs
from fastformers.jobs.results import quality_views
from fastformers.jobs.results.filed import Filed
from fastformers.jobs.results.picture import Picture
from fastformers.jobs.results.table import Table, read_table

# The paper's speed-up in the note of a step.
_PAPER = re.compile(r"the paper: ([\d.]+)x")
# Shapes of `bench-gpu`, as a table names them.
_SHAPES = {
    "bert-base": "BERT-base, 12 x 768",
    "student": "student, 4 x 312",
    "pruned": "pruned student",
}

View = Callable[[Sequence[Sequence[Filed]]], Table | Picture]


def filed_table(groups: Sequence[Sequence[Filed]]) -> Table:
    """A table that was filed as one."""
    one = quality_views.only(groups)
    return read_table(one.value("table"), one.name)


def whole_jobs(groups: Sequence[Sequence[Filed]]) -> Table:
    """The whole jobs of a `bench`: ours, then the others with our rate over theirs."""
    one = quality_views.only(groups)
    ours = one.value("job_beside_peers_rows_per_second")
    rows = [("**fastformers**", f"{ours:,.1f}", "")]
    for name, rate in one.value("peers").items():
        theirs = rate["rows_per_second"]
        label = JOB_BASELINES[name].replace("\n", " ")
        ratio = f"**{ours / theirs:,.2f}x**"
        rows.append((f"{label}: {rate['setting']}", f"{theirs:,.1f}", ratio))
    return Table(columns=("job", "rows/s", "ours is faster by"), rows=tuple(rows))


def picture_of_jobs(groups: Sequence[Sequence[Filed]]) -> Picture:
    """The bars of the whole jobs of a `bench`."""
    one = quality_views.only(groups)
    report = BenchReport.from_json(one.content, path=one.name)
    ours = one.value("job_beside_peers_rows_per_second")
    others = ", ".join(
        f"{JOB_BASELINES[name].replace(chr(10), ' ')} {rate['rows_per_second']:,.0f}"
        for name, rate in one.value("peers").items()
    )
    return Picture(
        name=one.name,
        label=f"Rows per second of whole jobs: fastformers {ours:,.0f}, {others}",
        draw=partial(draw_whole_jobs, report),
    )


def ladder(groups: Sequence[Sequence[Filed]]) -> Table:
    """The steps of an `ablate`; a row that was scaled says from what, with its standard error."""
    one = quality_views.only(groups)
    steps = one.value("steps")
    columns = ["optimization added", "time (s)", "cumulative", "step"]
    has_accuracy = any(step["accuracy"] is not None for step in steps)
    rows = []
    for step in steps:
        scaled = step["timed_rows"] < step["rows"]
        name = step["name"]
        if scaled:
            name += f", scaled from {step['timed_rows']:,} of {step['rows']:,} texts"
        error = step["standard_error_s"]
        time = f"{step['seconds']:,.2f}" + ("" if error is None else f" ± {error:,.2f}")
        row = [name, time, f"{step['cumulative']:,.2f}x", f"{step['step']:,.2f}x"]
        if has_accuracy:
            row.append("" if step["accuracy"] is None else f"{100 * step['accuracy']:.2f}")
        rows.append(tuple(row))
    papers = [_PAPER.search(step["note"]) for step in steps]
    if has_accuracy:
        columns.append("accuracy")
    if any(papers):
        columns.append("the paper, cumulative")
        shown = ["" if paper is None else f"{float(paper[1]):.2f}x" for paper in papers]
        rows = [(*row, paper) for row, paper in zip(rows, shown, strict=True)]
    right = frozenset(range(1, len(columns)))
    return Table(columns=tuple(columns), rows=tuple(rows), right=right)


def gpu(groups: Sequence[Sequence[Filed]]) -> Table:
    """The shapes of a `bench-gpu` beside each other."""
    one = quality_views.only(groups)
    shapes = one.value("shapes")
    lines: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "ours, rows/s": lambda s: f"{next(iter(s['rows_per_second'].values())):,.0f}",
        "over PyTorch float32 out of the box, 32 rows padded (the paper, on a V100: 12.4x)": (
            lambda s: f"**{s['over_float32']:.1f}x**"
        ),
        "over PyTorch float16, fused attention, sorted, its fastest token budget": (
            lambda s: f"{s['over_float16']:.2f}x"
        ),
        f"share of the card's float16 peak (a product of 8192 x 8192: "
        f"{one.value('peak_tflops'):.0f} TFLOP/s)": lambda s: f"{s['share_of_peak']:.0%}",
        "busy, by NVML": lambda s: "" if s["busy"] is None else f"{s['busy']:.0%}",
        "largest difference of a row's logit between batches": (
            lambda s: f"{s['batch_difference']:.1e}"
        ),
        "largest difference of a logit from PyTorch in float32, on the CPU": (
            lambda s: f"{s['pytorch_difference']:.1e}"
        ),
    }
    return Table(
        columns=("", *(_SHAPES[name] for name in shapes)),
        rows=tuple((label, *map(show, shapes.values())) for label, show in lines.items()),
    )


VIEWS: dict[str, View] = {
    "frontier": quality_views.frontier,
    "gpu": gpu,
    "jobs": whole_jobs,
    "ladder": ladder,
    "picture-of-frontier": quality_views.picture_of_frontier,
    "picture-of-jobs": picture_of_jobs,
    "students": quality_views.students,
    "systems": quality_views.systems,
    "table": filed_table,
    "transfer-curve": quality_views.transfer_curve,
}


def make_view(view: str, groups: Sequence[Sequence[Filed]]) -> Table | Picture:
    """What a view shows.

    Args:
        view: Name of the view.
        groups: Measurements, those of each name or pattern in a group of their own.

    Raises:
        InputError: There is no such view, or it cannot show these.
    """
    if view not in VIEWS:
        raise InputError(f"{view}: no view has this name; there are {', '.join(sorted(VIEWS))}")
    return VIEWS[view](groups)
