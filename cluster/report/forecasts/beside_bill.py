"""The first quote, the last quote and the bill beside each other, as text.

    RunReport -> [beside_bill] -> table of the bill, page

This module knows neither terminals nor pages.
"""

from fastformers.cluster.formatting import (
    format_duration_range,
    format_long_duration,
    format_usd,
    format_usd_range,
)
from fastformers.cluster.records.quotes import EarlyQuote, Quote
from fastformers.cluster.report.run_report import RunReport
from fastformers.formatting import format_count

HEADS = ("", "USD", "time", "the bill against it")
_HOUR_S = 3600.0


def quotes_beside_bill(report: RunReport) -> list[tuple[str, str, str, str]]:
    """Rows under `HEADS`, the bill last; none where nothing was quoted."""
    rows = []
    if report.early_quote is not None:
        rows.append(_early_row(report.early_quote, report))
    if report.history:
        rows.append(_quote_row("first quote", report.history[0], report))
    if len(report.history) > 1:
        rows.append(_quote_row("last quote", report.history[-1], report))
    if rows:
        took = format_long_duration(report.wall_s)
        rows.append(("bill", format_usd(report.usd_total), took, ""))
    return rows


def describe_error(usd: float, quoted_usd: float) -> str:
    """The bill against a quote, in percent of the quote."""
    return f"{100 * (usd / quoted_usd - 1):+.1f}%" if quoted_usd > 0 else "not comparable"


def is_within(report: RunReport, quote: Quote) -> bool:
    """Whether the bill is in the interval of a quote."""
    return quote.usd_low <= report.usd_total <= quote.usd_high


def _early_row(early: EarlyQuote, report: RunReport) -> tuple[str, str, str, str]:
    usd = format_usd(early.usd)
    within = ""
    if early.usd_low is not None and early.usd_high is not None:
        usd = format_usd_range(early.usd, early.usd_low, early.usd_high)
        is_in = early.usd_low <= report.usd_total <= early.usd_high
        within = ", within its range" if is_in else ", outside its range"
    machines = format_count(early.machines, "machine")
    return (
        f"cost, {early.instance_type}",
        usd,
        f"{format_long_duration(early.hours * _HOUR_S)} on {machines}",
        describe_error(report.usd_total, early.usd) + within,
    )


def _quote_row(name: str, quote: Quote, report: RunReport) -> tuple[str, str, str, str]:
    within = "within" if is_within(report, quote) else "outside"
    hours = (quote.hours, quote.hours_low, quote.hours_high)
    return (
        f"{name}, at {100 * quote.share:.0f}%",
        format_usd_range(quote.usd, quote.usd_low, quote.usd_high),
        format_duration_range(*(_HOUR_S * number for number in hours)),
        f"{describe_error(report.usd_total, quote.usd)}, {within} its 90% interval",
    )
