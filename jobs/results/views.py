"""What a README shows of measurements: a function for each view, by the name in the marker.

    filed measurements -> [views] -> table, picture

This module knows the keys of what commands print, and nothing of Markdown files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastformers.benchmark.timing import Rates
from fastformers.errors import InputError
from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import BaselinesPart, NotRun
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES, BaselineName
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

# How names of a `bench`'s engines begin, by what a table calls them.
_STOCK = "ONNX Runtime's stock recipe (fused, dynamic int8 per channel)"
_OPENVINO = "OpenVINO by itself (int8 by NNCF, else as it chooses)"
_OPENVINO_FLOAT = "OpenVINO by itself (int8 by NNCF, else in float32)"
_OUR_OPENVINO = "**this bundle, OpenVINO** (`--engine openvino`)"
_OURS = "**this bundle, ONNX Runtime**"
_ENGINES = {
    "PyTorch float32": "PyTorch float32,",
    _STOCK: "ORT stock int8,",
    _OPENVINO: "OpenVINO int8,",
    _OPENVINO_FLOAT: "OpenVINO int8 and float32,",
    _OUR_OPENVINO: "fastformers openvino",
    _OURS: "fastformers onnxruntime",
}

View = Callable[[Sequence[Sequence[Filed]]], Table | Picture]


def filed_table(groups: Sequence[Sequence[Filed]]) -> Table:
    """A table that was filed as one."""
    one = quality_views.only(groups)
    return read_table(one.value("table"), one.name)


def whole_jobs(groups: Sequence[Sequence[Filed]]) -> Table:
    """The whole jobs of a `bench`: ours, then the others with our rate over theirs."""
    _, jobs = _whole_jobs(groups)
    rates = {"**fastformers**": jobs.ours}
    ratios = {"**fastformers**": ""}
    for name, rate in jobs.measured().items():
        label = f"{_label(name)}: {rate.setting}"
        ratio = jobs.our_ratio(name)
        assert not isinstance(ratio, NotRun)
        spread = f" ({ratio.least:.2f} to {ratio.most:.2f})" if ratio.least < ratio.most else ""
        rates[label], ratios[label] = rate, f"**{ratio.value:,.2f}x**{spread}"
    columns = {
        "rows/s": {label: f"{rate.rows_per_second:,.1f}" for label, rate in rates.items()},
        "ours is faster by": ratios,
        "seconds": {label: f"{rate.seconds:.0f}" for label, rate in rates.items()},
        "start-up (s)": {
            label: f"{rate.startup_s:.1f}"
            for label, rate in rates.items()
            if rate.startup_s is not None
        },
        "accuracy": {
            label: f"{100 * rate.accuracy:.2f}"
            for label, rate in rates.items()
            if rate.accuracy is not None
        },
    }
    shown = {name: cells for name, cells in columns.items() if cells}
    return Table(
        columns=("job", *shown),
        rows=tuple((label, *(c.get(label, "") for c in shown.values())) for label in rates),
    )


def picture_of_jobs(groups: Sequence[Sequence[Filed]]) -> Picture:
    """The bars of the whole jobs of a `bench`."""
    report, jobs = _whole_jobs(groups)
    others = "; ".join(
        f"{_label(name)} {rate.rows_per_second:,.0f}"
        for name, rate in jobs.measured().items()
        if not JOB_BASELINES[name].is_floor
    )
    ours = jobs.ours.rows_per_second
    return Picture(
        name=quality_views.only(groups).name,
        label=f"Rows per second of whole jobs: fastformers {ours:,.0f}; {others}",
        draw=partial(draw_whole_jobs, report),
    )


def _whole_jobs(groups: Sequence[Sequence[Filed]]) -> tuple[BenchReport, BaselinesPart]:
    one = quality_views.only(groups)
    report = BenchReport.from_json(one.content, path=one.name)
    if isinstance(report.job_baselines, NotRun):
        raise InputError(f"{one.name}: has no whole jobs: {report.job_baselines.reason}")
    return report, report.job_baselines


def _label(name: BaselineName) -> str:
    return JOB_BASELINES[name].label.replace("\n", " ")


def engines(groups: Sequence[Sequence[Filed]]) -> Table:
    """Engines of several `bench` on one core: fixed shapes of the first, and the rows of each.

    Each engine has the rate of its fastest way of batching.
    """
    filed = [one for group in groups for one in group]
    reports = [BenchReport.from_json(one.content, path=one.name) for one in filed]
    rates = [
        Rates(by_case=report.engines.rates[0].tokens_per_second)
        for report in reports
        if not isinstance(report.engines, NotRun)
    ]
    shapes = {c.replace("x", " x "): (rates[0], c) for c in rates[0].by_case if c != "rows"}
    titles = (one.measured["title"] for one in filed)
    cases = shapes | {title: (of, "rows") for title, of in zip(titles, rates, strict=True)}
    best = {
        label: [_best(of, case, prefix) for of, case in cases.values()]
        for label, prefix in _ENGINES.items()
    }
    rows = [(label, *(f"{rate:,.0f}" for rate in found)) for label, found in best.items()]
    for label, other in {
        "ratio to the stock recipe": _STOCK,
        "ratio to OpenVINO by itself": _OPENVINO,
        "ratio to OpenVINO in float32": _OPENVINO_FLOAT,
    }.items():
        pairs = zip(best[_OURS], best[other], strict=True)
        rows.append((label, *(f"**{ours / theirs:,.2f}x**" for ours, theirs in pairs)))
    first = reports[0].operators
    if not isinstance(first, NotRun) and not isinstance(first.of_peak, NotRun):
        shares = first.of_peak.by_case
        of_peak = [f"{shares[case]:.0%}" if case in shares else "" for _, case in cases.values()]
        rows.append(("share of this machine's peak", *of_peak))
    return Table(columns=("engine", *cases), rows=tuple(rows))


def _best(rates: Rates, case: str, prefix: str) -> float:
    name = rates.best(case, prefix)
    if name is None:
        raise KeyError(f"no engine named {prefix!r} at {case}")
    return rates.by_case[case][name]


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
        "over PyTorch float32 out of the box, 32 rows padded (the paper, V100: 12.4x)": (
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


def plans(groups: Sequence[Sequence[Filed]]) -> Table:
    """How random plans kept their deadlines, and what they cost over the best that could be had."""
    one = quality_views.only(groups)
    missed, promised = one.value("missed_share"), one.value("promised_missed_share")
    dearer, worst = one.value("usd_ratio"), one.value("usd_ratio_worst")
    rows = (
        (
            "runs that ended after the deadline",
            f"{missed:.1%} of {one.value('runs'):,} (promised: {promised:.1%})",
        ),
        ("plans whose median run did", str(one.value("median_runs_missed"))),
        ("longest run over its deadline", f"{one.value('worst'):.2f}"),
        (
            "cost over that of the cheapest plan that holds, for one who knows the corpus",
            f"{dearer:.3f} on average, {worst:.2f} at worst",
        ),
        (
            "cost over that of the right number of machines, once the pace is known",
            f"{one.value('hindsight_ratio'):.3f}",
        ),
    )
    return Table(columns=(f"{one.value('plans'):,} plans", ""), rows=rows)


VIEWS: dict[str, View] = {
    "engines": engines,
    "frontier": quality_views.frontier,
    "gpu": gpu,
    "jobs": whole_jobs,
    "ladder": ladder,
    "picture-of-frontier": quality_views.picture_of_frontier,
    "picture-of-jobs": picture_of_jobs,
    "plans": plans,
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
    try:
        return VIEWS[view](groups)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration) as error:
        names = ", ".join(one.name for group in groups for one in group)
        raise InputError(
            f"{names}: {view} cannot show it: {type(error).__name__} {error}; is it what another "
            "command or version printed?"
        ) from error
