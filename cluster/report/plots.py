"""Plots of the page, drawn by matplotlib.

    downsample -> [plots] -> sections -> report.html

`fastformers.figure` has the style; this module does not know where a plot stands, or how it comes
into the page. Needs the extra `report`.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from fastformers.cluster.formatting import format_usd
from fastformers.cluster.records.quality import LabelQuality
from fastformers.cluster.records.sessions import Session
from fastformers.cluster.report.downsample import Lane, Throughput
from fastformers.cluster.report.over_time import NodeReport
from fastformers.cluster.report.run_report import TypeCost
from fastformers.figure import THEME, Bar, draw_bars, draw_legend, render_twice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SERIES = THEME.series
_KINDS = {
    "load": ("model load", THEME.muted),
    "prepare": ("read and tokenize", _SERIES[2]),
    "score": ("score", _SERIES[0]),
    "compare": ("compare precisions", THEME.ink),
    "search": ("search for texts that kill", _SERIES[1]),
    "lost": ("lost", THEME.bad),
}
MAX_MATRIX_LABELS, MAX_BARS = 12, 20


def plot_lengths(lengths: Mapping[str, Sequence[int]]) -> str:
    """Shares of texts and of tokens computed by length, on one scale, with the padding apart.

    Args:
        lengths: [texts, tokens, computed tokens] by upper edge, see `receipts.count_lengths`.
    """

    def draw(is_wide: bool, figure: "Figure") -> None:
        over, under = figure.subplots(2, 1, sharex=True, sharey=True)
        places = range(len(lengths))
        texts, tokens, computed = np.array(list(lengths.values()), np.float64).T
        texts *= 100 / max(1.0, texts.sum())
        tokens, computed = (part * 100 / max(1.0, computed.sum()) for part in (tokens, computed))
        over.bar(places, texts, color=_SERIES[0], width=0.86)
        under.bar(places, tokens, color=_SERIES[0], width=0.86, label="tokens of text")
        padding = computed - tokens
        under.bar(places, padding, bottom=tokens, color=_SERIES[1], width=0.86, label="padding")
        over.set_title("Share of the different texts")
        under.set_title("Share of the tokens computed")
        for axes in (over, under):
            _count_axis(axes)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
        step = 1 if is_wide or len(lengths) <= 8 else 2
        under.set_xticks(list(places)[::step], [f"≤{edge}" for edge in lengths][::step])
        under.set_xlabel("tokens of a text")
        figure.legend(*under.get_legend_handles_labels(), loc="outside lower left", ncols=2)

    texts = sum(count[0] for count in lengths.values())
    return render_twice(
        draw, "lengths", f"Histogram of the lengths of {texts:,} texts, and padding", (330, 380)
    )


def plot_confusion(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """Rows by label, down, and prediction, across; the darker, the larger the label's share."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        letters = 18 if is_wide else 8
        shown = [name if len(name) <= letters else f"{name[: letters - 1]}…" for name in names]
        for down, counts in enumerate(confusion):
            rows = sum(counts) or 1
            for across, count in enumerate(counts):
                color = _SERIES[0] if down == across else _SERIES[1]
                place = (across - 0.48, down - 0.46)
                cell = Rectangle(place, 0.96, 0.92, color=color, alpha=0.75 * count / rows)
                axes.add_patch(cell)
                text = f"{count:,}" if is_wide or count < 10_000 else f"{count / 1000:,.0f}k"
                axes.text(across, down, text, ha="center", va="center", fontsize=11)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        is_many = len(names) > (6 if is_wide else 3)
        axes.set_xticks(range(len(names)), shown, rotation=90 if is_many else 0)
        axes.set_yticks(range(len(names)), shown)
        axes.set_xlabel("prediction")
        axes.set_ylabel("label")

    height = 26 * len(names) + 90
    return render_twice(draw, "confusion", "Rows by label and prediction", (height, height + 30))


def plot_label_f1(labels: Sequence[LabelQuality]) -> str:
    """F1 of each label."""
    bars = [
        Bar(
            name=one.label,
            value=100 * (one.f1 or 0.0),
            label="does not occur" if one.f1 is None else f"{100 * one.f1:.1f}%",
            color=_SERIES[0],
        )
        for one in labels
    ]
    return _plot_bars(bars, "f1", "F1 of each label")


def plot_audit(shares: Mapping[str, tuple[float, str]]) -> str:
    """Agreement, and the quality of both bundles: value and text of each, by name.

    A rank correlation below 0 has no bar.
    """
    bars = [
        Bar(name=name, value=max(0.0, 100 * value), label=text, color=_SERIES[0])
        for name, (value, text) in shares.items()
    ]
    return _plot_bars(bars, "audit", "Agreement with the audit bundle, and quality of both")


def plot_sessions(sessions: Sequence[Session]) -> str:
    """USD of each session."""
    bars = [
        Bar(
            name=f"{datetime.fromisoformat(session.started_at):%m-%d %H:%M}, {session.state}",
            value=session.usd,
            label=format_usd(session.usd),
            color=_SERIES[0],
        )
        for session in sessions[-MAX_BARS:]
    ]
    return _plot_bars(bars, "sessions", "USD of each session")


