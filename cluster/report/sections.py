"""The sections of the page: each a plot, its caption, and the same numbers as a table.

    RunReport -> [sections] -> page -> report.html

The table is for readers who cannot see the plot. Long tables are cut, and say so. This module knows
neither how plots are drawn nor where they stand on the page. Needs the extra `report`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fastformers.cluster.formatting import format_long_duration, format_usd
from fastformers.cluster.records.audit import (
    AuditReport,
    Estimate,
    describe_finding,
    describe_interval,
)
from fastformers.cluster.records.quality import Quality
from fastformers.cluster.report import plots
from fastformers.cluster.report.downsample import plan_lanes, rate_tokens
from fastformers.cluster.report.frontier.plot import render_frontier
from fastformers.cluster.report.frontier.points import (
    FrontierPoint,
    frontier_heads,
    frontier_rows,
)
from fastformers.cluster.report.run_report import RunReport
from fastformers.formatting import format_count

MAX_TABLE_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class SectionTable:
    """The table of a section, as texts; its heading only stands where there are several."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    heading: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A plot under its heading, its caption, the same numbers as a table, and further tables."""

    heading: str
    caption: str
    svg: str
    table: SectionTable
    more: Sequence[SectionTable] = ()


def show_quality(quality: Quality) -> Section:
    """What was taken for what; needs labels, and so is not for numbers."""
    between = ""
    if quality.low is not None and quality.high is not None:
        between = f" (95% interval {100 * quality.low:.2f} to {100 * quality.high:.2f})"
    macro = "" if quality.macro_f1 is None else f", macro-F1 {100 * quality.macro_f1:.2f}%"
    unlabeled = f"; {quality.unlabeled:,} rows have none" if quality.unlabeled else ""
    by_label = sorted(quality.labels, key=lambda one: one.f1 if one.f1 is not None else 2.0)
    table = SectionTable(
        heading="By label",
        heads=["label", "rows", "predicted", "right", "precision", "recall", "F1"],
        rows=[
            [
                one.label,
                f"{one.rows:,}",
                f"{one.predicted:,}",
                f"{one.right:,}",
                *(_percent(share) for share in (one.precision, one.recall, one.f1)),
            ]
            for one in by_label[:MAX_TABLE_ROWS]
        ],
        caption=_count(by_label[:MAX_TABLE_ROWS], len(by_label), "worst first"),
    )
    names = [one.label for one in quality.labels]
    is_matrix = quality.confusion and len(names) <= plots.MAX_MATRIX_LABELS
    matrix = SectionTable(
        heading="What was taken for what",
        heads=["label, down; prediction, across", *names],
        rows=[
            [name, *(f"{count:,}" for count in counts)]
            for name, counts in zip(names, quality.confusion, strict=False)
        ],
    )
    return Section(
        heading="How right the predictions are",
        caption=f"{_begin(quality.metric)} {100 * quality.value:.2f}%{between}{macro}, on "
        f"{quality.rows:,} rows with a label in column {quality.label_column!r}, read "
        f"{quality.read_as}{unlabeled}."
        + (" Each line is the rows of a label, by what was predicted." if is_matrix else ""),
        svg=plots.plot_confusion(names, quality.confusion)
        if is_matrix
        else plots.plot_label_f1(by_label[:MAX_TABLE_ROWS]),
        table=matrix if is_matrix else table,
        more=(table,) if is_matrix else (),
    )


def show_audit(audit: AuditReport) -> Section:
    """How far the audit bundle agrees; needs at least one row that both have scored."""
    assert audit.agreement is not None
    agreement, quality = audit.agreement, audit.quality
    shares = {_begin(audit.measure): agreement}
    drop = ""
    if quality is not None:
        metric = _begin(quality.metric)
        shares[f"{metric}, this run"] = Estimate(value=quality.own)
        shares[f"{metric}, audit bundle"] = Estimate(value=quality.auditors)
        drop = (
            f" On the {format_count(quality.rows, 'row')} of these with a label, this run's "
            f"{quality.metric} is {100 * quality.difference.value:+.2f} points"
            f"{describe_interval(quality.difference)} beside the audit bundle's."
        )
    texts = {
        name: f"{100 * estimate.value:.2f}%{describe_interval(estimate)}"
        for name, estimate in shares.items()
    }
    return Section(
        heading="Audit",
        caption=f"{100 * audit.share:g}% of the rows, drawn at random, were scored by "
        f"{audit.bundle} ({audit.precision}), too, which took "
        f"{format_long_duration(audit.core_s)} of a core and cost {format_usd(audit.usd)}: "
        f"{describe_finding(audit)}.{drop}",
        svg=plots.plot_audit({name: (shares[name].value, texts[name]) for name in shares}),
        table=SectionTable(
            heads=["", "of the rows drawn"], rows=[[name, text] for name, text in texts.items()]
        ),
    )


