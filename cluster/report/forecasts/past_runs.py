"""How far runs were from what they said they would cost, by corpus and instance type.

    RunReport of each -> [past_runs] -> PastRun, Group -> table and JSON of `fastformers report`

An error is the bill over the quote, less 1: above 0 where the run cost more than quoted. This
module reads no file.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group as Tables
from rich.table import Table

from fastformers.cluster.formatting import format_usd
from fastformers.cluster.records.quotes import EarlyQuote, Quote
from fastformers.cluster.report.forecasts.beside_bill import is_within
from fastformers.cluster.report.run_report import RunReport

# Names of the moments that are compared: before the run, its first quote, and the first one from a
# share of the work on that was made before the other share.
_COST, _FIRST = "cost", "first"
_FROM = {"10%": (0.10, 0.20), "50%": (0.50, 0.60)}
MOMENTS = (_COST, _FIRST, *_FROM)
MAX_RUNS = 50


@dataclass(frozen=True, kw_only=True)
class QuoteError:
    """How far a quote was from the bill.

    Attributes:
        share: Share of the work that was done; 0 before the run.
        usd, hours: Bill over quote, less 1.
        is_within: Whether the bill is in the quote's interval; None where it has none.
    """

    share: float
    usd: float
    hours: float
    is_within: bool | None


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that was quoted.

    Attributes:
        run: Its output.
        corpus: What it scored or prepared; "" where that was not kept.
        instance_type: Types of its machines, or their processor where that is not known.
        usd, hours: The bill.
        errors: Errors of its quotes by the name of the moment, of `MOMENTS`.
    """

    run: str
    corpus: str
    instance_type: str
    usd: float
    hours: float
    errors: dict[str, QuoteError]


@dataclass(frozen=True, kw_only=True)
class MomentErrors:
    """Errors in USD of the quotes of several runs at one moment.

    Attributes:
        runs: How many have one.
        mean: Mean error.
        mean_size: Mean of the errors without their signs.
        worst: The largest of them, with its sign.
        with_interval: How many have an interval.
        within: How many of these have the bill in it.
    """

    runs: int
    mean: float
    mean_size: float
    worst: float
    with_interval: int
    within: int


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs of one corpus on one type of machine, and their errors by moment."""

    corpus: str
    instance_type: str
    runs: int
    errors: dict[str, MomentErrors]


def look_back(report: RunReport) -> PastRun | None:
    """The errors of a run's quotes; None where it has none to compare."""
    errors: dict[str, QuoteError] = {}
    if report.early_quote is not None and report.early_quote.usd > 0:
        errors[_COST] = _early_error(report, report.early_quote)
    quotes = [quote for quote in report.history if quote.usd > 0 and quote.hours > 0]
    if quotes:
        errors[_FIRST] = _error(report, quotes[0])
    for name, (low, high) in _FROM.items():
        found = next((quote for quote in quotes if low <= quote.share < high), None)
        if found is not None:
            errors[name] = _error(report, found)
    if not errors:
        return None
    types = {node.instance_type for node in report.nodes if node.instance_type and node.actors}
    return PastRun(
        run=report.output,
        corpus=report.corpus,
        instance_type=" + ".join(sorted(types)) or report.driver_cpu,
        usd=report.usd_total,
        hours=report.wall_s / 3600,
        errors=errors,
    )


def group_runs(runs: Iterable[PastRun]) -> list[RunGroup]:
    """Errors by corpus and type of machine, in the order of these names."""
    by_group: dict[tuple[str, str], list[PastRun]] = {}
    for run in runs:
        by_group.setdefault((run.corpus, run.instance_type), []).append(run)
    return [
        RunGroup(
            corpus=corpus,
            instance_type=instance_type,
            runs=len(own),
            errors={
                name: _sum_up([run.errors[name] for run in own if name in run.errors])
                for name in MOMENTS
                if any(name in run.errors for run in own)
            },
        )
        for (corpus, instance_type), own in sorted(by_group.items())
    ]


def render_past_runs(runs: Sequence[PastRun], groups: Sequence[RunGroup]) -> Tables:
    """Errors of each run, and of each corpus and type of machine."""
    each = Table(title="Bill against quotes", title_justify="left")
    for name in ("run", "USD", *MOMENTS):
        each.add_column(name, justify="left" if name == "run" else "right")
    for run in runs[-MAX_RUNS:]:
        cells = (_cell(run.errors.get(name)) for name in MOMENTS)
        each.add_row(run.run, format_usd(run.usd), *cells)
    notes = ["* the bill is outside the quote's interval; first: from 1% of the work on"]
    if len(runs) > MAX_RUNS:
        notes.append(f"the last {MAX_RUNS} of {len(runs):,}; --json has all")
    each.caption, each.caption_justify = "\n".join(notes), "left"
    both = Table(title="By corpus and instance type", title_justify="left")
    heads = ("corpus", "type", "quote", "runs", "mean", "mean size", "worst", "within")
    for name in heads:
        both.add_column(name, justify="left" if name in heads[:3] else "right")
    for group in groups:
        for name, errors in group.errors.items():
            both.add_row(
                group.corpus or "unknown",
                group.instance_type,
                name,
                f"{errors.runs:,}",
                f"{100 * errors.mean:+.1f}%",
                f"{100 * errors.mean_size:.1f}%",
                f"{100 * errors.worst:+.1f}%",
                f"{errors.within:,} of {errors.with_interval:,}" if errors.with_interval else "",
            )
    return Tables(each, both)


def _cell(error: QuoteError | None) -> str:
    if error is None:
        return ""
    return f"{100 * error.usd:+.1f}%{'*' if error.is_within is False else ''}"


def _error(report: RunReport, quote: Quote) -> QuoteError:
    return QuoteError(
        share=quote.share,
        usd=report.usd_total / quote.usd - 1,
        hours=report.wall_s / 3600 / quote.hours - 1,
        is_within=is_within(report, quote),
    )


def _early_error(report: RunReport, early: EarlyQuote) -> QuoteError:
    low, high = early.usd_low, early.usd_high
    return QuoteError(
        share=0.0,
        usd=report.usd_total / early.usd - 1,
        hours=report.wall_s / 3600 / early.hours - 1 if early.hours > 0 else 0.0,
        is_within=None if low is None or high is None else low <= report.usd_total <= high,
    )


def _sum_up(errors: Sequence[QuoteError]) -> MomentErrors:
    usd = [error.usd for error in errors]
    return MomentErrors(
        runs=len(usd),
        mean=math.fsum(usd) / len(usd),
        mean_size=math.fsum(map(abs, usd)) / len(usd),
        worst=max(usd, key=abs),
        with_interval=sum(error.is_within is not None for error in errors),
        within=sum(error.is_within is True for error in errors),
    )
