"""Records of the work done: receipts of shards, attempts of actors, counts of texts by length.

    worker -> Receipt -> [receipts] -> footer of the predictions, bill, lengths of the report
    driver -> Attempt -> [receipts] -> bill, timeline of the report
    bad rows -> [receipts] -> their number by kind

A `Receipt` says what a finished shard took, by the clock of its actor, and is stored with the
shard's predictions. It counts texts and tokens in bins of text length: `count_lengths` counts those
of a shard. An `Attempt` says which job an actor was given,
when, and whether it died over it, by the driver's clock alone, because the clocks of nodes differ.
Everything here is a plain value; this module knows nothing of files, Ray or prices.

Shape suffixes: U different texts of a shard, B of them in one batch.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Upper edges of the bins of text length in tokens, edges included; longer texts are in the last.
EDGES = (
    *(8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192),
)  # fmt: skip

PHASES = ("read", "tokenize", "infer", "audit", "write")

# Reasons of bad rows that differ in these alone are of one kind; further kinds are counted as one.
_VARIES = re.compile(r"""(?P<column>column '[^']*')|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+""")
_MAX_KINDS, _KIND_CHARACTERS, OTHER_REASONS = 16, 120, "other reasons"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What an actor reports about a finished shard.

    Attributes:
        shard: Name of the shard.
        actor: Name of the actor that scored it.
        attempt: Number of the attempt that succeeded, from 1.
        num_rows, num_unique, num_errors: Rows, different texts, rows without a prediction.
        num_tokens: Tokens of all good rows.
        num_scored_tokens, num_computed_tokens: Tokens of the texts scored; the same with padding.
        num_batches: Batches run.
        started_at: Start of computing its texts, in seconds since the epoch.
        finished_at: `started_at` plus the seconds of `phase_s`.
        predicted_s: Seconds expected by the cost profile of the bundle that the shard was cut for:
            what leases and forecasts go by.
        expected_s: Seconds expected of the texts scored by that of the bundle that scored them,
            which may be another one; 0 in receipts of older versions.
        rss_bytes, peak_rss_bytes: Resident memory of the actor at the end, and its peak so far.
        phase_s: Seconds of the actor's cores by phase.
        lengths: Scored texts by length, see `count_lengths`.
        file_bytes: Size of the file of its predictions; 0 in the footer of that file itself.
        failures: Rows that could be read and not be scored, by kind, see `count_reasons`.
        device: Kind of the actor: what computed for it.
        precision: Precision of the graph that scored it.
        gpu_busy: Share of the time since the actor's last shard in which its GPU ran a kernel; None
            where that is not known.
        labels: `LabelCounts` as plain values; empty where no labels are compared.
        audit: `AuditCounts` as plain values; empty where no row is audited.
        second_texts: Texts that went on to the second graph of a cascade.
        second_s: Seconds of those of "infer" that the second graph took.
    """

    shard: str
    actor: str
    attempt: int
    num_rows: int
    num_unique: int
    num_errors: int
    num_tokens: int
    num_scored_tokens: int
    num_computed_tokens: int
    num_batches: int
    started_at: float
    finished_at: float
    predicted_s: float
    rss_bytes: int
    peak_rss_bytes: int
    phase_s: dict[str, float] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)
    file_bytes: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"
    precision: str | None = None
    gpu_busy: float | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    second_texts: int = 0
    second_s: float = 0.0
    expected_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One job of one actor, from when its turn came until the driver learned of its end.

    Attributes:
        node: Identifier of the actor's node.
        actor: Name of the actor; an actor that replaces a dead one has the same name.
        job: Kind of job: cut a slice, score a shard, search a shard for the text that kills its
            actor, or compare precisions.
        name: Name of the slice or the shard.
        number: How many times it was tried, this time included.
        start_s, end_s: Seconds since the run's start.
        is_lost: Whether it came to nothing: its actor died over it, or it raised an error. A job of
            a node that left, or of an actor that was not the first to do it, is no attempt.
        phase_s: Seconds by phase as the actor measured them; empty where it sent no receipt.
    """

    node: str
    actor: str
    job: Literal["prepare", "score", "search", "compare"]
    name: str
    number: int
    start_s: float
    end_s: float
    is_lost: bool
    phase_s: dict[str, float] = field(default_factory=dict)


def count_lengths(
    lengths_U: NDArray[np.integer],
    batches: Iterable[NDArray[np.intp]],
    computed_tokens: Sequence[int],
) -> dict[str, list[int]]:
    """Texts, their tokens, and the tokens computed for them, by the upper edge of their length.

    Args:
        lengths_U: Tokens of each text.
        batches: Indices (B,) of the texts of each batch.
        computed_tokens: Tokens that each batch computed, padding included.

    Returns:
        [texts, tokens, computed tokens] by upper edge, ascending, for bins that are not empty.
    """
    edges = np.searchsorted(EDGES[:-1], lengths_U)
    counts = np.zeros((len(EDGES), 3), np.int64)
    np.add.at(counts[:, 0], edges, 1)
    np.add.at(counts[:, 1], edges, lengths_U.astype(np.int64))
    for batch, computed in zip(batches, computed_tokens, strict=True):
        np.add.at(counts[:, 2], edges[batch], computed // len(batch))  # the same for each row
    return {
        str(edge): count for edge, count in zip(EDGES, counts.tolist(), strict=True) if any(count)
    }


def kind_of_reason(reason: str) -> str:
    """The reason of a bad row without what differs from row to row: numbers and quoted values."""
    return _VARIES.sub(lambda found: found["column"] or "…", reason)[:_KIND_CHARACTERS]


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Number of bad rows by kind, the commonest first; a few kinds, whatever the rows hold."""
    counts: Counter[str] = Counter()
    for reason in reasons:
        kind = kind_of_reason(reason)
        is_known = kind in counts or len(counts) < _MAX_KINDS
        counts[kind if is_known else OTHER_REASONS] += 1
    return dict(counts.most_common())
