"""Add up a run as it goes: what was scored, by whom, and what each actor's seconds went to.

    shards, slices, receipts, attempts -> [tally] -> report, bill

Every number that a report needs is a sum over receipts or attempts, so it is added up when they
come, and they are forgotten: a tally grows with the number of actors alone. What is not a sum is
kept as a sample (`samples.py`). This module knows nothing of files, nodes or prices.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastformers.cluster.records.samples import (
    MAX_NUMBERS,
    MAX_PREDICTIONS,
    AttemptSample,
    Thinned,
    TimeBins,
    TimedAttempt,
)
from fastformers.cluster.shards.audit_counts import AuditCounts, AuditedNumber
from fastformers.cluster.shards.label_counts import LabelCounts
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import PHASES, Attempt, Receipt

# Scored attempts whose receipt may still come; a receipt follows its attempt at once.
_MAX_OPEN = 4096
_HEADING_OF_PHASE = {
    "read": "reading",
    "tokenize": "tokenizing",
    "infer": "compute",
    "audit": "audit",
    "write": "writing",
}


@dataclass
class ShardCounts:
    """Sums over shards: how many, and the sums of `Shard`'s attributes of the same names."""

    num_shards: int = 0
    num_rows: int = 0
    num_unique: int = 0
    num_tokens: int = 0
    num_unique_tokens: int = 0

    def add(self, shard: Shard) -> None:
        """Count a shard."""
        self.num_shards += 1
        self.num_rows += shard.num_rows
        self.num_unique += shard.num_unique
        self.num_tokens += shard.num_tokens
        self.num_unique_tokens += shard.num_unique_tokens


@dataclass
class KindSums:
    """What was scored on one device in one precision: sums of `Receipt`'s attributes."""

    num_shards: int = 0
    num_rows: int = 0
    num_tokens: int = 0

    def add(self, other: "KindSums") -> None:
        """Add other sums."""
        self.num_shards += other.num_shards
        self.num_rows += other.num_rows
        self.num_tokens += other.num_tokens


@dataclass
class ReceiptSums:
    """Sums over receipts.

    Attributes:
        num_shards: How many receipts.
        num_rows, num_tokens, num_scored_tokens, num_computed_tokens, predicted_s, expected_s: Sums
            of `Receipt`'s attributes of the same names.
        actor_s: Seconds from start to finish.
        started_at, finished_at: The first start and the last finish, in seconds since the epoch.
        peak_rss_bytes: The largest of all.
        phase_s: Seconds by phase.
        lengths: Scored texts by length, see `receipts.count_lengths`.
        kinds: What was scored on which device, in which precision.
        labels: Predictions against labels, without its sample, which is `numbers`.
        numbers: Sample of labels and predictions that are numbers.
        audit: Rows that a second bundle scored, too, without their sample: `audit_numbers`.
        second_texts, second_s: What went on to the second graph of a cascade: sums of `Receipt`'s.
    """

    num_shards: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    num_scored_tokens: int = 0
    num_computed_tokens: int = 0
    predicted_s: float = 0.0
    expected_s: float = 0.0
    actor_s: float = 0.0
    started_at: float = math.inf
    finished_at: float = -math.inf
    peak_rss_bytes: int = 0
    phase_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    lengths: dict[str, list[int]] = field(default_factory=dict)
    kinds: dict[tuple[str, str | None], KindSums] = field(default_factory=dict)
    labels: LabelCounts = field(default_factory=LabelCounts)
    numbers: Thinned[tuple[float, float]] = field(default_factory=lambda: Thinned(MAX_NUMBERS))
    audit: AuditCounts = field(default_factory=AuditCounts)
    audit_numbers: Thinned[AuditedNumber] = field(default_factory=lambda: Thinned(MAX_NUMBERS))
    second_texts: int = 0
    second_s: float = 0.0

    def add(self, receipt: Receipt) -> None:
        """Count a receipt."""
        self.num_shards += 1
        self.num_rows += receipt.num_rows
        self.num_tokens += receipt.num_tokens
        self.num_scored_tokens += receipt.num_scored_tokens
        self.num_computed_tokens += receipt.num_computed_tokens
        self.predicted_s += receipt.predicted_s
        self.expected_s += receipt.expected_s
        self.second_texts += receipt.second_texts
        self.second_s += receipt.second_s
        self.actor_s += receipt.finished_at - receipt.started_at
        self.started_at = min(self.started_at, receipt.started_at)
        self.finished_at = max(self.finished_at, receipt.finished_at)
        self.peak_rss_bytes = max(self.peak_rss_bytes, receipt.peak_rss_bytes)
        self.phase_s = add_phases(self.phase_s, receipt.phase_s)
        self._add_lengths(receipt.lengths)
        own = KindSums(
            num_shards=1, num_rows=receipt.num_rows, num_tokens=receipt.num_scored_tokens
        )
        self.kinds.setdefault((receipt.device, receipt.precision), KindSums()).add(own)
        if receipt.labels:
            self._add_labels(LabelCounts(**receipt.labels))
        if receipt.audit:
            self._add_audit(AuditCounts.from_plain(receipt.audit))

    def add_sums(self, other: "ReceiptSums") -> None:
        """Add the sums over other receipts."""
        self.num_shards += other.num_shards
        self.num_rows += other.num_rows
        self.num_tokens += other.num_tokens
        self.num_scored_tokens += other.num_scored_tokens
        self.num_computed_tokens += other.num_computed_tokens
        self.predicted_s += other.predicted_s
        self.expected_s += other.expected_s
        self.second_texts += other.second_texts
        self.second_s += other.second_s
        self.actor_s += other.actor_s
        self.started_at = min(self.started_at, other.started_at)
        self.finished_at = max(self.finished_at, other.finished_at)
        self.peak_rss_bytes = max(self.peak_rss_bytes, other.peak_rss_bytes)
        self.phase_s = add_phases(self.phase_s, other.phase_s)
        self._add_lengths(other.lengths)
        for kind, sums in other.kinds.items():
            self.kinds.setdefault(kind, KindSums()).add(sums)
        self.labels.add(other.labels)
        self.numbers.join(other.numbers)
        self.audit.add(other.audit)
        self.audit_numbers.join(other.audit_numbers)

    @property
    def second_share(self) -> float:
        """Share of the seconds of running the model that the second graph of a cascade took."""
        infer_s = self.phase_s["infer"]
        return min(1.0, self.second_s / infer_s) if infer_s > 0 else 0.0

    @property
    def padding_efficiency(self) -> float | None:
        """Share of the computed tokens that are text; None where nothing was computed."""
        if not self.num_computed_tokens:
            return None
        return self.num_scored_tokens / self.num_computed_tokens

    def _add_labels(self, labels: LabelCounts) -> None:
        self.labels.add(labels)
        for label, prediction in labels.numbers:
            self.numbers.add((label, prediction))

    def _add_audit(self, audit: AuditCounts) -> None:
        self.audit.add(audit)
        for own, auditors, label in audit.numbers:
            assert own is not None and auditors is not None
            self.audit_numbers.add((own, auditors, label))

    def _add_lengths(self, counts: Mapping[str, list[int]]) -> None:
        for edge, numbers in counts.items():
            total = self.lengths.setdefault(edge, [0, 0, 0])
            for place, number in enumerate(numbers):
                total[place] += number


