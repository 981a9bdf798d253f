"""How far a second bundle agrees with the predictions on this corpus, and whether that is enough.

    counts of rows that both scored -> [audit] -> AuditReport -> report.json, table, page
                                              -> gate of the run

Each row was drawn by itself, so shares have Wilson's interval, and means that of the normal
distribution, both narrowed by the share of the corpus that was seen; what the audit bundle could
not score was not seen, and where all was, the interval is a point. The two accuracies are of the
same rows, so the interval of their difference is a paired one. This module reads no file and no
prediction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastformers.cluster.records.quality import measure_quality, read_classes
from fastformers.cluster.shards.audit_counts import UNITS, AuditCounts, AuditedNumber
from fastformers.cluster.shards.label_counts import LabelCounts
from fastformers.errors import AuditError
from fastformers.formatting import format_count
from fastformers.inference.metrics import (
    difference_interval,
    is_share_below,
    mean_interval,
    share_interval,
    spearman,
    spearman_interval,
)
from fastformers.inference.tasks import REGRESSION, Task

MIN_ROWS = 30  # of an interval by the normal distribution
_EARLY_CHANCE = 0.001  # of ending a run early that agrees just as much as it must


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value of the rows drawn, and its 95% interval for all rows; None where they are too few."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class AuditQuality:
    """How right both bundles are on the rows drawn that have a label.

    Attributes:
        label_column: Column of the labels.
        metric: Name of the task's metric.
        rows: Rows that were compared; of numbers a sample.
        own, auditors: Its value for the bundle that scored, and for the audit bundle, at most 1.
        difference: The first less the second; with an interval where it is an accuracy.
    """

    label_column: str
    metric: str
    rows: int
    own: float
    auditors: float
    difference: Estimate


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """How far the audit bundle agrees.

    Attributes:
        share: Share of the rows that was asked for.
        bundle, precision, digest: The audit bundle.
        rows: Rows that both have scored.
        failed_rows: Rows drawn with a prediction that the audit bundle could not score.
        measure: What agreement is: "equal labels", "Spearman" or "mean cosine".
        agreement: It, at most 1; None where no row was drawn.
        difference: Mean distance of two numbers, where a row is one.
        min_agreement: Least agreement that was to be borne; None without.
        core_s, usd: Core-seconds of the audit, and their price.
        quality: Both bundles against the labels of the rows; None where no labels were given.
        quality_unknown: Why `quality` is None although labels were given.
    """

    share: float
    bundle: str
    precision: str
    digest: str
    rows: int
    failed_rows: int
    measure: str
    agreement: Estimate | None
    difference: Estimate | None
    min_agreement: float | None
    core_s: float
    usd: float
    quality: AuditQuality | None
    quality_unknown: str | None

    @property
    def is_refused(self) -> bool:
        """Whether the agreement is below the least one, and not by chance."""
        if self.agreement is None or self.agreement.high is None or self.min_agreement is None:
            return False
        return self.agreement.high < self.min_agreement


@dataclass(frozen=True, kw_only=True)
class AuditSums:
    """What was counted of all rows drawn; `numbers` is a sample, see `AuditCounts`."""

    counts: AuditCounts
    numbers: Sequence[AuditedNumber] = ()


def measure_of(task: Task) -> str:
    """What `measure_agreement` measures: rows are drawn, so the choices of a question are apart."""
    return REGRESSION.agreement if task.is_choice else task.agreement


def measure_agreement(
    sums: AuditSums, task: Task, *, share: float
) -> tuple[Estimate | None, Estimate | None]:
    """Agreement as `Task.measure_agreement` has it, of choices that of their scores, and how far
    numbers are apart.

    Args:
        sums: What was counted.
        task: Task of both bundles.
        share: Share of the rows that was drawn.

    Returns:
        The agreement, None where no row was drawn; and for a task of numbers their mean distance.
    """
    counts, rows = sums.counts, sums.counts.num_rows
    if not rows:
        return None, None
    share = _share_seen(counts, share)
    if task.has_labels:
        return _share(counts, share), None
    mean = _mean(counts, share)
    if task.targets == "none":
        return replace(mean, high=None if mean.high is None else min(1.0, mean.high)), None
    own, auditors = np.array(sorted(pair[:2] for pair in sums.numbers), np.float64).T
    value, seen = spearman(own, auditors), share * len(own) / rows
    if seen < 1 and (len(own) < MIN_ROWS or abs(value) == 1):
        return Estimate(value=value), mean
    return _estimate(value, seen, len(own), lambda n: spearman_interval(value, n)), mean


def measure_labels(
    sums: AuditSums,
    task: Task,
    names: Sequence[str],
    *,
    share: float,
    label_column: str,
    labels: LabelCounts,
) -> AuditQuality:
    """Both bundles against the labels of the rows drawn.

    Args:
        sums: What was counted.
        task: Task of both bundles.
        names: Names of the outputs.
        share: Share of the rows that was drawn.
        label_column: Column of the labels.
        labels: The labels of all rows, by which those of the rows drawn are read.

    Raises:
        InputError: The rows drawn have no labels of this task; says why.
    """
    labeled = [(label, ours, theirs) for ours, theirs, label in sums.numbers if label is not None]
    both = (sums.counts.own, sums.counts.auditors)
    if task.targets == "number":
        both = (LabelCounts(num_rows=len(labeled)),) * 2
    own, auditors = (
        measure_quality(
            counts,
            [(row[0], row[place]) for row in sorted(labeled)],
            label_column=label_column,
            task=task,
            names=names,
            read_by=labels,
        )
        for place, counts in enumerate(both, start=1)
    )
    difference = Estimate(value=own.value - auditors.value)
    if task.targets == "class":
        ours, theirs = _count_only(sums.counts, labels, names, label_column)
        difference = _estimate(
            difference.value,
            _share_seen(sums.counts, share),
            own.rows,
            lambda n: difference_interval(ours * n / own.rows, theirs * n / own.rows, n),
        )
    return AuditQuality(
        label_column=label_column,
        metric=own.metric,
        rows=own.rows,
        own=own.value,
        auditors=auditors.value,
        difference=difference,
    )


def check_so_far(
    counts: Sequence[AuditCounts], task: Task, min_agreement: float, auditor: object
) -> None:
    """End a run whose labels agree far too little, before all of it is paid for.

    Args:
        counts: What was counted, of earlier sessions and of this one.
        task: Task of both bundles; numbers and embeddings are judged at the end alone.
        min_agreement: Least agreement that is borne, 0-1.
        auditor: The audit bundle.

    Raises:
        AuditError: Chance does not explain it, however often a run is looked at.
    """
    rows, equal = sum(one.num_rows for one in counts), sum(one.num_equal for one in counts)
    if task.has_labels and is_share_below(min_agreement, equal, rows, chance=_EARLY_CHANCE):
        raise AuditError(
            f"{100 * equal / rows:.2f}% {task.agreement} of {rows:,} rows audited so far by "
            f"{auditor}, far below --audit-min-agreement {100 * min_agreement:g}; what is scored "
            "is kept: lower it, and the same command goes on from there"
        )


def check_agreement(audit: AuditReport, place: object) -> None:
    """Refuse to call a run good whose predictions agree too little with the audit bundle's.

    Args:
        audit: The audit of the run.
        place: Where the predictions are.

    Raises:
        AuditError: Even the upper end of the interval is below the least agreement.
    """
    if not audit.is_refused:
        return
    assert audit.min_agreement is not None
    raise AuditError(
        f"{describe_finding(audit)} by {audit.bundle}, below --audit-min-agreement "
        f"{100 * audit.min_agreement:g}; the predictions are kept in {place}"
    )


def describe_finding(audit: AuditReport) -> str:
    """The agreement with its interval: 97.30% equal labels (95%: 96.80 to 97.70) of 10,241 rows."""
    agreement, rows = audit.agreement, format_count(audit.rows, "row")
    if agreement is None:
        drawn = format_count(audit.failed_rows, "row")
        if audit.failed_rows:
            return f"not known: the audit bundle could not score the {drawn} drawn"
        if audit.share == 1:
            return "not known: no row has a prediction"
        return f"not known: no row was drawn, give a larger --audit than {audit.share:g}"
    between, few = describe_interval(agreement), ""
    if not between and audit.rows < MIN_ROWS:
        advice = ": give a larger --audit" if audit.share < 1 else ""
        few = f", too few for an interval{advice}"
    return f"{100 * agreement.value:.2f}% {audit.measure}{between} of {rows}{few}"


def describe_interval(estimate: Estimate, *, scale: float = 100, form: str = ".2f") -> str:
    """The interval behind a value, with a space before it; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f" (95%: {scale * estimate.low:{form}} to {scale * estimate.high:{form}})"


