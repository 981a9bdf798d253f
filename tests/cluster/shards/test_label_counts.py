from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from fastformers.cluster.shards.label_counts import MAX_VALUES, LabelCounts, count_labels
from fastformers.inference.tasks import MULTI_LABEL_CLASSIFICATION, REGRESSION, TEXT_CLASSIFICATION

NAMES = ("no", "yes", "perhaps")
LOGITS_UC = np.array([[3, 0, 1], [0, 3, -1], [-1, -1, 2]], np.float32)


def test_rows_are_counted_by_label_and_predicted_class():
    values = ["no", "yes", None, "yes", "no", "no"]
    counts = count_labels(values, [0, 0, 1, 1, None, 1], LOGITS_UC, TEXT_CLASSIFICATION, NAMES)
    assert (counts.num_rows, counts.num_unlabeled) == (4, 1)  # a bad row is neither
    assert counts.pairs == {'"no"': {"0": 1, "1": 1}, '"yes"': {"0": 1, "1": 1}}
    assert counts.labels == {'"no"': 2, '"yes"': 2}
    assert counts.classes == {"0": 2, "1": 2}


def test_counts_of_two_shards_are_those_of_both():
    values, texts = ["no", "yes", "yes", 3], [0, 1, 2, 2]

    def count(rows):
        return count_labels(values[rows], texts[rows], LOGITS_UC, MULTI_LABEL_CLASSIFICATION, NAMES)

    both = LabelCounts()
    both.add(count(slice(0, 2)))
    both.add(count(slice(2, 4)))
    assert both == count(slice(0, 4))


def test_several_labels_are_lists_or_text_with_bars_or_marks():
    for values in ([["no", "perhaps"], ["yes"]], ["no | perhaps", "yes"], [[1, 0, 1], [0, 1, 0]]):
        counts = count_labels(values, [0, 1], LOGITS_UC, MULTI_LABEL_CLASSIFICATION, NAMES)
        assert counts.labels == {'"no"': 1, '"perhaps"': 1, '"yes"': 1}
        assert counts.pairs['"yes"'] == {"0": 1, "1": 1}  # text 1 has both, at logits of 0 and 3
        assert counts.classes == {"0": 2, "1": 2, "2": 1}


def test_of_numbers_a_sample_is_kept():
    values = [*map(str, range(1000)), "many", None, float("nan")]
    scores = np.arange(1003, dtype=np.float32).reshape(-1, 1)
    counts = count_labels(values, list(range(1003)), scores, REGRESSION, ())
    assert len(counts.numbers) in (63, 64)
    assert all(label == score for label, score in counts.numbers)
    assert counts.num_unlabeled == 2


def test_a_column_of_very_many_values_is_given_up():
    values = list(range(MAX_VALUES + 1))
    counts = count_labels(values, [0] * len(values), LOGITS_UC, TEXT_CLASSIFICATION, NAMES)
    assert counts.is_overfull
    assert not counts.pairs
    sums = LabelCounts()
    sums.add(counts)
    assert sums.is_overfull


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (Decimal("1"), "1"),
        (Decimal("1.50"), "1.5"),
        (b"yes", '"yes"'),
        (b"\xff", '"\\ufffd"'),
        (date(2026, 11, 27), '"2026-11-27"'),
        (datetime(2026, 11, 27, 2), '"2026-11-27 02:00:00"'),
        (timedelta(seconds=1), '"0:00:01"'),
        ({"a": Decimal(1)}, '{"a": 1}'),
        ([["yes"]], '[["yes"]]'),
    ],
)
def test_a_value_of_any_type_is_counted(value, label):
    """What it means is judged at the end of a run, which it must not end."""
    counts = count_labels([value, value], [0, 1], LOGITS_UC, TEXT_CLASSIFICATION, NAMES)
    assert counts.labels == {label: 2}
    assert counts.pairs == {label: {"0": 1, "1": 1}}
    parts = [value, [value]]
    counts = count_labels([parts], [0], LOGITS_UC, MULTI_LABEL_CLASSIFICATION, NAMES)
    assert counts.num_rows == sum(counts.labels.values()) - 1 == 1
