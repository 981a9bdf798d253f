"""What `fastformers bench-gpu` measured, as values, as its last line, and as a table for people.

    parts -> [card_report] -> last line of stdout, tables

This module measures nothing.
"""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from fastformers.cluster.json_values import to_plain

FORMAT_VERSION = 1  # raised whenever a key comes, goes or changes its meaning


@dataclass(frozen=True, kw_only=True)
class CardRates:
    """One shape on the card, beside PyTorch. Names are the keys of the last line.

    Attributes:
        rows_per_second: Median of the repeats, by candidate; ours is the first.
        over_float32: Our rate over that of PyTorch out of the box.
        over_float16: Our rate over the fastest of PyTorch's in float16.
        max_batch_tokens: Token budget of our batches.
        ns_per_token: What a token takes in full batches, by token budget.
        mean_tokens: Tokens of a row on average.
        share_of_peak: Operations that the model needs over those that the card does in the same
            time in a large float16 product, 0 to 1.
        busy: Share of our passes' time in which a kernel ran, 0 to 1, by NVML; None where it does
            not say.
        batch_difference: Largest difference of a logit of a row between batches.
        pytorch_difference: Largest difference of a logit from PyTorch in float32.
    """

    rows_per_second: dict[str, float]
    over_float32: float
    over_float16: float
    max_batch_tokens: int
    ns_per_token: dict[int, float]
    mean_tokens: float
    share_of_peak: float
    busy: float | None
    batch_difference: float
    pytorch_difference: float


@dataclass(frozen=True, kw_only=True)
class CardJob:
    """A whole job from prepared shards, on the card. Names are the keys of the last line.

    Attributes:
        rows, tokens: Counts of the corpus.
        rows_per_second: Over the whole job, Ray's start included.
        scoring_rows_per_second: Without the start.
        wall_s, setup_s: Seconds of the job, and those of them before the first shard.
        usd_per_million: Cost of a million predictions, the start included; None without a price.
        computing: Share of the time in which the actor ran the model, 0 to 1.
        waiting: Share in which it waited for a shard, or for one to be written.
        busy: Share in which a kernel ran, by NVML.
        bound_by: What held it up: the `card` or the `host`.
        phase_s: Seconds of all actors by phase.
        prepare_s: Seconds that all cores took to make the shards.
        gpu_kwh: What the card drew; None where it was not read.
    """

    rows: int
    tokens: int
    rows_per_second: float
    scoring_rows_per_second: float
    wall_s: float
    setup_s: float
    usd_per_million: float | None
    computing: float | None
    waiting: float | None
    busy: float | None
    bound_by: str | None
    phase_s: dict[str, float]
    prepare_s: float
    gpu_kwh: float | None


@dataclass(frozen=True, kw_only=True)
class CardReport:
    """Everything that one `fastformers bench-gpu` measured.

    Attributes:
        card, driver: The GPU, and the version of its driver; None where it is not known.
        cpu_model, cores: The host.
        versions: Versions of the libraries, by package.
        measured_at: ISO date.
        repeats: How many times everything ran, in turns.
        peak_tflops: Speed of a large float16 product, in 1e12 operations a second.
        shapes: What was measured of each shape.
        jobs: The whole job of each shape, where one was asked for.
    """

    card: str
    driver: str | None
    cpu_model: str
    cores: int
    versions: dict[str, str]
    measured_at: str
    repeats: int
    peak_tflops: float
    shapes: dict[str, CardRates]
    jobs: dict[str, CardJob]

    def to_json(self) -> dict[str, Any]:
        """The last line of stdout, as plain values."""
        plain: dict[str, Any] = to_plain(self)
        return {"format_version": FORMAT_VERSION, **plain}


def print_rates(shape: str, rates: CardRates, console: Console) -> None:
    """Table of one shape's candidates."""
    title = f"{shape}, {rates.mean_tokens:.0f} tokens a row: rows/s"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("rows/s", justify="right")
    table.add_column("ours over it", justify="right")
    ours = next(iter(rates.rows_per_second.values()))
    for name, rate in rates.rows_per_second.items():
        table.add_row(name, f"{rate:,.0f}", f"{ours / rate:.2f}x")
    console.print(table)
    busy = "unknown" if rates.busy is None else f"{100 * rates.busy:.0f}%"
    console.print(
        f"{100 * rates.share_of_peak:.0f}% of the card's float16 peak, busy {busy}; a row's logit "
        f"differs by up to {rates.batch_difference:.1e} between batches"
    )


def print_job(shape: str, job: CardJob, console: Console) -> None:
    """The whole job of a shape, in a line or two."""
    usd = "" if job.usd_per_million is None else f", {job.usd_per_million:.4f} USD per million"
    console.print(
        f"{shape}, whole job from shards: {job.rows:,} rows at {job.rows_per_second:,.0f} rows/s "
        f"({job.scoring_rows_per_second:,.0f} without {job.setup_s:.1f} s of start){usd}; bound by "
        f"the {job.bound_by}"
    )
