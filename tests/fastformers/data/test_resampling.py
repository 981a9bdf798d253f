import numpy as np
import pytest

from fastformers.data.held_out import HeldOut
from fastformers.data.resampling import interval_of, is_within_noise, resample_metric
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TEXT_CLASSIFICATION,
)


def logits_of(classes_N):
    return np.eye(2, dtype=np.float32)[classes_N]


def flip(classes_N, rows):
    flipped_N = classes_N.copy()
    flipped_N[rows] = 1 - flipped_N[rows]
    return flipped_N


@pytest.fixture
def targets_N():
    return np.random.default_rng(1).integers(2, size=1000)


def test_an_accuracy_has_the_interval_of_a_share(targets_N):
    held_out = HeldOut(task=TEXT_CLASSIFICATION, targets_N=targets_N)
    logits_NC = logits_of(flip(targets_N, slice(0, 100)))
    values_R = resample_metric(held_out, logits_NC, logits_NC)
    low, high = interval_of(values_R)
    margin = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert (low, high) == pytest.approx((0.9 - margin, 0.9 + margin), abs=0.002)
    np.testing.assert_array_equal(resample_metric(held_out, logits_NC, logits_NC), values_R)
    assert (resample_metric(held_out, logits_NC, logits_NC, seed=1) != values_R).any()


def test_a_difference_is_judged_on_the_rows_that_differ(targets_N):
    """Each accuracy is unsure by 1.9 points; that one model is better on 12 rows more is not."""
    held_out = HeldOut(task=TEXT_CLASSIFICATION, targets_N=targets_N)
    teacher_NC = logits_of(flip(targets_N, slice(0, 100)))

    def values_of(classes_N):
        return resample_metric(held_out, logits_of(classes_N), teacher_NC)

    teacher_R = values_of(flip(targets_N, slice(0, 100)))
    assert is_within_noise(teacher_R, teacher_R)
    assert not is_within_noise(values_of(flip(targets_N, slice(0, 112))), teacher_R)
    # 112 rows wrong as well, but other ones: 100 against 112.
    assert is_within_noise(values_of(flip(targets_N, slice(100, 212))), teacher_R)


def test_rows_of_one_question_are_drawn_together():
    """100 questions of 10 rows that are right or wrong as one are 100 facts, not 1,000."""
    groups_N = np.repeat(np.arange(100) * 7, 10)
    targets_N = np.zeros(1000, np.int64)
    logits_NC = logits_of(np.repeat(np.arange(100) < 30, 10).astype(int))
    alone = HeldOut(task=TEXT_CLASSIFICATION, targets_N=targets_N)
    grouped = HeldOut(task=TEXT_CLASSIFICATION, targets_N=targets_N, groups_N=groups_N)
    spread, wide_spread = (
        resample_metric(held_out, logits_NC, logits_NC).std() for held_out in (alone, grouped)
    )
    assert wide_spread / spread == pytest.approx(np.sqrt(10), rel=0.1)


def cases():
    """Held-out rows of each task with a model's and a teacher's outputs."""
    rng = np.random.default_rng(0)
    groups_N = np.repeat(np.arange(60), 4)
    choices_N = np.tile([0, 1, 0, 0], 60)
    teacher_NC = rng.normal(size=(240, 3)).astype(np.float32)
    noisy_NC = teacher_NC + rng.normal(size=(240, 3)).astype(np.float32)
    yield HeldOut(task=TEXT_CLASSIFICATION, targets_N=teacher_NC.argmax(axis=1)), noisy_NC
    yield HeldOut(task=MULTI_LABEL_CLASSIFICATION, targets_N=(teacher_NC > 0) * 1), noisy_NC
    yield HeldOut(task=REGRESSION, targets_N=teacher_NC[:, 0]), noisy_NC
    yield HeldOut(task=MULTIPLE_CHOICE, targets_N=choices_N, groups_N=groups_N), noisy_NC
    yield HeldOut(task=EMBEDDING, targets_N=np.zeros(240)), noisy_NC
    overlaps_N = rng.random(240)
    yield (
        HeldOut(
            task=TEXT_CLASSIFICATION,
            targets_N=choices_N,
            groups_N=groups_N,
            overlaps_N=overlaps_N,
        ),
        noisy_NC,
    )


@pytest.mark.parametrize(("held_out", "outputs_NC"), list(cases()))
def test_the_draws_of_each_metric_lie_around_its_value(held_out, outputs_NC):
    teacher_NC = np.random.default_rng(0).normal(size=(240, 3)).astype(np.float32)
    value = held_out.measure(outputs_NC, teacher_NC)
    values_R = resample_metric(held_out, outputs_NC, teacher_NC)
    assert values_R.mean() == pytest.approx(value, abs=0.01)
    low, high = interval_of(values_R)
    assert low < value < high
    assert 0.03 < high - low < 0.4
    if held_out.task == EMBEDDING:
        assert resample_metric(held_out, teacher_NC, teacher_NC) == pytest.approx(1)


def test_a_correlation_varies_as_the_theory_says():
    """Fisher's interval for the correlation of 400 normal pairs."""
    rng = np.random.default_rng(2)
    x_N = rng.normal(size=400)
    y_N = x_N + rng.normal(size=400)
    held_out = HeldOut(task=REGRESSION, targets_N=y_N)
    values_R = resample_metric(held_out, x_N[:, None], x_N[:, None])
    value = held_out.measure(x_N[:, None], x_N[:, None])
    margin = 1.96 * np.sqrt(1.06 / 397)
    expected = np.tanh(np.arctanh(value) + np.array([-margin, margin]))
    assert interval_of(values_R) == pytest.approx(expected, abs=0.02)
