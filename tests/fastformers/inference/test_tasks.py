import pickle

import numpy as np
import pytest

from fastformers.inference.metrics import best_of_groups, rank_agreement
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TASKS,
    TEXT_CLASSIFICATION,
    label_sets,
    sigmoid,
)

GROUPS = np.array([0, 0, 0, 1, 1, 1])
RIGHTS = np.array([0, 1, 0, 1, 0, 0])


def column(*values):
    return np.array(values, np.float32)[:, None]


def measure(task, outputs, targets, **options):
    return task.measure(outputs, np.array(targets), teacher_outputs_NC=outputs, **options)


def test_every_task_has_a_metric_and_columns_of_its_own():
    assert {task.metric for task in TASKS.values()} == {
        *("accuracy", "micro-F1", "Spearman", "rank agreement")
    }
    assert [task.column_names[0] for task in TASKS.values()] == [
        *("label", "labels", "score", "score", "embedding")
    ]


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_a_task_survives_the_way_to_another_process(task):
    assert pickle.loads(pickle.dumps(task)) == task
    assert TASKS[str(task)] is task
    assert hash(task) == hash(pickle.loads(pickle.dumps(task)))


def test_what_a_task_has_follows_from_its_targets():
    assert [t.name for t in TASKS.values() if t.has_labels] == [
        *("text-classification", "multi-label-classification")
    ]
    assert [t.name for t in TASKS.values() if not t.has_targets] == ["embedding"]
    assert [t.name for t in TASKS.values() if t.is_choice] == ["multiple-choice"]


def test_cells_of_labels_and_their_probabilities():
    logits_NC = np.array([[0, np.log(3)], [np.log(9), 0]], np.float32)
    label, probability = TEXT_CLASSIFICATION.columns
    assert list(label.read(logits_NC, ("no", "yes"))) == ["yes", "no"]
    np.testing.assert_allclose(probability.read(logits_NC, ("no", "yes")), [0.75, 0.9], rtol=1e-6)
    nothing = np.empty((0, 2), np.float32)
    assert len(label.read(nothing, ("no", "yes"))) == len(probability.read(nothing, ())) == 0


def test_micro_f1_counts_all_labels_of_all_rows():
    logits_NC = np.array([[1, -1, 0], [-1, -1, -1]], np.float32)  # a logit of 0 counts as yes
    targets_NC = np.array([[1, 1, 0], [0, 0, 1]], np.float32)
    # Two labels predicted, three true, one in common.
    assert measure(MULTI_LABEL_CLASSIFICATION, logits_NC, targets_NC) == 2 / 5
    nothing = np.full((2, 3), -1, np.float32)
    assert measure(MULTI_LABEL_CLASSIFICATION, nothing, np.zeros((2, 3))) == 1
    assert measure(MULTI_LABEL_CLASSIFICATION, nothing, targets_NC) == 0


def test_the_choice_with_the_largest_score_of_its_group_counts():
    assert best_of_groups(np.array([1, 5, 2, 9, 0, 9], np.float32), GROUPS).tolist() == [1, 3]
    right = column(-9, -8, -9, 3, 2, 1)
    assert measure(MULTIPLE_CHOICE, right, RIGHTS, groups_N=GROUPS) == 1
    half = column(-9, -8, -7, 3, 2, 1)
    assert measure(MULTIPLE_CHOICE, half, RIGHTS, groups_N=GROUPS) == 0.5
    assert MULTIPLE_CHOICE.measure_agreement(half, right, groups_N=GROUPS) == 0.5
    # Rows of a group need not stand together.
    order = [3, 0, 4, 1, 5, 2]
    assert measure(MULTIPLE_CHOICE, half[order], RIGHTS[order], groups_N=GROUPS[order]) == 0.5


def test_other_metrics_of_answers_to_questions():
    logits_NC = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 1, 0]]
    others = TEXT_CLASSIFICATION.measure_others(logits_NC, RIGHTS, groups_N=GROUPS)
    # Class 1: three predicted, two true, both found; class 0: three predicted, four true, three
    # found.
    assert others == {
        "macro-F1": pytest.approx((4 / 5 + 6 / 7) / 2),
        "F1a": pytest.approx(4 / 5),
        "exact match": 0.5,
    }
    alone = TEXT_CLASSIFICATION.measure_others(logits_NC, RIGHTS)
    assert list(alone) == ["macro-F1"]
    assert REGRESSION.measure_others(column(1, 2), np.array([1, 2])) == {}


def test_macro_f1_leaves_out_classes_that_do_not_occur():
    logits_NC = np.eye(5, dtype=np.float32)[[0, 0, 3]]
    others = TEXT_CLASSIFICATION.measure_others(logits_NC, np.array([0, 4, 3]))
    assert others["macro-F1"] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_agreement_on_several_labels_is_on_all_of_a_row():
    teacher_NC = np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    logits_NC = np.array([[2, 9], [1, 1], [-3, -1]], np.float32)
    agreement = MULTI_LABEL_CLASSIFICATION.measure_agreement(logits_NC, teacher_NC)
    assert agreement == pytest.approx(2 / 3)


def test_embeddings_are_compared_by_direction_and_by_the_ranks_of_pairs():
    rng = np.random.default_rng(0)
    teacher_NC = rng.standard_normal((40, 8)).astype(np.float32)
    scaled = teacher_NC * rng.uniform(1, 9, (40, 1)).astype(np.float32)
    assert EMBEDDING.measure_agreement(scaled, teacher_NC) == pytest.approx(1, abs=1e-6)
    assert rank_agreement(scaled, teacher_NC) == pytest.approx(1, abs=1e-3)
    # A rotation of all vectors changes each of them, but no pair.
    turn, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    turned = (teacher_NC @ turn).astype(np.float32)
    assert EMBEDDING.measure_agreement(turned, teacher_NC) < 0.5
    assert rank_agreement(turned, teacher_NC) == pytest.approx(1, abs=1e-3)
    noise = teacher_NC + 0.3 * rng.standard_normal((40, 8)).astype(np.float32)
    assert 0.8 < rank_agreement(noise, teacher_NC) < 0.99
    assert EMBEDDING.measure(noise, np.zeros(40), teacher_outputs_NC=teacher_NC) == rank_agreement(
        noise, teacher_NC
    )


def test_probabilities_of_labels_do_not_overflow_and_agree_with_the_labels():
    logits_NC = np.array([[-1000, 1000, 0, -0.0], [-1e-8, 1e-8, 88, -104]], np.float32)
    probabilities_NC = sigmoid(logits_NC)
    assert probabilities_NC[0].tolist() == [0, 1, 0.5, 0.5]
    assert label_sets(logits_NC, ("a", "b", "c", "d")) == [["b", "c", "d"], ["b", "c"]]
    assert sigmoid(np.log(np.array([[3]], np.float32)))[0, 0] == pytest.approx(0.75)
    assert label_sets(np.full((1, 2), np.nan, np.float32), ("a", "b")) == [[]]