def show_sessions(report: RunReport) -> Section:
    """Each start of the command: when, for how long, what it scored and cost."""
    sessions = report.sessions
    rows = [
        [
            f"{datetime.fromisoformat(session.started_at):%Y-%m-%d %H:%M}",
            session.state,
            format_long_duration(session.wall_s),
            f"{session.rows:,}",
            f"{session.num_machines:,}",
            f"{session.num_actors:,}",
            format_usd(session.usd),
        ]
        for session in sessions
    ]
    return Section(
        heading="Sessions",
        caption=f"The command was started {len(sessions)} times; the bill is of all of them. The "
        "plots below that have a time, and the machines, are of the last one.",
        svg=plots.plot_sessions(sessions),
        table=SectionTable(
            heads=["start, UTC", "", "time", "rows", "machines", "actors", "USD"],
            rows=rows[-MAX_TABLE_ROWS:],
            caption=_count(rows[-MAX_TABLE_ROWS:], len(rows), "in the order of their starts"),
        ),
    )


def show_dead_letters(report: RunReport) -> Section:
    """The commonest reasons for which rows have no prediction; needs at least one."""
    reasons = list(report.dead_letter_reasons.items())
    shown = reasons[:MAX_TABLE_ROWS]
    share = 100 * report.dead_letters / max(report.rows, 1)
    return Section(
        heading="Dead letters",
        caption=f"{format_count(report.dead_letters, 'row')} without a prediction, {share:.2g}% of "
        "all, by reason; each is listed in dead_letters.parquet with its file and row.",
        svg=plots.plot_reasons(shown),
        table=SectionTable(
            heads=["reason", "rows"],
            rows=[[reason, f"{count:,}"] for reason, count in shown],
            caption=_count(shown, len(reasons), "commonest first"),
        ),
    )