def _share_seen(counts: AuditCounts, share: float) -> float:
    """Share of all rows that both have scored, where so many were drawn."""
    return share * counts.num_rows / (counts.num_rows + counts.num_failed)


def _share(counts: AuditCounts, share: float) -> Estimate:
    """The share of rows with equal labels."""
    value = counts.num_equal / counts.num_rows
    return _estimate(value, share, counts.num_rows, lambda n: share_interval(value * n, n))


def _mean(counts: AuditCounts, share: float) -> Estimate:
    """The mean of what was added up."""
    mean, square = (total / UNITS / counts.num_rows for total in (counts.total, counts.squares))
    if share < 1 and counts.num_rows < MIN_ROWS:
        return Estimate(value=mean)
    return _estimate(mean, share, counts.num_rows, lambda n: mean_interval(mean, square, n))


def _estimate(
    value: float, share: float, num_rows: int, interval: Callable[[float], tuple[float, float]]
) -> Estimate:
    """A value with its interval.

    Args:
        value: What the rows drawn have.
        share: Share of all rows that was seen; where that is all, nothing is left to guess.
        num_rows: How many they are.
        interval: Function that gives the interval for a number of rows out of very many.
    """
    if share >= 1:
        return Estimate(value=value, low=value, high=value)
    low, high = interval(num_rows / (1 - share))
    return Estimate(value=value, low=low, high=high)


def _count_only(
    counts: AuditCounts, labels: LabelCounts, names: Sequence[str], label_column: str
) -> tuple[int, int]:
    """Rows that the bundle alone has right, and rows that the audit bundle alone has right."""
    class_of, _ = read_classes(labels, names, f"column {label_column!r}")
    ours = theirs = 0
    for label, by_classes in counts.differing.items():
        for classes, count in by_classes.items():
            own, auditors = map(int, classes.split())
            ours += count * (own == class_of[label])
            theirs += count * (auditors == class_of[label])
    return ours, theirs
