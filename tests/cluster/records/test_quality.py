import json

import pytest

from fastformers.cluster.records.quality import measure_quality
from fastformers.cluster.shards.label_counts import LabelCounts
from fastformers.errors import InputError
from fastformers.inference.tasks import MULTI_LABEL_CLASSIFICATION, REGRESSION, TEXT_CLASSIFICATION

NAMES = ("negative", "positive", "neutral")


def counts(rows, **changes):
    """Counts of (label, predicted class, number of rows)."""
    made = LabelCounts(num_rows=sum(count for _, _, count in rows), **changes)
    for label, number, count in rows:
        key = json.dumps(label)
        own = made.pairs.setdefault(key, {})
        own[str(number)] = own.get(str(number), 0) + count
        made.labels[key] = made.labels.get(key, 0) + count
        made.classes[str(number)] = made.classes.get(str(number), 0) + count
    return made


def measure(counted, task=TEXT_CLASSIFICATION, names=NAMES, numbers=()):
    return measure_quality(counted, numbers, label_column="y", task=task, names=names)


@pytest.mark.parametrize(
    ("labels", "how"),
    [
        (("negative", "positive"), "by name"),
        (("Negative ", "POSITIVE"), "by name, whatever case and spaces"),
        ((0, 1), "by place from 0"),
    ],
)
def test_accuracy_and_what_was_taken_for_what(labels, how):
    no, yes = labels
    found = measure(counts([(no, 0, 80), (no, 1, 10), (yes, 1, 5), (yes, 2, 5)], num_unlabeled=7))
    assert (found.metric, found.value, found.rows) == ("accuracy", 0.85, 100)
    assert found.confusion == ((80, 10, 0), (0, 5, 5), (0, 0, 0))
    assert (found.read_as, found.unlabeled, found.label_column) == (how, 7, "y")
    assert found.low == pytest.approx(0.7672, abs=1e-4)  # Wilson, of 85 in 100
    assert found.high == pytest.approx(0.9069, abs=1e-4)
    first, second, third = found.labels
    assert (first.precision, first.recall) == (1.0, pytest.approx(80 / 90))
    assert (second.rows, second.predicted, second.right) == (10, 15, 5)
    assert (third.precision, third.recall, third.f1) == (0.0, None, 0.0)
    assert found.macro_f1 == pytest.approx((160 / 170 + 10 / 25 + 0) / 3)


def test_several_labels_are_measured_by_micro_f1():
    counted = LabelCounts(
        num_rows=10,
        pairs={'"negative"': {"0": 4, "1": 1}, '"neutral"': {"2": 3, "0": 2}},
        labels={'"negative"': 6, '"neutral"': 4},
        classes={"0": 5, "1": 1, "2": 4},
    )
    found = measure(counted, MULTI_LABEL_CLASSIFICATION)
    assert found.metric == "micro-F1"
    assert found.value == pytest.approx(2 * (4 + 3) / (6 + 4 + 5 + 1 + 4))
    assert (found.confusion, found.low, found.macro_f1) == ((), None, None)


def test_numbers_are_measured_by_their_ranks():
    numbers = [(1.0, 0.1), (2.0, 0.2), (3.0, 0.9), (4.0, 0.5)]
    found = measure(LabelCounts(num_rows=900), REGRESSION, (), numbers)
    assert (found.metric, found.rows, found.labels) == ("Spearman", 4, ())
    assert found.value == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("counted", "task", "reason"),
    [
        (LabelCounts(num_unlabeled=5), TEXT_CLASSIFICATION, "column 'y' has no label for any row"),
        (LabelCounts(num_rows=5, is_overfull=True), TEXT_CLASSIFICATION, "more than 1,000 diff"),
        (counts([("good", 0, 1)]), TEXT_CLASSIFICATION, "label 'good' is not one of the model's 3"),
        (counts([(["negative"], 0, 1)]), TEXT_CLASSIFICATION, "holds lists"),
        (LabelCounts(num_rows=5), REGRESSION, "fewer than two numbers"),
    ],
)
def test_why_the_quality_is_not_known(counted, task, reason):
    with pytest.raises(InputError, match=reason) as caught:
        measure(counted, task)
    assert "--label-map" not in str(caught.value)  # a flag of other commands
