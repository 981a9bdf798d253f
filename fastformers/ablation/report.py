"""Report a measured ablation as a headline, a Markdown table and JSON.

    results -> [report] -> table.md, ablate.json, the last line of stdout

This module knows results; it knows nothing of how they were measured.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.ablation.measure import Ablation, StepResult

COLUMNS = (
    "optimization added",
    "time (s)",
    "cumulative",
    "step",
    "accuracy",
    "USD per 100M",
    "with tokenization (s)",
)
CLOCK = (
    "The clock starts after tokenization, as the paper's (arXiv:2010.13382, Table 3); loading a "
    "PyTorch model is outside it, creating sessions inside. USD per 100M is that of the same clock."
)


def cells(result: StepResult) -> tuple[str, ...]:
    """The cells of one line of the table, in the order of `COLUMNS`."""
    return (
        result.name,
        _seconds(result.seconds),
        f"{result.cumulative:,.2f}x",
        f"{result.step:,.2f}x",
        "-" if result.accuracy is None else f"{100 * result.accuracy:.2f}",
        _usd(result.usd_per_100m),
        "-" if result.total_s is None else _seconds(result.total_s),
    )


def numbered_cells(results: Sequence[StepResult]) -> list[tuple[str, ...]]:
    """The lines of the table, each name with the number of its note."""
    lines = enumerate(map(cells, results), start=1)
    return [(f"{name} [{number}]", *rest) for number, (name, *rest) in lines]


def numbered_notes(results: Sequence[StepResult]) -> list[str]:
    """Conditions under which each step was run, one line for each."""
    return [f"{number}. {result.note}" for number, result in enumerate(results, start=1)]


def summarize(results: Sequence[StepResult], ablation: Ablation) -> dict[str, Any]:
    """Steps, headline speed-ups, and a description of the texts, as values of JSON.

    `speedup` is the last step against the first (padded), `speedup_unpadded` against the second.
    """
    padded, unpadded = results[:2]
    last = [result for result in results if not result.is_aside][-1]
    return {
        "steps": [asdict(result) for result in results],
        "speedup": padded.seconds / last.seconds,
        "speedup_unpadded": unpadded.seconds / last.seconds,
        "speedup_with_tokenization": _ratio(padded.total_s, last.total_s),
        "speedup_unpadded_with_tokenization": _ratio(unpadded.total_s, last.total_s),
        "description": ablation.description,
        **describe_lengths(ablation.lengths_N),
    }


def describe_lengths(lengths_N: NDArray[np.integer]) -> dict[str, Any]:
    """Number of texts, and their lengths in tokens."""
    p50, p95 = np.percentile(lengths_N, [50, 95])
    return {
        "rows": len(lengths_N),
        "tokens": int(lengths_N.sum()),
        "length_mean": float(lengths_N.mean()),
        "length_p50": float(p50),
        "length_p95": float(p95),
        "length_max": int(lengths_N.max()),
    }


def headline(summary: dict[str, Any]) -> str:
    """Both speed-ups in one sentence, and with tokenization where there was text."""
    text = (
        f"{summary['speedup']:,.1f}x over PyTorch padded to the maximum, "
        f"{summary['speedup_unpadded']:,.1f}x over PyTorch unpadded"
    )
    if summary["speedup_with_tokenization"] is None:
        return text
    return (
        f"{text}; with tokenization {summary['speedup_with_tokenization']:,.1f}x and "
        f"{summary['speedup_unpadded_with_tokenization']:,.1f}x"
    )


def render_markdown(
    results: Sequence[StepResult], summary: dict[str, Any], *, measured_on: str
) -> str:
    """The table as a page of its own.

    Args:
        results: The lines of the table.
        summary: Result of `summarize`.
        measured_on: Machine, versions, price and date in one sentence.
    """
    lines = [
        f"# Ablation: {summary['description']}",
        "",
        f"**{headline(summary)}.**",
        "",
        _line(COLUMNS),
        _line(["---", *["---:"] * (len(COLUMNS) - 1)]),
        *map(_line, numbered_cells(results)),
        "",
        *numbered_notes(results),
        "",
        CLOCK,
        "",
        f"{describe_texts(summary)}. {measured_on}",
    ]
    return "\n".join(lines) + "\n"


def describe_texts(summary: dict[str, Any]) -> str:
    """Number and lengths of the texts in one line."""
    return (
        f"{summary['rows']:,} texts, {summary['tokens']:,} tokens: mean "
        f"{summary['length_mean']:.1f}, median {summary['length_p50']:.0f}, p95 "
        f"{summary['length_p95']:.0f}, longest {summary['length_max']}"
    )


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f}" if seconds >= 0.1 else f"{seconds:.4f}"


def _usd(usd: float) -> str:
    return f"{usd:,.0f}" if usd >= 100 else f"{usd:.3g}"


def _ratio(slow: float | None, fast: float | None) -> float | None:
    return None if slow is None or fast is None else slow / fast
