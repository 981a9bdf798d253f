"""The report as one page: numbers, plots, and beside each plot its table.

    RunReport -> [page] -> report.html

One file that opens anywhere: nothing is loaded, nothing runs, and colors follow the reader's light
or dark theme. What is plotted is bounded (`downsample`), so the page stays small. This module
turns numbers into text, `page.html` lays it out, and jinja2 escapes it; it does not know how plots
are drawn. Needs the extra `report`.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastformers import figure
from fastformers.cluster.formatting import format_long_duration, format_usd, usd_places
from fastformers.cluster.records.audit import AuditReport, describe_finding
from fastformers.cluster.records.quality import Quality
from fastformers.cluster.report.bill import Prediction, round_for_people
from fastformers.cluster.report.energy import how_to_measure
from fastformers.cluster.report.forecasts.beside_bill import quotes_beside_bill
from fastformers.cluster.report.forecasts.section import show_quotes
from fastformers.cluster.report.frontier.points import FrontierPoint
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.report.sections import (
    MAX_TABLE_ROWS,
    Section,
    show_audit,
    show_dead_letters,
    show_frontier,
    show_lengths,
    show_nodes,
    show_other_types,
    show_quality,
    show_sessions,
    show_throughput,
    show_timeline,
)
from fastformers.cluster.report.tables import (
    describe_cascade,
    describe_energy,
    describe_kinds,
    describe_unfit,
)
from fastformers.formatting import format_count

PAGE_FILE = "report.html"
_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, kw_only=True)
class Card:
    """A number at the top of the page: its name, value and unit, and a note under it."""

    name: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of the bill, as text."""

    heading: str
    what: str
    time: str
    usd: str
    share: str


@dataclass(frozen=True, kw_only=True)
class _Bill:
    """The bill, as text."""

    price: str
    lines: Sequence[_Line]
    total_time: str
    total_usd: str
    saved_usd: str
    prediction: str
    energy: str


def can_draw() -> bool:
    """Whether the extra `report` is installed."""
    return figure.can_draw() and importlib.util.find_spec("jinja2") is not None


def render_page(report: RunReport) -> str:
    """The page of one run."""
    started = datetime.fromisoformat(report.started_at)
    sections = []
    if report.quality is not None and report.quality.labels:
        sections.append(show_quality(report.quality))
    if report.audit is not None and report.audit.agreement is not None:
        sections.append(show_audit(report.audit))
    if len(report.sessions) > 1:
        sections.append(show_sessions(report))
    if report.history:
        sections.append(show_quotes(report))
    if report.dead_letter_reasons:
        sections.append(show_dead_letters(report))
    if report.other_types:
        sections.append(show_other_types(report))
    if report.lengths:
        sections.append(show_lengths(report))
    if len(report.nodes) > 1:
        sections.append(show_nodes(report))
    if report.timeline:
        sections += [show_throughput(report), show_timeline(report)]
    return fill_page(
        title=f"{report.rows:,} texts, {format_usd(report.usd_total)}",
        heading=f"{report.rows:,} texts scored for {format_usd(report.usd_total)}",
        note=f"{started:%Y-%m-%d %H:%M} UTC · {report.output}",
        cards=_cards(report),
        warnings=_warnings(report),
        bill=_bill(report),
        other_types_unknown=report.other_types_unknown,
        sections=sections,
        facts=_facts(report),
    )


def render_search_page(
    candidates: Sequence[FrontierPoint], *, metric: str, heading: str, note: str
) -> str:
    """A page of the bundles that a recipe search made: quality over cost.

    Args:
        candidates: At least one.
        metric: Name of the metric of their quality.
        heading: What was searched.
        note: Text under the heading, such as where prices are from.
    """
    sections = [show_frontier(candidates, metric=metric)]
    return fill_page(title=heading, heading=heading, note=note, sections=sections)


