"""Report a measured ablation as a table, on the terminal and in Markdown.

    AblationSummary -> [report] -> table.md, table and notes on the terminal

This module knows results; it knows nothing of how they were measured.
"""

from collections.abc import Sequence

from fastformers.ablation.measure import StepResult
from fastformers.ablation.summary import AblationSummary

COLUMNS = (
    "optimization added",
    "time (s)",
    "cumulative",
    "step",
    "accuracy",
    "USD per 100M",
    "with tokenization (s)",
)
# What the sign in a row of scaled seconds means.
ERROR = "± is the standard error of scaling the seconds of some texts up to all."
CLOCK = (
    "The clock starts after tokenization, as the paper's (arXiv:2010.13382, Table 3); loading a "
    "PyTorch model is outside it, creating sessions inside. USD per 100M is that of the same clock."
)


def cells(result: StepResult) -> tuple[str, ...]:
    """The cells of one line of the table, in the order of `COLUMNS`."""
    scaled = result.timed_rows < result.rows
    note = f", scaled from {result.timed_rows:,} of {result.rows:,} texts" if scaled else ""
    return (
        f"{result.name}{note}",
        _with_error(result),
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


def render_markdown(summary: AblationSummary) -> str:
    """The table as a page of its own, with its texts and conditions."""
    lines = [
        f"# Ablation: {summary.description}",
        "",
        f"**{summary.headline}.**",
        "",
        _line(COLUMNS),
        _line(["---", *["---:"] * (len(COLUMNS) - 1)]),
        *map(_line, numbered_cells(summary.steps)),
        "",
        *numbered_notes(summary.steps),
        "",
        CLOCK,
        "",
        *([ERROR, ""] if is_scaled(summary.steps) else []),
        f"{summary.texts}. {summary.conditions}",
    ]
    return "\n".join(lines) + "\n"


def is_scaled(results: Sequence[StepResult]) -> bool:
    """Whether the seconds of a step are scaled up, so that the sign has to be explained."""
    return any(result.standard_error_s is not None for result in results)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _with_error(result: StepResult) -> str:
    error = result.standard_error_s
    return _seconds(result.seconds) + ("" if error is None else f" ± {_seconds(error)}")


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f}" if seconds >= 0.1 else f"{seconds:.4f}"


def _usd(usd: float) -> str:
    return f"{usd:,.0f}" if usd >= 100 else f"{usd:.3g}"
