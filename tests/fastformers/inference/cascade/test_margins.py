import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from fastformers.inference.cascade.margins import margins
from fastformers.inference.tasks import MULTI_LABEL_CLASSIFICATION, TEXT_CLASSIFICATION, softmax

logits = st_np.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(2, 9)),
    elements=st.floats(-60, 60, width=32),
)


def test_the_margin_of_two_labels_is_the_difference_of_their_logits():
    logits_BC = np.array([[1.5, -2.0], [0.25, 0.25], [-30.0, 30.0]], np.float32)
    assert margins(TEXT_CLASSIFICATION, logits_BC).tolist() == [3.5, 0.0, 60.0]


def test_the_margin_of_many_labels_is_the_log_odds_of_the_predicted_one():
    logits_BC = np.random.default_rng(0).normal(0, 2, (50, 7)).astype(np.float32)
    largest_B = softmax(logits_BC).max(axis=1).astype(np.float64)
    expected_B = np.log(largest_B / (1 - largest_B))
    np.testing.assert_allclose(margins(TEXT_CLASSIFICATION, logits_BC), expected_B, atol=1e-5)
    assert expected_B.min() < 0  # a label below a half is less sure than one of two alike


def test_of_labels_that_hold_by_themselves_the_least_sure_one_counts():
    logits_BC = np.array([[5.0, -0.5, 3.0], [-4.0, -6.0, 9.0]], np.float32)
    assert margins(MULTI_LABEL_CLASSIFICATION, logits_BC).tolist() == [0.5, 4.0]


def test_a_model_of_one_label_is_always_sure():
    assert margins(TEXT_CLASSIFICATION, np.zeros((2, 1), np.float32)).tolist() == [np.inf] * 2


@pytest.mark.parametrize("task", [TEXT_CLASSIFICATION, MULTI_LABEL_CLASSIFICATION])
@given(logits)
def test_the_margin_of_a_row_is_the_same_to_the_bit_alone_and_among_others(task, logits_BC):
    together_B = margins(task, logits_BC)
    alone = [margins(task, row_C[None])[0] for row_C in logits_BC]
    columns = margins(task, np.asfortranarray(logits_BC))
    assert together_B.tolist() == alone == columns.tolist()
