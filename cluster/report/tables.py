"""The report as tables in a terminal: what was done, and where the money went.

    RunReport -> [tables] -> stderr

This module shows what the report says, and works nothing out.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from rich.console import Group
from rich.table import Table

from fastformers.cluster.formatting import format_usd
from fastformers.cluster.records.audit import (
    AuditReport,
    describe_finding,
    describe_interval,
)
from fastformers.cluster.report.bill import round_total
from fastformers.cluster.report.forecasts.beside_bill import HEADS, quotes_beside_bill
from fastformers.cluster.report.over_time import AgreementReport, CascadeReport
from fastformers.cluster.report.run_report import Energy, RunReport
from fastformers.formats.kept_columns import ALL_COLUMNS
from fastformers.formatting import format_count

MAX_ACTORS, MAX_NODES, MAX_FILES, MAX_REASONS = 32, 32, 8, 4


def render_bill(report: RunReport) -> Group:
    """The report as tables for people: what was done, by which nodes, and where the money went."""
    sessions = [_render_sessions(report)] if len(report.sessions) > 1 else []
    kinds = [_render_kinds(report)] if report.uses_gpus else []
    nodes = [_render_nodes(report)] if len(report.nodes) > 1 else []
    quotes = _render_quotes(report)
    return Group(_render_summary(report), *sessions, *kinds, *nodes, _render_items(report), *quotes)


def _render_summary(report: RunReport) -> Table:
    table = Table(title="Bill", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    rows, unique = report.rows, report.unique_rows
    resumed = f", {report.resumed_rows:,} rows by earlier sessions" if report.resumed_rows else ""
    table.add_row("rows", f"{rows:,} ({unique:,} different texts scored{resumed})")
    efficiency = report.padding_efficiency
    padding = "" if efficiency is None else f" (padding efficiency {efficiency:.3f})"
    table.add_row("tokens", f"{report.tokens:,}{padding}")
    if report.cascade is not None:
        table.add_row("cascade", describe_cascade(report.cascade))
    table.add_row("dead letters", f"{report.dead_letters:,}")
    for reason, count in list(report.dead_letter_reasons.items())[:MAX_REASONS]:
        table.add_row("", f"{count:,}: {reason}")
    if report.quality is not None or report.quality_unknown is not None:
        table.add_row("quality", _describe_quality(report))
    for name, line in describe_audit(report.audit).items():
        table.add_row(name, line)
    _add_speed(table, report)
    _add_trouble(table, report)
    table.add_row("price", f"{report.usd_per_hour:.4f} USD/h ({report.price})")
    for mismatch in report.price_mismatches:
        table.add_row("  but", mismatch)
    per_million = report.usd_per_million
    table.add_row("cost", format_usd(report.usd_total))
    if per_million is not None:
        table.add_row("per million rows", format_usd(per_million))
    return table


def _add_speed(table: Table, report: RunReport) -> None:
    """Rows of how fast the run was, which actors were slowest, and what actors did."""
    table.add_row(
        "speed",
        f"{report.rows_per_second:,.0f} rows/s, {report.tokens_per_second:,.0f} tokens/s "
        f"in {report.wall_s:.1f} s",
    )
    slowest = sorted(report.actors.items(), key=lambda item: item[1].tokens_per_second)
    for name, actor in sorted(slowest[:MAX_ACTORS]):
        table.add_row(
            f"  {name}",
            f"{actor.rows_per_second:,.0f} rows/s, {actor.tokens_per_second:,.0f} tokens/s, "
            f"{actor.shards} shards, peak {actor.peak_rss_bytes / 2**20:,.0f} MiB",
        )
    if len(slowest) > MAX_ACTORS:
        table.add_row("", f"the slowest {MAX_ACTORS} of {len(slowest):,} actors")
    phases = {name: s for name, s in asdict(report.phase_s).items() if s or name != "audit"}
    total_s = sum(phases.values()) or 1.0
    table.add_row(
        "actor time", ", ".join(f"{name} {100 * s / total_s:.1f}%" for name, s in phases.items())
    )


def _add_trouble(table: Table, report: RunReport) -> None:
    """Rows of what was done again, left out or without a value; none where all went well."""
    if report.retries or report.skipped_files:
        table.add_row(
            "trouble",
            f"{report.retries} leases retried, {len(report.skipped_files)} files skipped",
        )
    skipped = list(report.skipped_files.items())
    for path, reason in skipped[:MAX_FILES]:
        table.add_row("  skipped", f"{path}: {reason}")
    if len(skipped) > MAX_FILES:
        table.add_row("", f"{MAX_FILES} of {len(skipped):,} files; all are in report.json")
    if report.unfit_values:
        table.add_row("kept columns", describe_unfit(report.unfit_values))


def describe_unfit(unfit_values: Mapping[str, int]) -> str:
    """How many values of which kept columns are null because their type is another."""
    columns = ", ".join(
        f"{count:,} of columns that were not known before"
        if name == ALL_COLUMNS
        else f"{count:,} of {name!r}"
        for name, count in sorted(unfit_values.items(), key=lambda item: -item[1])
    )
    return f"values that did not fit are null: {columns}"


def _render_kinds(report: RunReport) -> Table:
    """What each kind of actor did, and whether GPUs were held up by those that feed them."""
    table = Table(title="Actors", title_justify="left")
    for name in ("on", "precision", "actors", "shards", "rows", "tokens", "computing", "busy"):
        table.add_column(name, justify="left" if name in ("on", "precision") else "right")
    for name in ("USD", "USD/million", "bound by"):
        table.add_column(name, justify="left" if name == "bound by" else "right")
    for kind in report.kinds:
        table.add_row(
            "GPUs" if kind.device == "cuda" else "cores",
            kind.precision or "none: they tokenize",
            f"{kind.actors:,}",
            f"{kind.shards:,}",
            f"{kind.rows:,}",
            f"{100 * kind.share_of_tokens:.1f}%",
            _percent(kind.computing),
            _percent(kind.gpu_busy),
            f"{kind.usd:,.4f}",
            "" if kind.usd_per_million is None else f"{kind.usd_per_million:,.4f}",
            kind.bound_by or "",
        )
    if report.agreement is not None:
        table.caption = describe_agreement(report.agreement)
        table.caption_justify = "left"
    return table


def describe_kinds(report: RunReport) -> list[str]:
    """What actors on GPUs and on cores did, a line each, and how much their precisions agree."""
    lines = []
    for kind in report.kinds:
        place = "GPUs" if kind.device == "cuda" else "cores"
        line = f"{format_count(kind.actors, 'actor')} on {place}"
        if kind.precision is None:
            line += " tokenized"
        else:
            line += (
                f" scored {100 * kind.share_of_tokens:.1f}% of the tokens in {kind.precision}, and "
                f"computed {_percent(kind.computing) or 'for none'} of the time"
            )
        if kind.gpu_busy is not None:
            line += f" (GPU busy {_percent(kind.gpu_busy)})"
        lines.append(line + (f", held up by the {kind.bound_by}" if kind.bound_by else ""))
    return [*lines, *([describe_agreement(report.agreement)] if report.agreement else [])]


def describe_agreement(agreement: AgreementReport) -> str:
    """How much two precisions agree."""
    return (
        f"{' and '.join(agreement.precisions)}: {100 * agreement.equal_labels:.2f}% equal labels "
        f"of {agreement.texts:,} texts scored in both, values differ by up to "
        f"{agreement.largest_difference:.2g}"
    )


def describe_cascade(cascade: CascadeReport) -> str:
    """How many texts went on to the second graph, and what it took."""
    return (
        f"{cascade.second_texts:,} of {cascade.texts:,} texts ({_percent(cascade.share)}; "
        f"{_percent(cascade.expected_share)} expected of these lengths) went on to the second "
        f"graph, {_percent(cascade.share_of_compute)} of the compute"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _describe_quality(report: RunReport) -> str:
    quality = report.quality
    if quality is None:
        return f"not known: {report.quality_unknown}"
    between = ""
    if quality.low is not None and quality.high is not None:
        between = f" (95%: {100 * quality.low:.2f} to {100 * quality.high:.2f})"
    return (
        f"{quality.metric} {100 * quality.value:.2f}%{between} on {quality.rows:,} rows; column "
        f"{quality.label_column!r} read {quality.read_as}"
    )


def describe_audit(audit: AuditReport | None) -> dict[str, str]:
    """How far the audit bundle agrees, what that cost, what it says of quality: lines by name."""
    if audit is None:
        return {}
    lines = {
        "audit": f"{describe_finding(audit)}, by {audit.bundle} ({audit.precision})",
        "  cost": f"{audit.core_s:,.1f} core-seconds, {format_usd(audit.usd)}",
    }
    if audit.is_refused and audit.min_agreement is not None:
        lines["  but"] = f"this is below --audit-min-agreement {100 * audit.min_agreement:g}"
    if audit.difference is not None:
        between = describe_interval(audit.difference, scale=1, form=".3g")
        lines["  distance"] = f"{audit.difference.value:.3g}{between} between two numbers, the mean"
    if audit.failed_rows:
        lines["  failed"] = f"{audit.failed_rows:,} rows drawn, which the audit bundle cannot score"
    quality = audit.quality
    if quality is not None:
        lines[f"  {quality.metric}"] = (
            f"{100 * quality.own:.2f}% here, {100 * quality.auditors:.2f}% by the audit bundle: "
            f"{100 * quality.difference.value:+.2f} points{describe_interval(quality.difference)} "
            f"on {format_count(quality.rows, 'row')} with a label"
        )
    if audit.quality_unknown is not None:
        lines["  quality"] = f"not known: {audit.quality_unknown}"
    return lines


def _render_sessions(report: RunReport) -> Table:
    """Each start of the command; the bill is of all of them."""
    table = Table(title="Sessions", title_justify="left")
    for name in ("start, UTC", "", "time, s", "rows", "machines", "actors", "USD"):
        table.add_column(name, justify="left" if name in ("start, UTC", "") else "right")
    for session in report.sessions[-MAX_NODES:]:
        table.add_row(
            f"{datetime.fromisoformat(session.started_at):%Y-%m-%d %H:%M:%S}",
            session.state,
            f"{session.wall_s:,.1f}",
            f"{session.rows:,}",
            f"{session.num_machines:,}",
            f"{session.num_actors:,}",
            format_usd(session.usd),
        )
    notes = []
    if len(report.sessions) > MAX_NODES:
        notes.append(f"the last {MAX_NODES} of {len(report.sessions):,}; all are in report.json")
    if report.unrecorded_rows:
        notes.append(
            f"{report.unrecorded_rows:,} rows were scored in the last seconds of sessions that "
            "ended early, and count in no rate"
        )
    table.caption, table.caption_justify = "\n".join(notes) or None, "left"
    return table


def _render_nodes(report: RunReport) -> Table:
    """Nodes that left before the end first, then those that scored most."""
    table = Table(title="Nodes", title_justify="left")
    for name in ("node", "type", "from, s", "to, s", "actors", "shards", "rows/s", "USD", "left"):
        table.add_column(name, justify="left" if name in ("node", "type", "left") else "right")
    nodes = sorted(report.nodes, key=lambda node: (node.left_because is None, -node.rows))
    for node in nodes[:MAX_NODES]:
        table.add_row(
            node.name,
            node.instance_type or "unknown",
            f"{node.joined_s:,.0f}",
            f"{node.left_s:,.0f}",
            f"{node.actors:,}",
            f"{node.shards:,}",
            f"{node.rows_per_second:,.0f}",
            f"{node.usd:,.4f}",
            node.left_because or "",
        )
    if len(nodes) > MAX_NODES:
        table.caption = f"{MAX_NODES} of {len(nodes):,}; all are in report.json"
    return table


def _render_items(report: RunReport) -> Table:
    bill = report.bill
    table = Table(title="Where the money went", title_justify="left")
    table.add_column("", style="bold")
    for name in ("core-seconds", "USD", "share"):
        table.add_column(name, justify="right")
    total_s = sum(item.core_s for item in bill.items)
    places = max(2, -int(round_total(report.usd_total).as_tuple().exponent))
    for item in bill.items:
        table.add_row(
            item.heading,
            f"{item.core_s:,.1f}",
            f"{item.usd:,.{places}f}",
            f"{100 * item.core_s / total_s:.1f}%",
        )
    table.add_section()
    table.add_row("total", f"{total_s:,.1f}", f"{bill.total_usd:,.{places}f}", "100.0%")
    saved = bill.duplicates_saved_usd
    table.add_row("saved: equal texts", "", f"{-saved if saved else 0:,.{places}f}", "")
    prediction = bill.prediction
    if prediction is not None:
        table.caption = (
            f"compute: {prediction.predicted_core_s:,.1f} core-seconds predicted, "
            f"{prediction.measured_core_s:,.1f} measured ({100 * prediction.error:+.1f}%)"
        )
        table.caption_justify = "left"
    energy = report.energy
    if energy is not None:
        table.caption = "\n".join([str(table.caption or ""), describe_energy(energy)]).strip()
    return table


def _render_quotes(report: RunReport) -> list[Table]:
    """What the run was quoted at beside what it cost; nothing where nothing was quoted."""
    rows = quotes_beside_bill(report)
    table = Table(title="Quotes and bill", title_justify="left")
    for name in HEADS:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    return [table] if rows else []


def describe_energy(energy: Energy) -> str:
    """The electricity that was drawn, how it is known, and what it covers."""
    gpu = "" if energy.gpu_basis == "none" else f", GPUs {energy.gpu_basis}"
    return (
        f"driver's node: {1000 * energy.kwh:,.3g} Wh, "
        f"{1000 * energy.co2_kg:,.3g} g CO2e by the mix of {energy.country} "
        f"(CPU {energy.cpu_basis}{gpu}, memory modelled; {energy.covered_s:,.0f} s watched)"
    )