def plot_reasons(reasons: Sequence[tuple[str, int]]) -> str:
    """Rows without a prediction by reason."""
    bars = [
        Bar(
            name=textwrap.shorten(reason, 46, placeholder=" …"),
            value=count,
            label=f"{count:,}",
            color=THEME.bad,
        )
        for reason, count in reasons[:MAX_BARS]
    ]
    return _plot_bars(bars, "reasons", "Rows without a prediction by reason")


def _plot_bars(bars: Sequence[Bar], name: str, label: str) -> str:
    """Horizontal bars without an axis: each has its value beside it."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        width = 60 if is_wide else 22
        draw_bars(axes, [replace(bar, name=textwrap.fill(bar.name, width)) for bar in bars])
        axes.margins(x=0.3 if is_wide else 1.4)  # room for the labels
        axes.set_xlim(0, None if any(bar.value > 0 for bar in bars) else 1)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    height = 30 * len(bars) + 20
    return render_twice(draw, name, label, (height, 14 * len(bars) + height))


def plot_throughput(throughput: Throughput) -> str:
    """Tokens per second over the run, stacked by actor."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        base = np.zeros(len(throughput.edges_s) - 1)
        for color, (name, rates) in zip(_SERIES, throughput.groups.items(), strict=False):
            axes.stairs(
                base + rates, throughput.edges_s, baseline=base, fill=True, color=color, label=name
            )
            base = base + rates
        axes.set_ylim(0, None)
        _time_axis(axes, float(throughput.edges_s[-1]))
        _count_axis(axes)
        if len(throughput.groups) > 1:
            draw_legend(figure, is_wide)

    return render_twice(
        draw, "throughput", "Tokens per second over the run, stacked by actor", (250, 270)
    )


def plot_timeline(lanes: Sequence[Lane], wall_s: float) -> str:
    """What each actor did, and when."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        used = {span.kind for lane in lanes for span in lane.spans}
        for kind, (label, color) in _KINDS.items():
            if kind not in used:
                continue
            for number, lane in enumerate(lanes):
                spans = [
                    (span.start_s, span.end_s - span.start_s)
                    for span in lane.spans
                    if span.kind == kind
                ]
                bar = axes.broken_barh(
                    spans,
                    (number - 0.36, 0.72),
                    facecolor=color,
                    edgecolor=THEME.paper,
                    linewidth=0.8,
                )
                if kind == "lost":
                    axes.plot(
                        [start + seconds for start, seconds in spans],
                        [number] * len(spans),
                        linestyle="none",
                        marker="x",
                        markersize=8,
                        markeredgewidth=2,
                        color=THEME.ink,
                    )
            bar.set_label(label)
        axes.set_yticks(range(len(lanes)), [lane.name for lane in lanes])
        axes.set_ylim(len(lanes) - 0.4, -0.6)
        _time_axis(axes, wall_s)
        axes.xaxis.grid(True)
        draw_legend(figure, is_wide)

    height = 24 * len(lanes)
    return render_twice(
        draw, "timeline", "Timeline of shards by actor", (height + 90, height + 120)
    )


def plot_nodes(nodes: Sequence[NodeReport], wall_s: float) -> str:
    """From when to when each node was paid for; a cross marks one that left before the end."""

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        for number, node in enumerate(nodes):
            span = (node.joined_s, node.left_s - node.joined_s)
            axes.broken_barh([span], (number - 0.36, 0.72), facecolor=_SERIES[0])
            if node.left_because is not None:
                axes.plot(node.left_s, number, "x", markersize=8, mew=2, color=THEME.ink)
        axes.set_yticks(range(len(nodes)), [node.name for node in nodes])
        axes.set_ylim(len(nodes) - 0.4, -0.6)
        _time_axis(axes, wall_s)
        axes.xaxis.grid(True)

    height = 24 * len(nodes) + 60
    return render_twice(draw, "nodes", "When each node was paid for", (height, height))


def plot_type_costs(costs: Sequence[TypeCost], *, own_usd: float) -> str:
    """USD of this run, and on other instance types: these are estimates, and hatched."""
    bars = [
        Bar(name="this run", value=own_usd, label=format_usd(own_usd), color=_SERIES[2]),
        *(
            Bar(
                name=cost.instance_type,
                value=cost.usd,
                label=format_usd(cost.usd),
                color=_SERIES[5],
                hatch="///",
            )
            for cost in costs
        ),
    ]

    def draw(is_wide: bool, figure: "Figure") -> None:
        axes = figure.subplots()
        draw_bars(axes, bars)
        axes.margins(x=0.2 if is_wide else 1.0)  # room for the labels
        axes.set_xlim(left=0)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    height = 26 * len(bars) + 20
    return render_twice(draw, "types", "USD of this run by instance type", (height, height))


def _count_axis(axes: "Axes") -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.grid(True)


def _time_axis(axes: "Axes", wall_s: float) -> None:
    from matplotlib.ticker import MultipleLocator

    units = {"hours": (3600, 7200), "minutes": (60, 300), "seconds": (1, 0)}
    unit, seconds = next((u, s) for u, (s, least) in units.items() if wall_s >= least)
    least = max(wall_s, 1e-3) / seconds / 6
    power = 10.0 ** np.floor(np.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    axes.set_xlim(0, wall_s)
    axes.xaxis.set_major_locator(MultipleLocator(step * seconds))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / seconds:g}")
    axes.set_xlabel(f"{unit} since the start")
