import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.compression.cascade.threshold import plan_cascade
from fastformers.data.held_out import HeldOut
from fastformers.errors import QualityError
from fastformers.inference.cascade.margins import margins
from fastformers.inference.tasks import MULTI_LABEL_CLASSIFICATION, TEXT_CLASSIFICATION

NUM_ROWS = 4000


def make_task(*, seed=0, num_rows=NUM_ROWS, sharpness=2.0):
    """A student that is wrong where it is unsure, before a second graph that is mostly right."""
    rng = np.random.default_rng(seed)
    targets_N = rng.integers(0, 2, num_rows)
    sign_N = 2 * targets_N - 1
    first_N = sign_N * 1.5 + rng.normal(0, sharpness, num_rows)
    second_N = sign_N * 4.0 + rng.normal(0, sharpness, num_rows)
    lengths_N = rng.integers(5, 60, num_rows)
    held_out = HeldOut(task=TEXT_CLASSIFICATION, targets_N=targets_N)
    return [np.stack([-x / 2, x / 2], 1).astype(np.float32) for x in (first_N, second_N)], (
        lengths_N,
        held_out,
    )


def accuracy(logits_NC, held_out):
    return float((logits_NC.argmax(axis=1) == held_out.targets_N).mean())


def cascade_accuracy(first_NC, second_NC, threshold, held_out):
    goes_on_N = margins(TEXT_CLASSIFICATION, first_NC) < threshold
    return accuracy(np.where(goes_on_N[:, None], second_NC, first_NC), held_out)


def test_the_cascade_loses_no_more_than_allowed_and_leaves_most_to_the_student():
    (first_NC, second_NC), (lengths_N, held_out) = make_task()
    plan = plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=0.5)
    best = accuracy(second_NC, held_out)
    assert best - accuracy(first_NC, held_out) > 0.15
    kept = cascade_accuracy(first_NC, second_NC, plan.threshold, held_out)
    assert 100 * (best - kept) == pytest.approx(plan.drop)
    assert plan.drop < plan.drop_bound <= 0.5
    assert 0.2 < plan.share < 0.9
    went_on = float((margins(TEXT_CLASSIFICATION, first_NC) < plan.threshold).mean())
    assert plan.share == went_on
    assert plan.num_held_out == NUM_ROWS


def test_more_rows_go_on_where_less_may_be_lost_and_where_fewer_rows_show_it():
    (first_NC, second_NC), (lengths_N, held_out) = make_task()
    shares = [
        plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=drop).share
        for drop in (0.2, 0.5, 1.0, 3.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    few = slice(0, 800)
    of_few = plan_cascade(
        first_NC[few],
        second_NC[few],
        lengths_N[few],
        HeldOut(task=TEXT_CLASSIFICATION, targets_N=held_out.targets_N[few]),
        max_drop=1.0,
    )
    assert of_few.share > shares[2]


def test_nine_of_ten_cascades_keep_the_promise_on_new_rows():
    (first_NC, second_NC), (_, held_out) = make_task(seed=99, num_rows=100_000)
    best = accuracy(second_NC, held_out)
    kept = 0
    for seed in range(40):
        (own_NC, other_NC), (lengths_N, own) = make_task(seed=seed, num_rows=1500)
        plan = plan_cascade(own_NC, other_NC, lengths_N, own, max_drop=1.0)
        real = cascade_accuracy(first_NC, second_NC, plan.threshold, held_out)
        kept += 100 * (best - real) <= 1.0
    assert kept >= 33  # 36 expected; 33 or more with a probability of 96%


@pytest.mark.parametrize("num_wrong", [100, 400])
def test_not_one_row_more_goes_on_than_must(num_wrong):
    """Of 400 rows the student is wrong on those that it is least sure of, the second on none."""
    order = np.random.default_rng(0).permutation(400)
    sign_N = np.where(order < num_wrong, -1, 1)
    first_NC = np.stack([0 * order, sign_N * (order + 1)], 1).astype(np.float32)
    second_NC = np.tile(np.float32([0, 1]), (400, 1))
    held_out = HeldOut(task=TEXT_CLASSIFICATION, targets_N=np.ones(400, int))
    plan = plan_cascade(first_NC, second_NC, order, held_out, max_drop=1.0)
    # Two wrong rows lose 0.5 points, and 0.95 at most; three would lose up to 1.3.
    assert plan.share == (num_wrong - 2) / 400
    assert plan.drop == pytest.approx(0.5)
    assert plan.drop_bound == pytest.approx(0.95, abs=0.005)


def test_few_rows_cannot_show_that_little_is_lost():
    (first_NC, second_NC), (lengths_N, held_out) = make_task(num_rows=200)
    with pytest.raises(
        QualityError, match=r"--cascade-drop 0.2: the rows that choose \(200\) cannot show"
    ):
        plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=0.2)


def test_a_student_that_is_good_enough_needs_no_second_graph():
    (first_NC, second_NC), (lengths_N, held_out) = make_task()
    with pytest.raises(QualityError, match=r"the student alone loses no more .* leave --cascade"):
        plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=40)


