"""What a README shows of measurements: a function for each view, by the name in the marker.

    filed measurements -> [views] -> table, picture

This module knows the keys of what commands print, and nothing of Markdown files.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastformers.errors import InputError
from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import JOB_BASELINES
from fastformers.jobs.benchmarks.picture import draw_whole_jobs
from fastformers.jobs.results.filed import Filed
from fastformers.jobs.results.picture import Picture
from fastformers.jobs.results.table import Table, read_table

# Shapes of `bench-gpu`, as a table names them.
_SHAPES = {
    "bert-base": "BERT-base, 12 x 768",
    "student": "student, 4 x 312",
    "pruned": "pruned student",
}

View = Callable[[Sequence[Sequence[Filed]]], Table | Picture]


def filed_table(groups: Sequence[Sequence[Filed]]) -> Table:
    """A table that was filed as one."""
    (one,) = _one_of_each(groups)
    return read_table(one.value("table"), one.name)


def whole_jobs(groups: Sequence[Sequence[Filed]]) -> Table:
    """The whole jobs of a `bench`: ours, then the others with our rate over theirs."""
    (one,) = _one_of_each(groups)
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
    (one,) = _one_of_each(groups)
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


def gpu(groups: Sequence[Sequence[Filed]]) -> Table:
    """The shapes of a `bench-gpu` beside each other."""
    (one,) = _one_of_each(groups)
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


def _one_of_each(groups: Sequence[Sequence[Filed]]) -> list[Filed]:
    return [one for group in groups for one in group]


VIEWS: dict[str, View] = {
    "gpu": gpu,
    "jobs": whole_jobs,
    "picture-of-jobs": picture_of_jobs,
    "table": filed_table,
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