def fill_page(
    *,
    title: str,
    heading: str,
    note: str,
    sections: Sequence[Section],
    cards: Sequence[Card] = (),
    warnings: Sequence[str] = (),
    bill: _Bill | None = None,
    other_types_unknown: str | None = None,
    facts: Mapping[str, str] | None = None,
    source: str = "report.json",
) -> str:
    """The page of these parts; every text is escaped.

    Args:
        title: Name of the page in a browser.
        heading: What it shows.
        note: Text under the heading.
        sections: Plots with their tables.
        cards: Numbers at the top.
        warnings: Lines that a reader must not miss.
        bill: The bill of a run.
        other_types_unknown: Why the run's costs elsewhere are not known.
        facts: What was used, in a footer.
        source: File that has every number of the page.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        heading=heading,
        note=note,
        cards=cards,
        warnings=warnings,
        bill=bill,
        other_types_unknown=other_types_unknown,
        sections=sections,
        facts=facts,
        source=source,
    )


def _cards(report: RunReport) -> list[Card]:
    per_million = report.usd_per_million
    efficiency = report.padding_efficiency
    million = ["none", ""] if per_million is None else format_usd(per_million).split()
    total = format_usd(report.usd_total).split()
    estimate = ", an estimate" if report.price_is_estimate else ""
    return [
        Card(
            name="Rows", value=f"{report.rows:,}", unit="", note=f"{report.unique_rows:,} different"
        ),
        Card(
            name="Speed",
            value=f"{report.rows_per_second:,.0f}",
            unit="rows/s",
            note=f"{report.tokens_per_second:,.0f} tokens/s",
        ),
        Card(name="A million rows", value=million[0], unit=million[1], note="at this run's rate"),
        Card(
            name="Total",
            value=total[0],
            unit=total[1],
            note=f"{report.usd_per_hour:g} USD/h a machine{estimate}",
        ),
        Card(
            name="Time",
            value=format_long_duration(report.wall_s),
            unit="",
            note=f"{format_count(report.num_actors, 'actor')}, "
            f"{format_count(report.num_machines, 'machine')}",
        ),
        Card(
            name="Tokens",
            value=f"{report.tokens:,}",
            unit="",
            note="" if efficiency is None else f"{100 * (1 - efficiency):.1f}% padding",
        )
        if report.quality is None
        else _quality_card(report.quality),
    ]


def _quality_card(quality: Quality) -> Card:
    return Card(
        name=f"{quality.metric[0].upper()}{quality.metric[1:]}",
        value=f"{100 * quality.value:.2f}",
        unit="%",
        note=f"of {format_count(quality.rows, 'labeled row')}",
    )


def _warnings(report: RunReport) -> list[str]:
    notes = []
    if report.dead_letters:
        rows = format_count(report.dead_letters, "row")
        notes.append(f"{rows} without a prediction (dead_letters.parquet).")
    if report.retries:
        notes.append(f"{format_count(report.retries, 'lease')} lost with an actor, and retried.")
    if report.skipped_files:
        notes.append(f"{format_count(len(report.skipped_files), 'unreadable file')} left out.")
    notes.extend(f"{line}." for line in report.left_out)
    if report.unfit_values:
        notes.append(f"Kept columns: {describe_unfit(report.unfit_values)}.")
    if report.unrecorded_rows:
        notes.append(
            f"{report.unrecorded_rows:,} rows were scored in the last seconds of sessions that "
            "ended early, and count in no rate."
        )
    notes.extend(f"{mismatch}." for mismatch in report.price_mismatches)
    notes.extend(_audit_warnings(report.audit))
    if report.quality_unknown is not None:
        notes.append(f"How right the predictions are is not known: {report.quality_unknown}.")
    return notes


def _audit_warnings(audit: AuditReport | None) -> list[str]:
    if audit is None:
        return []
    finding, notes = describe_finding(audit), []
    if audit.is_refused and audit.min_agreement is not None:
        notes.append(f"{finding}, below --audit-min-agreement {100 * audit.min_agreement:g}.")
    elif audit.agreement is None:
        notes.append(f"Agreement with the audit bundle is {finding}.")
    if audit.agreement is not None and audit.failed_rows:
        failed = format_count(audit.failed_rows, "row")
        notes.append(f"{failed} drawn, which the audit bundle could not score.")
    return notes


def _bill(report: RunReport) -> _Bill:
    bill = report.bill
    total_s = sum(item.core_s for item in bill.items) or 1.0
    places, saved = usd_places(bill.total_usd), bill.duplicates_saved_usd
    amounts = round_for_people(bill.items, usd_total=bill.total_usd)
    energy = (
        f"not measured; {how_to_measure()}"
        if report.energy is None
        else describe_energy(report.energy)
    )
    return _Bill(
        price=report.price,
        lines=[
            _Line(
                heading=item.heading,
                what=item.what,
                time=format_long_duration(item.core_s),
                usd=_shown_usd(float(amount), item.usd, places),
                share=f"{100 * item.core_s / total_s:.1f}%",
            )
            for item, amount in zip(bill.items, amounts, strict=True)
        ],
        total_time=format_long_duration(total_s),
        total_usd=f"{bill.total_usd:,.{places}f}",
        saved_usd=_shown_usd(-round(saved, places), saved, places),
        prediction="" if bill.prediction is None else _describe_prediction(report, bill.prediction),
        energy=energy[0].upper() + energy[1:],
    )


def _shown_usd(rounded: float, usd: float, places: int) -> str:
    """An amount of the bill; one that is rounded to nothing is not called nothing."""
    return f"<{0.1**places:.{places}f}" if usd and not rounded else f"{rounded:,.{places}f}"


def _describe_prediction(report: RunReport, prediction: Prediction) -> str:
    return (
        f"Compute: {format_long_duration(prediction.predicted_core_s)} of a core predicted by the "
        f"bundle's cost profile, {format_long_duration(prediction.measured_core_s)} measured; the "
        f"prediction is {100 * prediction.error:+.1f}% off. Once the machine's speed is set right, "
        f"a shard is {100 * prediction.shard_error:.1f}% off on average. "
        f"The profile was measured on {report.bundle.profile_cpu}, and this run's driver is "
        f"on {report.driver_cpu}."
    )


def _quoted(report: RunReport) -> dict[str, str]:
    """What was quoted before, where the run was too short to quote itself."""
    rows = [] if report.history else quotes_beside_bill(report)
    return {name: ", ".join(filter(None, texts)) for name, *texts in rows}


def _facts(report: RunReport) -> dict[str, str]:
    bundle = report.bundle
    return {
        "bundle": f"{bundle.path} ({bundle.precision}, {bundle.digest[:12]})",
        **({} if report.cascade is None else {"cascade": describe_cascade(report.cascade)}),
        **_quoted(report),
        "token budget": f"{bundle.max_batch_tokens:,} tokens a batch",
        "actors": "; ".join(report.cores[:MAX_TABLE_ROWS]) or "none were needed",
        **({"GPUs and cores": "; ".join(describe_kinds(report))} if report.uses_gpus else {}),
        "memory": f"{report.peak_rss_bytes / 2**20:,.0f} MiB at an actor's peak",
    }
