"""What `fastformers bench` measured, as tables for people.

    EngineRates, BenchReport -> [tables] -> stderr

Ratios above 1 mean that fastformers is faster. Everything that a table shows is in the report;
this module measures nothing.
"""

import itertools
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from fastformers.formatting import format_count
from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import EngineRates, NotRun, OperatorShares

_MIN_SHARE = 0.01


def print_report(report: BenchReport, console: Console) -> None:
    """Tables of everything that was measured, except the engines' rates, which have their own."""
    if not isinstance(report.operators, NotRun):
        console.print(_operator_table(report.operators.operators))
    console.print(_ratio_table(report))


def print_rates(rates: EngineRates, limits: Mapping[str, float], console: Console) -> None:
    """Table of the engines on one number of threads.

    Args:
        rates: What was measured.
        limits: Tokens a second that one core's peak allows, by case; shown on one thread.
        console: Console to print to.
    """
    by_case = rates.tokens_per_second
    threads = format_count(rates.num_threads, "thread")
    table = Table(title=f"Engines, {threads}: tokens/s", title_justify="left")
    table.add_column("")
    for case in by_case:
        table.add_column(case, justify="right")
    table.add_column("our label", justify="right")
    for name in dict.fromkeys(name for by_name in by_case.values() for name in by_name):
        found = [by_case[case].get(name) for case in by_case]
        agreement = rates.agreement.get(name)
        table.add_row(
            name,
            *("" if rate is None else f"{rate:,.0f}" for rate in found),
            "" if agreement is None else f"{100 * agreement:.1f}%",
        )
    if limits and rates.num_threads == 1:
        at_peak = [f"{limits[case]:,.0f}" if case in limits else "" for case in by_case]
        table.add_row("the whole model's arithmetic at this machine's peak", *at_peak, "")
    console.print(table)


def _operator_table(operators: OperatorShares) -> Table:
    of_peak = operators.ours_of_peak
    table = Table(title=f"Operators, {operators.case}, one core", title_justify="left")
    for heading in ("ours", "time", "at peak", "stock recipe", "time"):
        table.add_column(heading, justify="right" if heading in ("time", "at peak") else "left")
    ours = [
        (name, f"{100 * share:.1f}%", f"{100 * of_peak[name]:.0f}%" if name in of_peak else "")
        for name, share in operators.ours.items()
        if share >= _MIN_SHARE
    ]
    stock = [
        (name, f"{100 * share:.1f}%")
        for name, share in operators.stock.items()
        if share >= _MIN_SHARE
    ]
    for left, right in itertools.zip_longest(ours, stock):
        table.add_row(*(left or ("", "", "")), *(right or ("", "")))
    table.caption = "at peak: share of an operator's time that its arithmetic needs at the peak"
    return table


def _ratio_table(report: BenchReport) -> Table:
    table = Table(title="Ratios", show_header=False, title_justify="left")
    for name, ratio in report.ratios().items():
        shown = f"not run: {ratio.reason}" if isinstance(ratio, NotRun) else f"{ratio:.2f}"
        table.add_row(name.replace("_", " "), shown)
    baselines = report.job_baselines
    if not isinstance(baselines, NotRun):
        for baseline, rate in baselines.measured().items():
            setting = rate.setting
            table.add_row(f"  {baseline}", f"{rate.rows_per_second:,.1f} rows/s: {setting}")
        ours = f"{baselines.our_rows_per_second:,.1f} rows/s on the same {baselines.rows:,} rows"
        table.add_row("  fastformers", ours)
    if not isinstance(report.job, NotRun):
        saved = 100 * report.job.saved_by_scoring_equal_texts_once
        table.add_row("equal texts scored once", f"saves {saved:.1f}% of the corpus's tokens")
    return table
