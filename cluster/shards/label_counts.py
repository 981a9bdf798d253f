"""Count the predictions of a shard against the labels that its rows came with.

    logits, column of labels -> [label_counts] -> receipt -> sums of the run -> report

What a value of the column means can only be told when all values are known, so values are counted
as they stand, against the classes that were predicted: such counts add up over shards and runs, and
no prediction is read again. Numbers have a rank correlation, which does not add up; of these a
sample is kept. This module knows nothing of files, and not what a value means.

Shape suffixes: U different texts, N rows of the shard, C classes.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.data.examples import LABEL_SEPARATOR
from fastformers.inference.tasks import Task

# Values of a column beyond which it holds no labels, and rows of a shard whose numbers are kept.
MAX_VALUES, SAMPLED_ROWS = 1000, 64


@dataclass
class LabelCounts:
    """Predictions against labels; a label is the JSON text of its value, a class its number.

    Attributes:
        num_rows: Rows with a prediction and a label.
        num_unlabeled: Rows with a prediction and none.
        pairs: Rows by label and predicted class; where a row has several of both, each of one with
            each of the other.
        labels: Rows by label.
        classes: Rows by predicted class.
        numbers: Label and prediction of some rows, where both are numbers.
        is_overfull: Whether there are more than `MAX_VALUES` labels, and `pairs` was given up.
    """

    num_rows: int = 0
    num_unlabeled: int = 0
    pairs: dict[str, dict[str, int]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    numbers: list[list[float]] = field(default_factory=list)
    is_overfull: bool = False

    def add(self, other: "LabelCounts") -> None:
        """Add the counts, but not the sample, of other rows."""
        self.num_rows += other.num_rows
        self.num_unlabeled += other.num_unlabeled
        self.is_overfull = self.is_overfull or other.is_overfull
        for label, counts in other.pairs.items():
            _add(self.pairs.setdefault(label, {}), counts)
        _add(self.labels, other.labels)
        _add(self.classes, other.classes)
        self._give_up_if_overfull()

    def _give_up_if_overfull(self) -> None:
        if self.is_overfull or len(self.pairs) > MAX_VALUES:
            self.is_overfull = True
            self.pairs, self.labels, self.classes = {}, {}, {}


def count_labels(
    values_N: Sequence[Any],
    texts_N: Sequence[int | None],
    logits_UC: NDArray[np.float32],
    task: Task,
    names: Sequence[str],
) -> LabelCounts:
    """Count the rows of a shard.

    Args:
        values_N: Value of the label column of each row; None where it has none.
        texts_N: Number of each row's text; None where it has no prediction.
        logits_UC: Outputs of the texts.
        task: Task of the bundle.
        names: Names of its classes.
    """
    rows = [
        (value, text) for value, text in zip(values_N, texts_N, strict=True) if text is not None
    ]
    labeled = [(value, text) for value, text in rows if value is not None and value == value]
    counts = LabelCounts(num_rows=len(labeled), num_unlabeled=len(rows) - len(labeled))
    if task.targets == "number":
        counts.numbers = _sample(labeled, logits_UC[:, 0])
        return counts
    several = task.targets == "label set"
    classes_of = [
        np.flatnonzero(row_C >= 0).tolist() if several else [int(row_C.argmax())]
        for row_C in logits_UC
    ]
    pairs: Counter[tuple[str, int]] = Counter()
    labels: Counter[str] = Counter()
    classes: Counter[int] = Counter()
    texts: dict[Any, list[str]] = {}
    for value, text in labeled:
        key = repr(value) if isinstance(value, list | dict) else value
        if key not in texts:
            texts[key] = [text_of_label(one) for one in _split(value, several, names)]
        own, predicted = texts[key], classes_of[text]
        labels.update(own)
        classes.update(predicted)
        pairs.update((label, number) for label in own for number in predicted)
    for (label, number), count in pairs.items():
        counts.pairs.setdefault(label, {})[str(number)] = count
    counts.labels = dict(labels)
    counts.classes = {str(number): count for number, count in classes.items()}
    counts._give_up_if_overfull()
    return counts


def text_of_label(value: Any) -> str:
    """JSON text of a value: a decimal is a number, bytes are text, a date is as it is written."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> int | float | str:
    """A value that JSON does not have."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _split(value: Any, several: bool, names: Sequence[str]) -> Iterable[Any]:
    """The labels of a row: the value, or where there may be several, each of its parts."""
    if not several:
        return [value]
    if isinstance(value, str):
        parts = (part.strip() for part in value.split(LABEL_SEPARATOR))
        return [part for part in parts if part]
    if not isinstance(value, list):
        return [value]
    if len(value) == len(names) and all(mark in (0, 1) for mark in value):
        return [name for name, mark in zip(names, value, strict=True) if mark]
    return value


def _sample(labeled: Sequence[tuple[Any, int]], scores_U: NDArray[np.float32]) -> list[list[float]]:
    """Label and score of some rows, evenly spaced; those whose label is no number are passed."""
    places = np.linspace(0, len(labeled) - 1, min(len(labeled), SAMPLED_ROWS)).astype(int)
    found = ((number_of(labeled[place][0]), labeled[place][1]) for place in places)
    return [[number, float(scores_U[text])] for number, text in found if number is not None]


def number_of(value: Any) -> float | None:
    """A value as a finite number; None where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for key, count in counts.items():
        total[key] = total.get(key, 0) + count
