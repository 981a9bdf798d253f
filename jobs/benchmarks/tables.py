"""What `fastformers bench` measured, as tables for people.

    EngineRates, BenchReport -> [tables] -> stderr

Ratios above 1 mean that fastformers is faster. Everything that a table shows is in the report;
this module measures nothing.
"""

import itertools
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table

from fastformers.formatting import format_count
from fastformers.jobs.benchmarks.bench_report import SINGLE_BASELINES, BenchReport
from fastformers.jobs.benchmarks.parts import (
    BaselineRate,
    BaselinesPart,
    EngineRates,
    NotRun,
    OperatorShares,
)

_MIN_SHARE = 0.01


def print_report(report: BenchReport, console: Console) -> None:
    """Tables of everything that was measured, except the engines' rates, which have their own."""
    if not isinstance(report.operators, NotRun):
        console.print(_operator_table(report.operators.operators))
    if not isinstance(report.job_baselines, NotRun):
        console.print(_job_table(report.job_baselines))
        for line in _describe_jobs(report.job_baselines):
            console.print(line)
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


def _job_table(jobs: BaselinesPart) -> Table:
    table = Table(title="Whole jobs, medians (spread)", title_justify="left")
    for heading in ("", "rows/s", "ours is faster by", "rows", "s", "start-up s", "accuracy"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("fastformers", *_cells(jobs.ours, ""))
    for name, found in jobs.measured().items():
        ratio = jobs.our_ratio(name)
        if not isinstance(ratio, NotRun):
            spread = f" ({ratio.least:.2f}-{ratio.most:.2f})" if ratio.least < ratio.most else ""
            table.add_row(name, *_cells(found, f"{ratio.value:.2f}x{spread}"))
    return table


def _cells(job: BaselineRate, ratio: str) -> list[str]:
    least, most = min(job.rows_per_second_by_turn), max(job.rows_per_second_by_turn)
    spread = f" ({least:,.1f}-{most:,.1f})" if least < most else ""
    return [
        f"{job.rows_per_second:,.1f}{spread}",
        ratio,
        f"{job.rows:,}",
        f"{job.seconds:.1f}",
        "" if job.startup_s is None else f"{job.startup_s:.1f}",
        "" if job.accuracy is None else f"{100 * job.accuracy:.2f}%",
    ]


def _describe_jobs(jobs: BaselinesPart) -> Iterator[str]:
    """How each job ran, or why it did not, a line each."""
    named: list[tuple[str, BaselineRate | NotRun]] = [("fastformers", jobs.ours)]
    for name, job in named + list(jobs.by_name.items()):
        if isinstance(job, NotRun):
            yield f"{name}: not run: {job.reason}"
        else:
            versions = ", ".join(
                f"{package} {version}" for package, version in job.versions.items()
            )
            yield f"{name}: {job.setting} ({versions})"


def _ratio_table(report: BenchReport) -> Table:
    table = Table(title="Ratios", show_header=False, title_justify="left")
    for name, ratio in report.ratios().items():
        if name in SINGLE_BASELINES:  # these have their own table
            continue
        shown = f"not run: {ratio.reason}" if isinstance(ratio, NotRun) else f"{ratio:.2f}"
        table.add_row(name.replace("_", " "), shown)
    if not isinstance(report.job, NotRun):
        saved = 100 * report.job.saved_by_scoring_equal_texts_once
        table.add_row("equal texts scored once", f"saves {saved:.1f}% of the corpus's tokens")
    return table
