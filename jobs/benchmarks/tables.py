"""What `fastformers bench` measured: as plain values, as tables for people, as a plot.

Ratios above 1 mean that fastformers is faster. Everything that a table shows is in the values.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastformers.benchmark.comparison import Comparison, OperatorBreakdown
from fastformers.errors import InputError

# The engine's ratios are of real rows where there are any, else of this shape.
_FALLBACK_CASE = "8x128"
# The share of the peak is of a fixed shape, whose arithmetic is known exactly.
_PEAK_CASE = "1x128"
_MIN_SHARE = 0.01


def describe_comparisons(comparisons: Sequence[Comparison], ours: str) -> dict[str, Any]:
    """Rates and ratios of the engines; the first comparison is on one thread."""
    if not comparisons:
        return {}
    one = comparisons[0]
    over = {
        other: {
            case: one.rates.ratio(case, ours, name)
            for case in one.rates.by_case
            if (name := one.rates.best(case, prefix)) is not None
        }
        for other, prefix in (("stock", "ORT stock"), ("openvino", "OpenVINO"))
    }
    case = "rows" if "rows" in one.rates.by_case else _FALLBACK_CASE
    return {
        "engine_over_stock": over["stock"].get(case),
        "engine_over_openvino": over["openvino"].get(case),
        "engine_over_stock_by_case": over["stock"],
        "engine_over_openvino_by_case": over["openvino"],
        "engines": [
            {
                "num_threads": comparison.num_threads,
                "tokens_per_second": comparison.rates.by_case,
                "agreement": comparison.agreement,
            }
            for comparison in comparisons
        ],
    }


def describe_breakdown(
    breakdown: OperatorBreakdown, comparisons: Sequence[Comparison], ours: str
) -> dict[str, Any]:
    """Shares of operators and of the machine's peak, on one thread."""
    of_peak = breakdown.share_of_peak(comparisons[0].rates, ours) if comparisons else {}
    return {
        "engine_of_peak": of_peak.get(_PEAK_CASE),
        "engine_of_peak_by_case": of_peak,
        "int8_gops": breakdown.peak.int8_ops_per_second / 1e9,
        "float_gops": breakdown.peak.float_ops_per_second / 1e9,
        "whole_model_at_peak_tokens_per_second": breakdown.dense_limits(),
        "operators": {
            "case": _FALLBACK_CASE,
            "ours": breakdown.ours[_FALLBACK_CASE].shares,
            "ours_of_peak": breakdown.ours[_FALLBACK_CASE].of_peak(breakdown.peak),
            "stock": breakdown.stock[_FALLBACK_CASE].shares if breakdown.stock else {},
        },
    }


def print_report(report: dict[str, Any], console: Console) -> None:
    """Tables of everything that was measured but the comparisons, which have their own."""
    if "operators" in report:
        console.print(_operator_table(report))
    console.print(_ratio_table(report))


def print_comparison(comparison: Comparison, limits: dict[str, float], console: Console) -> None:
    """Table of one comparison, with the rates that one core's peak allows, by case."""
    by_case = comparison.rates.by_case
    title = f"Engines, {_threads(comparison.num_threads)}: tokens/s"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for case in by_case:
        table.add_column(case, justify="right")
    table.add_column("our label", justify="right")
    for name in dict.fromkeys(name for rates in by_case.values() for name in rates):
        rates = [by_case[case].get(name) for case in by_case]
        agreement = comparison.agreement.get(name)
        table.add_row(
            name,
            *("" if rate is None else f"{rate:,.0f}" for rate in rates),
            "" if agreement is None else f"{100 * agreement:.1f}%",
        )
    if limits and comparison.num_threads == 1:
        at_peak = [f"{limits[case]:,.0f}" if case in limits else "" for case in by_case]
        table.add_row("the whole model's arithmetic at this machine's peak", *at_peak, "")
    console.print(table)


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be drawn, before what it shows takes its time.

    Raises:
        InputError: It would not be a PNG file, or has no directory.
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib  # noqa: F401

    if path.suffix != ".png":
        raise InputError(f"--plot {path}: give a name that ends in .png")
    if not path.parent.is_dir():
        raise InputError(f"--plot {path}: no such directory")


def save_plot(report: dict[str, Any], path: Path) -> None:
    """Draw tokens a second of the engines and rows a second of the jobs as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    charts: list[tuple[str, dict[str, float]]] = []
    for comparison in report.get("engines", ()):
        for case, rates in comparison["tokens_per_second"].items():
            charts.append((f"{case}, {_threads(comparison['num_threads'])}: tokens/s", rates))
    peers = {name: peer["rows_per_second"] for name, peer in report.get("peers", {}).items()}
    if peers:
        ours = report["job_beside_peers_rows_per_second"]
        charts.append(("whole job: rows/s", {"fastformers": ours, **peers}))
    if not charts:
        return
    figure, all_axes = pyplot.subplots(
        len(charts), figsize=(9, 0.6 + 2.2 * len(charts)), layout="constrained", squeeze=False
    )
    for axes, (title, rates) in zip(all_axes[:, 0], charts, strict=True):
        names = sorted(rates, key=lambda name: rates[name])
        colors = ["#2a6fdb" if name.startswith("fastformers") else "#b9c2cc" for name in names]
        bars = axes.barh(names, [rates[name] for name in names], color=colors)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.margins(x=0.15)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report['cpu_model']}, {report['measured_at']}", fontsize=9)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _operator_table(report: dict[str, Any]) -> Table:
    operators = report["operators"]
    of_peak = operators["ours_of_peak"]
    table = Table(title=f"Operators, {operators['case']}, one core", title_justify="left")
    for heading in ("ours", "time", "at peak", "stock recipe", "time"):
        table.add_column(heading, justify="right" if heading in ("time", "at peak") else "left")
    ours = [
        (name, f"{100 * share:.1f}%", f"{100 * of_peak[name]:.0f}%" if name in of_peak else "")
        for name, share in operators["ours"].items()
        if share >= _MIN_SHARE
    ]
    stock = [
        (name, f"{100 * share:.1f}%")
        for name, share in operators["stock"].items()
        if share >= _MIN_SHARE
    ]
    for left, right in itertools.zip_longest(ours, stock):
        table.add_row(*(left or ("", "", "")), *(right or ("", "")))
    table.caption = "at peak: share of an operator's time that its arithmetic needs at the peak"
    return table


def _ratio_table(report: dict[str, Any]) -> Table:
    table = Table(title="Ratios", show_header=False, title_justify="left")
    for name, value in report.items():
        if not name.startswith(("engine_o", "job_over_")) or name.endswith("_by_case"):
            continue
        reason = escape(report["not_run"].get(name, ""))
        table.add_row(
            name.replace("_", " "), f"not run: {reason}" if value is None else f"{value:.2f}"
        )
    for name, peer in report.get("peers", {}).items():
        setting = escape(peer["setting"])
        table.add_row(f"  {name}", f"{peer['rows_per_second']:,.1f} rows/s: {setting}")
    if "job_beside_peers_rows_per_second" in report:
        ours = report["job_beside_peers_rows_per_second"]
        table.add_row(
            "  fastformers", f"{ours:,.1f} rows/s on the same {report['peer_rows']:,} rows"
        )
    if "saved_by_scoring_equal_texts_once" in report:
        saved = 100 * report["saved_by_scoring_equal_texts_once"]
        table.add_row("equal texts scored once", f"saves {saved:.1f}% of the corpus's tokens")
    return table