def test_a_student_that_is_surely_wrong_hands_on_nearly_all():
    (first_NC, second_NC), (lengths_N, held_out) = make_task()
    wrong_N = np.arange(NUM_ROWS) % 7 == 0
    first_NC[wrong_N] = second_NC[wrong_N][:, ::-1] * 4
    plan = plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=0.2)
    assert plan.share > 0.98


def test_the_share_is_known_by_length():
    (first_NC, second_NC), (lengths_N, held_out) = make_task()
    first_NC[lengths_N < 30] *= 0.25  # short rows leave the student unsure
    plan = plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=0.5)
    short, long = plan.share_by_length.at(np.array([8, 55]))
    assert short > long + 0.2
    lengths = plan.share_by_length.lengths
    assert (len(lengths), list(lengths)) == (8, sorted(lengths))
    mean = float(plan.share_by_length.at(lengths_N).mean())
    assert mean == pytest.approx(plan.share, abs=0.02)


def test_rows_of_one_length_are_one_bin():
    (first_NC, second_NC), (_, held_out) = make_task()
    plan = plan_cascade(first_NC, second_NC, np.full(NUM_ROWS, 12), held_out, max_drop=0.5)
    assert plan.share_by_length.lengths == (12.0,)
    assert plan.share_by_length.shares == pytest.approx((plan.share,))


def test_rows_of_one_question_count_together():
    (first_NC, second_NC), (lengths_N, held_out) = make_task()
    alone = plan_cascade(first_NC, second_NC, lengths_N, held_out, max_drop=0.5)
    # The same rows four times say no more than once, as long as they are known to be one.
    four = [np.repeat(logits_NC, 4, axis=0) for logits_NC in (first_NC, second_NC)]
    groups_N = np.repeat(np.arange(NUM_ROWS), 4)
    grouped = HeldOut(
        task=TEXT_CLASSIFICATION, targets_N=np.repeat(held_out.targets_N, 4), groups_N=groups_N
    )
    together = plan_cascade(*four, np.repeat(lengths_N, 4), grouped, max_drop=0.5)
    assert together.share == pytest.approx(alone.share, abs=0.01)
    loose = HeldOut(task=TEXT_CLASSIFICATION, targets_N=grouped.targets_N)
    fooled = plan_cascade(*four, np.repeat(lengths_N, 4), loose, max_drop=0.5)
    assert fooled.share < alone.share - 0.01


def test_a_logit_of_zero_is_a_label_and_no_label_at_all_may_be_right():
    targets_NC = np.tile(np.float32([[1, 0], [0, 0]]), (1000, 1))
    second_NC = np.tile(np.float32([[0, -4], [-4, -4]]), (1000, 1))
    first_NC = second_NC.copy()
    first_NC[:500, 1] = np.linspace(0, 0.1, 500)  # a label too many; surer from row to row
    held_out = HeldOut(task=MULTI_LABEL_CLASSIFICATION, targets_N=targets_NC)
    plan = plan_cascade(first_NC, second_NC, np.full(2000, 9), held_out, max_drop=5.0)
    goes_on_N = margins(MULTI_LABEL_CLASSIFICATION, first_NC) < plan.threshold
    assert 0 < goes_on_N.sum() < 2000
    joined_NC = np.where(goes_on_N[:, None], second_NC, first_NC)
    assert plan.drop == pytest.approx(100 * (1 - held_out.measure(joined_NC, second_NC)))

    none = HeldOut(task=MULTI_LABEL_CLASSIFICATION, targets_N=np.zeros((400, 1)))
    wrong_NC, right_NC = np.ones((400, 1)), -np.ones((400, 1))
    with pytest.raises(QualityError, match=r"\(100\.32 points with nearly all of them"):
        plan_cascade(wrong_NC, right_NC, np.full(400, 9), none, max_drop=1.0)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_of_several_labels_the_loss_is_of_micro_f1(seed):
    rng = np.random.default_rng(seed)
    targets_NC = (rng.random((2000, 5)) < 0.3).astype(np.float32)
    sign_NC = 2 * targets_NC - 1
    first_NC, second_NC = (
        (sign_NC * size + rng.normal(0, 1.5, targets_NC.shape)).astype(np.float32)
        for size in (1.5, 4.0)
    )
    held_out = HeldOut(task=MULTI_LABEL_CLASSIFICATION, targets_N=targets_NC)
    plan = plan_cascade(first_NC, second_NC, np.full(2000, 9), held_out, max_drop=3.0)
    goes_on_N = margins(MULTI_LABEL_CLASSIFICATION, first_NC) < plan.threshold
    joined_NC = np.where(goes_on_N[:, None], second_NC, first_NC)
    drop = held_out.measure(second_NC, second_NC) - held_out.measure(joined_NC, second_NC)
    assert plan.drop == pytest.approx(100 * drop)
    assert plan.drop_bound <= 3.0