class ActorTally:
    """What one actor did.

    Attributes:
        num_shards, num_rows, num_tokens: What it scored.
        busy_s, infer_s: Seconds that it took for that, and those of them in which the model ran.
        peak_rss_bytes: Most resident memory that it held.
        tokens: The tokens that it scored over the time that it took for them.
        first_start_s: When its first job began, in seconds since the run's start; None before.
        end_s: When its last job ended.
        seconds: Seconds from its first job's start to its last one's end, by heading of the bill.
        span_s: Seconds from when the model first ran to when it last did, by the actor's clock.
        gpu_busy_s, gpu_watched_s: Seconds of these in which its GPU ran a kernel, and in which that
            was counted.
    """

    __slots__ = (
        *("num_shards", "num_rows", "num_tokens", "busy_s", "infer_s", "peak_rss_bytes", "tokens"),
        *("first_start_s", "end_s", "seconds", "_loads", "_reloads"),
        *("span_s", "gpu_busy_s", "gpu_watched_s", "_infer_end_at"),
    )

    def __init__(self) -> None:
        self.num_shards = self.num_rows = self.num_tokens = self.peak_rss_bytes = 0
        self.busy_s = self.infer_s = 0.0
        self.tokens = TimeBins()
        self.first_start_s: float | None = None
        self.end_s = 0.0
        self.seconds: dict[str, float] = {}
        self._loads, self._reloads = True, False  # its first job waits for the model
        self.span_s = self.gpu_busy_s = self.gpu_watched_s = 0.0
        self._infer_end_at: float | None = None

    def add_attempt(self, attempt: Attempt) -> float:
        """Split an attempt's time over the headings; returns when the job itself began.

        An attempt that is said to begin before the last one ended begins there.
        """
        if self.first_start_s is None:
            self.first_start_s = self.end_s = attempt.start_s
        start_s, end_s = max(self.end_s, attempt.start_s), max(self.end_s, attempt.end_s)
        self._spend("waiting", start_s - self.end_s)
        held_s, load_s = end_s - start_s, 0.0
        if attempt.is_lost or attempt.job == "search":
            self._spend("retries", held_s)
        elif attempt.job == "compare":
            self._spend("comparing", held_s)
        else:
            measured_s = math.fsum(attempt.phase_s.values())
            scale = min(1.0, held_s / measured_s) if measured_s > 0 else 0.0
            for phase, phase_s in attempt.phase_s.items():
                self._spend(_HEADING_OF_PHASE[phase], phase_s * scale)
            rest_s = held_s - measured_s * scale
            self._spend(
                "retries" if self._reloads else "model load" if self._loads else "hand-over", rest_s
            )
            load_s = rest_s if self._loads or self._reloads else 0.0
        self._loads, self._reloads, self.end_s = False, attempt.is_lost, end_s
        return start_s + load_s

    def add_receipt(self, receipt: Receipt) -> None:
        """Count a shard that it scored."""
        self.num_shards += 1
        self.num_rows += receipt.num_rows
        self.num_tokens += receipt.num_tokens
        self.busy_s += receipt.finished_at - receipt.started_at
        infer_s = receipt.phase_s.get("infer", 0.0)
        self.infer_s += infer_s
        end_at = receipt.started_at + infer_s
        since_s = end_at - (self._infer_end_at or receipt.started_at)
        self._infer_end_at = end_at
        self.span_s += max(0.0, since_s)
        if receipt.gpu_busy is not None:
            self.gpu_busy_s += receipt.gpu_busy * max(0.0, since_s)
            self.gpu_watched_s += max(0.0, since_s)
        self.peak_rss_bytes = max(self.peak_rss_bytes, receipt.peak_rss_bytes)

    def _spend(self, heading: str, seconds: float) -> None:
        if seconds > 0:
            self.seconds[heading] = self.seconds.get(heading, 0.0) + seconds


