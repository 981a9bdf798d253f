"""The section of the page that holds what a run said of its bill against what it cost.

    RunReport -> [section] -> page -> report.html

Needs the extra `report`.
"""

from fastformers.cluster.formatting import format_duration_range, format_usd_range
from fastformers.cluster.report.forecasts.beside_bill import HEADS, quotes_beside_bill
from fastformers.cluster.report.forecasts.plot import plot_history
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.report.sections import Section, SectionTable

_HOUR_S = 3600.0


def show_quotes(report: RunReport) -> Section:
    """All quotes of a run; it needs at least one of its own."""
    table = SectionTable(heading="Quotes and bill", heads=HEADS, rows=quotes_beside_bill(report))
    history = SectionTable(
        heading="All quotes",
        heads=("work done", "at, UTC", "actors", "USD", "time"),
        rows=[
            (
                f"{100 * quote.share:.0f}%",
                quote.at.removesuffix("+00:00").replace("T", " "),
                f"{quote.actors:,}",
                format_usd_range(quote.usd, quote.usd_low, quote.usd_high),
                format_duration_range(
                    _HOUR_S * quote.hours, _HOUR_S * quote.hours_low, _HOUR_S * quote.hours_high
                ),
            )
            for quote in report.history
        ],
    )
    return Section(
        heading="What the run said it would cost",
        caption="From the first hundredth of the work on, the run says what all of it will cost "
        "on the machines that are there, with a 90% interval from how its shards have differed.",
        svg=plot_history(report.history, report.usd_total),
        table=table,
        more=(history,),
    )