def _begin(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def show_other_types(report: RunReport) -> Section:
    """What this run would have cost elsewhere; needs at least one of `other_types`."""
    costs = report.other_types
    rows = [
        [
            cost.instance_type,
            format_usd(cost.usd),
            f"{format_usd(cost.usd_low)} to {format_usd(cost.usd_high)}",
            format_long_duration(cost.wall_s),
            f"{cost.basis} from {cost.scaled_from}",
            f"{cost.region}, {cost.as_of}",
        ]
        for cost in costs
    ]
    own = [format_usd(report.usd_total), "", format_long_duration(report.wall_s), "measured", ""]
    dates = sorted({cost.as_of for cost in costs})
    priced = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return Section(
        heading="The same run elsewhere",
        caption="The cheapest other instance types, one machine each with all cores busy. An "
        f"estimate (hatched): what this run measured on {report.driver_cpu}, scaled to other "
        f"processors, at on-demand list prices of {priced}.",
        svg=plots.plot_type_costs(costs, own_usd=report.usd_total),
        table=SectionTable(
            heads=["instance type", "USD", "if faster or slower", "time", "basis", "price"],
            rows=[["this run", *own], *rows],
        ),
    )


def show_lengths(report: RunReport) -> Section:
    """How long the texts were, and how much of what was computed is padding."""
    rows = [
        [
            f"≤{int(edge):,}",
            f"{texts:,}",
            f"{tokens:,}",
            f"{computed - tokens:,}",
            f"{100 * (1 - tokens / computed) if computed else 0:.1f}%",
        ]
        for edge, (texts, tokens, computed) in report.lengths.items()
    ]
    texts, tokens, computed = map(sum, zip(*report.lengths.values(), strict=True))
    padding = (
        "nothing was padded"
        if tokens == computed
        else f"{100 * (1 - tokens / computed):.1f}% of the computed tokens are padding"
    )
    heads = ["tokens of a text", "texts", "their tokens", "padding", "of computed"]
    return Section(
        heading="Lengths and padding",
        caption=f"{texts:,} different texts, {tokens / max(texts, 1):,.0f} tokens on average; "
        f"{padding}.",
        svg=plots.plot_lengths(report.lengths),
        table=SectionTable(heads=heads, rows=rows),
    )


def show_nodes(report: RunReport) -> Section:
    """The nodes that were paid for: those that left first, then those that scored most."""
    nodes = sorted(report.nodes, key=lambda node: (node.left_because is None, -node.rows))
    shown = nodes[:MAX_TABLE_ROWS]
    rows = [
        [
            node.name,
            node.instance_type or "unknown",
            f"{node.joined_s:,.0f} to {node.left_s:,.0f}",
            f"{node.actors:,}",
            f"{node.shards:,}",
            f"{node.rows_per_second:,.0f}",
            f"{node.usd_per_hour:.4f}",
            format_usd(node.usd),
            node.left_because or "",
        ]
        for node in shown
    ]
    heads = ["node", "type", "from, to, s", "actors", "shards", "rows/s", "USD/h", "USD", "left"]
    num_left = sum(node.left_because is not None for node in nodes)
    left = f"{format_count(num_left, 'node')} left before the end" if num_left else "all stayed"
    return Section(
        heading="Nodes",
        caption=f"{len(nodes)} nodes, each paid for from when it joined until it left; {left}. "
        f"Prices: {report.price}.",
        svg=plots.plot_nodes(shown, report.wall_s),
        table=SectionTable(
            heads=heads,
            rows=rows,
            caption=_count(rows, len(nodes), "those that left first, then by rows scored"),
        ),
    )


def show_throughput(report: RunReport) -> Section:
    """How fast each actor was."""
    throughput = rate_tokens(report.tokens_over_time, report.wall_s)
    actors = sorted(report.actors.items(), key=lambda item: item[1].tokens_per_second)
    rows = [
        [
            name,
            f"{actor.shards:,}",
            f"{actor.rows_per_second:,.0f}",
            f"{actor.tokens_per_second:,.0f}",
            format_long_duration(actor.busy_s),
            f"{actor.peak_rss_bytes / 2**20:,.0f}",
        ]
        for name, actor in actors[:MAX_TABLE_ROWS]
    ]
    heads = ["actor", "shards", "rows/s", "tokens/s", "scoring", "peak MiB"]
    return Section(
        heading="Throughput",
        caption="Tokens per second by actor, each shard spread over the time it took.",
        svg=plots.plot_throughput(throughput),
        table=SectionTable(
            heads=heads, rows=rows, caption=_count(rows, len(actors), "slowest first")
        ),
    )


def show_timeline(report: RunReport) -> Section:
    """What each actor did, and when."""
    is_sample = report.attempts > len(report.timeline)
    lanes = plan_lanes(report.timeline, report.wall_s, is_sample=is_sample)
    num_actors = max(report.num_actors, len({entry.actor for entry in report.timeline}))
    many = (
        f" {len(lanes)} of {num_actors:,} actors: some that died, and others picked evenly by when "
        "they ended."
        if num_actors > len(lanes)
        else ""
    )
    entries = sorted(
        report.timeline, key=lambda entry: (not entry.lost, entry.start_s - entry.end_s, entry.name)
    )
    rows = [
        [
            entry.actor,
            f"{entry.job} {entry.name.removeprefix('slice ')}",
            str(entry.attempt) + (", lost" if entry.lost else ""),
            f"{entry.start_s:,.1f}",
            f"{entry.end_s - entry.start_s:,.1f}",
            f"{entry.tokens:,}",
        ]
        for entry in entries[:MAX_TABLE_ROWS]
    ]
    heads = ["actor", "job", "attempt", "start, s", "took, s", "tokens"]
    return Section(
        heading="Timeline",
        caption="What each actor did, and when; a cross marks work that was lost with its actor "
        f"and done again.{many}",
        svg=plots.plot_timeline(lanes, report.wall_s),
        table=SectionTable(
            heads=heads,
            rows=rows,
            caption=_count(rows, report.attempts, "lost and longest first")
            + (f", of a sample of {len(entries):,}" if is_sample else ""),
        ),
    )


def show_frontier(points: Sequence[FrontierPoint], *, metric: str) -> Section:
    """Plot and table of the candidates of a search."""
    return Section(
        heading=f"{_begin(metric)} over cost",
        caption=f"{_begin(metric)} on the rows that choose, with 95% intervals. Up and left is "
        "better. The line joins the candidates that no other beats in both.",
        svg=render_frontier(points, metric=metric),
        table=SectionTable(heads=frontier_heads(metric), rows=frontier_rows(points)),
    )


def _count(rows: Sequence[object], num_all: int, order: str) -> str:
    """Caption of a table that may be cut."""
    return f"{len(rows)} of {num_all:,}, {order}" if num_all > len(rows) else order
