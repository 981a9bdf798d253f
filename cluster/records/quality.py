"""How right the predictions were, where the rows came with labels.

    counts of predictions against labels -> [quality] -> RunReport -> report.json, page

The values of the label column are read as `compress` reads labels: by name, by place, as true and
false; all of them in one way, or none. This module reads no file and no prediction.

Shape suffixes: C classes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastformers.cluster.shards.label_counts import MAX_VALUES, LabelCounts
from fastformers.data.labels import read_labels
from fastformers.errors import InputError
from fastformers.inference.metrics import share_interval, spearman
from fastformers.inference.tasks import Task

MAX_MATRIX = 50  # classes beyond which a report has no matrix


@dataclass(frozen=True, kw_only=True)
class LabelQuality:
    """How right the predictions of one label were.

    Attributes:
        label: Its name.
        rows: Rows that have it.
        predicted: Rows that it was predicted for.
        right: Rows that are both.
    """

    label: str
    rows: int
    predicted: int
    right: int

    @property
    def precision(self) -> float | None:
        """Share of the predictions that are right; None without any."""
        return self.right / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Share of the rows that were found; None without any."""
        return self.right / self.rows if self.rows else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both; None for a label that does not occur."""
        marked = self.rows + self.predicted
        return 2 * self.right / marked if marked else None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Predictions against the labels of the rows.

    Attributes:
        label_column: Column of the labels.
        read_as: What its values were taken for.
        metric: Name of the task's metric.
        value: Its value, at most 1.
        low, high: 95% interval of an accuracy (Wilson); None for other metrics.
        macro_f1: Mean F1 of the labels that occur; None where a row may have several, or a number.
        rows: Rows that were compared; of numbers a sample.
        unlabeled: Rows with a prediction and without a label.
        labels: Each label by itself, in the order of the bundle; empty for numbers.
        confusion: Rows by label (down) and prediction (across), in that order; empty where a row
            may have several labels, or where there are many.
    """

    label_column: str
    read_as: str
    metric: str
    value: float
    low: float | None
    high: float | None
    macro_f1: float | None
    rows: int
    unlabeled: int
    labels: tuple[LabelQuality, ...]
    confusion: tuple[tuple[int, ...], ...]


def measure_quality(
    counts: LabelCounts,
    numbers: Sequence[tuple[float, float]],
    *,
    label_column: str,
    task: Task,
    names: Sequence[str],
    read_by: LabelCounts | None = None,
) -> Quality:
    """The task's metric, and what was taken for what.

    Args:
        counts: Predictions against labels.
        numbers: Label and prediction of some rows, where both are numbers.
        label_column: Column of the labels.
        task: Task of the bundle.
        names: Names of its C classes.
        read_by: Counts of all rows, where `counts` are of some: how a value is read depends on
            which others there are.

    Raises:
        InputError: The column holds no labels of this task; says why.
    """
    read_by = read_by or counts
    where = f"column {label_column!r}"
    if not counts.num_rows:
        raise InputError(f"{where} has no label for any row with a prediction")
    if task.targets == "number":
        return _measure_numbers(counts, numbers, label_column, task)
    if read_by.is_overfull:
        raise InputError(f"{where} has more than {MAX_VALUES:,} different values, so no labels")
    class_of, read_as = read_classes(read_by, names, where)
    both_CC = np.zeros((len(names), len(names)), np.int64)
    true_C, predicted_C = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for label, rows in counts.labels.items():
        true_C[class_of[label]] += rows
        for number, count in counts.pairs.get(label, {}).items():
            both_CC[class_of[label], int(number)] += count
    for number, count in counts.classes.items():
        predicted_C[int(number)] += count
    by_label = tuple(
        LabelQuality(label=name, rows=rows, predicted=predicted, right=right)
        for name, rows, predicted, right in zip(
            names, true_C.tolist(), predicted_C.tolist(), both_CC.diagonal().tolist(), strict=True
        )
    )
    right, is_class = int(both_CC.trace()), task.targets == "class"
    low, high = share_interval(right, counts.num_rows) if is_class else (None, None)
    found = [one.f1 for one in by_label if one.f1 is not None]
    marked = int(true_C.sum() + predicted_C.sum())
    micro_f1 = 2 * right / marked if marked else 1.0
    return Quality(
        label_column=label_column,
        read_as=read_as,
        metric=task.metric,
        value=right / counts.num_rows if is_class else micro_f1,
        low=low,
        high=high,
        macro_f1=math.fsum(found) / len(found) if is_class else None,
        rows=counts.num_rows,
        unlabeled=counts.num_unlabeled,
        labels=by_label,
        confusion=tuple(map(tuple, both_CC.tolist()))
        if is_class and len(names) <= MAX_MATRIX
        else (),
    )


def read_classes(
    counts: LabelCounts, names: Sequence[str], where: str
) -> tuple[dict[str, int], str]:
    """Class of each label, and how they were read.

    Args:
        counts: Predictions against labels.
        names: Names of the classes.
        where: What errors call the column.

    Raises:
        InputError: They are not all labels of these classes.
    """
    values: dict[str, Any] = {label: json.loads(label) for label in counts.labels}
    if any(isinstance(value, list | dict) for value in values.values()):
        raise InputError(f"{where} holds lists, and the model gives one label for each row")
    try:
        reading = read_labels(values.values(), names, where)
    except InputError as error:  # its advice is for files that are read again
        raise InputError(str(error).partition("; ")[0]) from error
    return {label: reading.class_of[value] for label, value in values.items()}, reading.how


def _measure_numbers(
    counts: LabelCounts, numbers: Sequence[tuple[float, float]], label_column: str, task: Task
) -> Quality:
    if len(numbers) < 2:
        raise InputError(f"column {label_column!r} holds fewer than two numbers")
    labels, predictions = np.array(numbers, np.float64).T
    return Quality(
        label_column=label_column,
        read_as="numbers",
        metric=task.metric,
        value=spearman(predictions, labels),
        low=None,
        high=None,
        macro_f1=None,
        rows=len(numbers),
        unlabeled=counts.num_unlabeled,
        labels=(),
        confusion=(),
    )