class RunTally:
    """The sums of a run and of those before it.

    Attributes:
        known: All shards that are known, those of earlier runs included.
        earlier, scored: Receipts of earlier runs and of this one.
        slice_phase_s: Seconds of preparing in this run, by phase.
        skipped_files: Files that could not be read, with the reason.
        unfit: Number of values that have no place in the kept columns, by column, see `Rows`.
        actors: What each actor did, by its node's identifier and its own name.
        num_retries: Attempts at shards that were lost.
        agreement: How much predictions of the same texts in two precisions agree; of no text where
            all actors score in one.
        attempts: Sample of the attempts, with the receipts of the shards that they scored.
        predictions: Sample of the shards scored: seconds expected, and measured of the model by
            the actor of this key in `actors`.
    """

    def __init__(self) -> None:
        self.known = ShardCounts()
        self.earlier, self.scored = ReceiptSums(), ReceiptSums()
        self.slice_phase_s: dict[str, float] = {}
        self.skipped_files: dict[str, str] = {}
        self.unfit: Counter[str] = Counter()
        self.actors: dict[tuple[str, str], ActorTally] = {}
        self.num_retries = 0
        self.agreement = Agreement()
        self.attempts = AttemptSample()
        self.predictions: Thinned[tuple[float, float, tuple[str, str]]] = Thinned(MAX_PREDICTIONS)
        self._open: dict[tuple[str, int], tuple[Attempt, float]] = {}

    def add_slice(self, receipt: SliceReceipt) -> None:
        """Count a slice that was cut in this run; its shards are counted as they become known."""
        self.slice_phase_s = add_phases(self.slice_phase_s, receipt.phase_s)
        self.skipped_files.update(receipt.skipped)
        self.unfit.update(receipt.unfit)

    def add_attempt(self, attempt: Attempt) -> None:
        """Count an attempt; it comes before the receipt of the shard that it scored."""
        key = attempt.node, attempt.actor
        job_start_s = self._actor(key).add_attempt(attempt)
        self.num_retries += attempt.is_lost and attempt.job != "prepare"
        if attempt.job != "score" or attempt.is_lost:
            self.attempts.add(TimedAttempt(attempt, None))
            return
        self._open[attempt.name, attempt.number] = attempt, job_start_s
        if len(self._open) > _MAX_OPEN:
            oldest, _ = self._open.pop(next(iter(self._open)))
            self.attempts.add(TimedAttempt(oldest, None))

    def add_receipt(self, receipt: Receipt) -> None:
        """Count a shard that was scored in this run."""
        self.scored.add(receipt)
        found = self._open.pop((receipt.shard, receipt.attempt), None)
        key = ("", receipt.actor) if found is None else (found[0].node, found[0].actor)
        actor = self._actor(key)
        actor.add_receipt(receipt)
        infer_s = receipt.phase_s.get("infer", 0.0)
        self.predictions.add((receipt.expected_s, infer_s, key))
        if found is not None:
            attempt, job_start_s = found
            self.attempts.add(TimedAttempt(attempt, receipt))
            actor.tokens.add(receipt.num_tokens, job_start_s, max(job_start_s, attempt.end_s))

    def close(self) -> None:
        """Keep the attempts, too, whose receipt has not come."""
        for attempt, _ in self._open.values():
            self.attempts.add(TimedAttempt(attempt, None))
        self._open.clear()

    def _actor(self, key: tuple[str, str]) -> ActorTally:
        actor = self.actors.get(key)
        if actor is None:
            actor = self.actors[key] = ActorTally()
        return actor


def add_phases(total_s: Mapping[str, float], phase_s: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase, of both."""
    both_s = dict(total_s)
    for phase, seconds in phase_s.items():
        both_s[phase] = both_s.get(phase, 0.0) + seconds
    return both_s
