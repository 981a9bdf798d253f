"""Count how far a second bundle agrees with the predictions of a shard, row by row.

    outputs of both for the rows drawn -> [audit_counts] -> receipt -> sums of the run -> audit

The counts of a shard are in its receipt, so they are the same after a resumed run; those of all
shards add up to the same values in whatever order they come, which is why means are kept as whole
numbers. Numbers have a rank correlation, which does not add up; of these a sample is kept. This
module knows nothing of files, engines or intervals.

Shape suffixes: D rows drawn, C outputs of a row.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.cluster.shards.label_counts import (
    SAMPLED_ROWS,
    LabelCounts,
    count_labels,
    number_of,
    text_of_label,
)
from fastformers.inference.tasks import Task

UNITS = 2**32  # of the sums that stand for means
# A row's number by the bundle, by the audit bundle, and its label where it has one.
AuditedNumber = tuple[float, float, float | None]


@dataclass
class AuditCounts:
    """Rows that two bundles have scored.

    Attributes:
        num_rows: Rows with an output of both.
        num_failed: Rows with a prediction that the second bundle could not score.
        num_equal: Rows on which both agree, where a row has labels.
        total, squares: Sums over the rows, in units of 1 / `UNITS`, of how far apart two numbers
            are, or of the cosine of two embeddings; and of its square.
        numbers: Sample of `AuditedNumber`, where a row is a number.
        own, auditors: The predictions of both against the labels of the rows, if there are any.
        differing: Rows with a label where both predict another class: by label, then by the two
            classes, the bundle's own first: "0 1".
    """

    num_rows: int = 0
    num_failed: int = 0
    num_equal: int = 0
    total: int = 0
    squares: int = 0
    numbers: list[list[float | None]] = field(default_factory=list)
    own: LabelCounts = field(default_factory=LabelCounts)
    auditors: LabelCounts = field(default_factory=LabelCounts)
    differing: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """The counts that `dataclasses.asdict` turned into `values`."""
        both = {name: LabelCounts(**values[name]) for name in ("own", "auditors")}
        return cls(**{**values, **both})

    def add(self, other: "AuditCounts") -> None:
        """Add the counts, but not the samples, of other rows."""
        self.num_rows += other.num_rows
        self.num_failed += other.num_failed
        self.num_equal += other.num_equal
        self.total += other.total
        self.squares += other.squares
        self.own.add(other.own)
        self.auditors.add(other.auditors)
        if self.own.is_overfull:  # the column holds no labels
            self.differing = {}
            return
        for label, counts in other.differing.items():
            sums = self.differing.setdefault(label, {})
            for classes, count in counts.items():
                sums[classes] = sums.get(classes, 0) + count


def count_audit(
    own_DC: Floats,
    auditors_DC: Floats,
    task: Task,
    names: Sequence[str],
    labels_D: Sequence[Any] | None = None,
) -> AuditCounts:
    """Compare two bundles on the rows that were drawn from a shard.

    Args:
        own_DC: Outputs of the bundle that is audited; all of them finite.
        auditors_DC: Outputs of the second bundle; a row that is not finite has failed.
        task: Task of both.
        names: Names of the outputs.
        labels_D: Label of each row, None for one without; None where no labels are compared.
    """
    is_good_D = np.isfinite(auditors_DC).all(axis=1)
    good = np.flatnonzero(is_good_D)
    own_DC, auditors_DC = own_DC[good], auditors_DC[good]
    labels = None if labels_D is None else [labels_D[row] for row in good.tolist()]
    counts = AuditCounts(num_rows=len(good), num_failed=int((~is_good_D).sum()))
    if task.has_labels:
        counts.num_equal = int(_same_labels(own_DC, auditors_DC, task).sum())
    else:
        values_D = _compare_numbers(own_DC, auditors_DC, task)
        counts.total = sum(round(value * UNITS) for value in values_D.tolist())
        counts.squares = sum(round(value**2 * UNITS) for value in values_D.tolist())
    if labels is not None and task.has_labels:
        _count_labels(counts, own_DC, auditors_DC, task, names, labels)
    if task.targets in ("number", "choice"):
        counts.numbers = _sample(own_DC[:, 0], auditors_DC[:, 0], labels)
    return counts


def _same_labels(own_DC: Floats, auditors_DC: Floats, task: Task) -> NDArray[np.bool_]:
    """Whether both have the same label, or the same labels, in each row."""
    same_D: NDArray[np.bool_]
    if task.targets == "label set":
        same_D = ((own_DC >= 0) == (auditors_DC >= 0)).all(axis=1)
    else:
        same_D = own_DC.argmax(axis=1) == auditors_DC.argmax(axis=1)
    return same_D


def _compare_numbers(own_DC: Floats, auditors_DC: Floats, task: Task) -> NDArray[np.float64]:
    """How far apart two numbers are in each row, or the cosine of two embeddings."""
    own_DC, auditors_DC = own_DC.astype(np.float64), auditors_DC.astype(np.float64)
    values_D: NDArray[np.float64]
    if task.targets == "none":  # in float32, that of equal vectors is a little above 1 or below
        norms_D = np.linalg.norm(own_DC, axis=1) * np.linalg.norm(auditors_DC, axis=1)
        values_D = (own_DC * auditors_DC).sum(axis=1) / np.maximum(norms_D, 1e-24)
    else:
        values_D = np.abs(own_DC[:, 0] - auditors_DC[:, 0])
    return values_D


def _count_labels(
    counts: AuditCounts,
    own_DC: Floats,
    auditors_DC: Floats,
    task: Task,
    names: Sequence[str],
    labels: Sequence[Any],
) -> None:
    rows = range(len(labels))
    counts.own = count_labels(labels, rows, own_DC, task, names)
    counts.auditors = count_labels(labels, rows, auditors_DC, task, names)
    if task.targets != "class":
        return
    own, auditors = own_DC.argmax(axis=1).tolist(), auditors_DC.argmax(axis=1).tolist()
    differing: Counter[tuple[str, str]] = Counter(
        (text_of_label(label), f"{ours} {theirs}")
        for label, ours, theirs in zip(labels, own, auditors, strict=True)
        if ours != theirs and label is not None and label == label
    )
    for (label, classes), count in differing.items():
        counts.differing.setdefault(label, {})[classes] = count


def _sample(
    own_D: Floats, auditors_D: Floats, labels: Sequence[Any] | None
) -> list[list[float | None]]:
    """Both numbers of some rows, evenly spaced, and their label where it is a number."""
    rows = np.linspace(0, len(own_D) - 1, min(len(own_D), SAMPLED_ROWS)).astype(int).tolist()
    return [
        [
            float(own_D[row]),
            float(auditors_D[row]),
            None if labels is None else number_of(labels[row]),
        ]
        for row in rows
    ]
