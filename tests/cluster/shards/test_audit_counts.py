"""How far two bundles agree on the rows of a shard, and that the counts add up in any order."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from fastformers.cluster.shards.audit_counts import UNITS, AuditCounts, count_audit
from fastformers.inference.tasks import TASKS

NAMES = ("a", "b", "c")
WIDTHS = {"regression": 1, "multiple-choice": 1, "embedding": 5}


def outputs(task, num_rows=200, seed=0):
    """Outputs of two models that mostly agree."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((num_rows, WIDTHS.get(task, 3))).astype(np.float32)
    return own, own + 0.3 * rng.standard_normal(own.shape).astype(np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_agreement_is_that_of_the_task(task):
    own, auditors = outputs(task)
    counts = count_audit(own, auditors, TASKS[task], NAMES)
    assert (counts.num_rows, counts.num_failed) == (200, 0)
    mean = counts.total / UNITS / 200
    if TASKS[task].has_labels:
        agreement = TASKS[task].measure_agreement(own, auditors)
        assert 0.5 < agreement < 1
        assert counts.num_equal / 200 == pytest.approx(agreement)
    elif task == "embedding":
        assert mean == pytest.approx(TASKS[task].measure_agreement(own, auditors), abs=1e-6)
        assert mean**2 < counts.squares / UNITS / 200 <= 1
    else:
        assert mean == pytest.approx(float(np.abs(own - auditors).mean()), abs=1e-6)
        assert len(counts.numbers) == 64
        assert [own[0, 0], auditors[0, 0], None] == counts.numbers[0]


@pytest.mark.parametrize("task", TASKS)
def test_counts_travel_as_json_and_add_up_in_any_order(task):
    labels = [None, "a", "b", 0.5] * 50
    parts = [
        count_audit(*outputs(task, seed=seed), TASKS[task], NAMES, labels) for seed in range(5)
    ]
    plain = [json.loads(json.dumps(asdict(part))) for part in parts]
    sums = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        total = AuditCounts()
        for number in order:
            total.add(AuditCounts.from_plain(plain[number]))
        sums.append(total)
    assert sums[0] == sums[1]
    assert sums[0].num_rows == 1000
    for name in ("num_failed", "num_equal", "total", "squares"):
        assert getattr(sums[0], name) == sum(getattr(part, name) for part in parts)
    assert AuditCounts() == AuditCounts(num_rows=0, num_equal=0, total=0, squares=0)


def test_sums_are_in_the_units_of_those_that_older_runs_have_stored():
    own, _ = outputs("embedding", num_rows=8)
    counts = count_audit(own, own, TASKS["embedding"], NAMES)
    assert (counts.total, counts.squares) == (
        pytest.approx(8 * 2**32, rel=1e-6),
        pytest.approx(8 * 2**32, rel=1e-6),
    )


def test_a_logit_of_zero_is_a_label_of_either_bundle():
    task = next(task for task in TASKS.values() if task.targets == "label set")
    rows = np.array([[0, -1, 1], [1, -1, 1], [-1, -1, 1]], np.float32)
    for own, auditors in ((rows[0], rows[1]), (rows[1], rows[0])):
        assert count_audit(own[None], auditors[None], task, NAMES).num_equal == 1
        assert count_audit(own[None], rows[2][None], task, NAMES).num_equal == 0


def test_rows_without_a_finite_output_have_failed():
    own, auditors = outputs("text-classification")
    auditors[::10] = np.nan
    counts = count_audit(own, auditors, TASKS["text-classification"], NAMES, ["a"] * 200)
    assert (counts.num_rows, counts.num_failed, counts.own.num_rows) == (180, 20, 180)
    rest = np.delete(np.arange(200), np.s_[::10])
    assert counts.num_equal == (own.argmax(1) == auditors.argmax(1))[rest].sum()


def test_where_both_differ_their_classes_are_counted_by_label():
    own = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32)
    auditors = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    labels = ["a", "a", "a", "b", None]
    counts = count_audit(own, auditors, TASKS["text-classification"], NAMES, labels)
    assert counts.differing == {'"a"': {"0 1": 2}, '"b"': {"0 2": 1}}
    assert counts.num_equal == 1
    assert (counts.own.num_rows, counts.own.num_unlabeled) == (4, 1)


def test_labels_of_numbers_are_in_the_sample():
    own, auditors = outputs("regression", num_rows=3)
    counts = count_audit(own, auditors, TASKS["regression"], (), ["1.5", None, "x"])
    assert [row[2] for row in counts.numbers] == [1.5, None, None]


def test_a_column_without_labels_leaves_no_heap_of_values():
    rows = 1500
    own, auditors = outputs("text-classification", num_rows=rows)
    labels = [f"id {row}" for row in range(rows)]
    total = AuditCounts()
    total.add(count_audit(own, auditors, TASKS["text-classification"], NAMES, labels))
    assert total.own.is_overfull
    assert total.differing == {}
    assert total.num_rows == rows
