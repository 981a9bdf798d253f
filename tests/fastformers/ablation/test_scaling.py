"""Seconds of a sample stand for all texts, and their standard error holds where the truth is known.

Shape suffixes: N texts, S texts that are timed.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.ablation.scaling import scale_by_tokens, scale_equal, spread_sample

N = 3270
LENGTHS_N = np.random.default_rng(0).lognormal(4.7, 0.5, N).clip(4, 512).astype(int)
lengths = st.lists(st.integers(1, 512), min_size=1, max_size=200).map(np.array)


@given(lengths, st.integers(1, 250))
def test_a_sample_has_no_text_twice_and_all_texts_if_asked_for(lengths_N, num_rows):
    sample_S = spread_sample(lengths_N, num_rows)
    assert len(set(sample_S.tolist())) == min(num_rows, len(lengths_N))
    if num_rows >= len(lengths_N):
        assert sample_S.tolist() == list(range(len(lengths_N)))


def scale(times_N, num_timed):
    """What a sample says of times that grow with the lengths."""
    sample_S = spread_sample(LENGTHS_N, num_timed)
    tokens_S, total = LENGTHS_N[sample_S], int(LENGTHS_N.sum())
    return scale_by_tokens(times_N[sample_S], tokens_S, num_rows=N, num_tokens=total)


@pytest.mark.parametrize("num_timed", [60, 200])
def test_a_cost_that_grows_with_length_is_estimated_and_hardly_called_noise(num_timed):
    cost_N = 3e-4 * LENGTHS_N + 1e-7 * LENGTHS_N**2
    estimate = scale(cost_N, num_timed)
    assert estimate.seconds == pytest.approx(cost_N.sum(), rel=0.005)
    assert estimate.standard_error_s < 0.005 * cost_N.sum()


@pytest.mark.parametrize("num_timed", [60, 200])
def test_the_error_by_tokens_is_the_one_made(num_timed):
    noise = np.random.default_rng(1)
    missed, said = [], []
    for _ in range(400):
        times_N = 3e-4 * LENGTHS_N * noise.lognormal(0, 0.1, N) + noise.exponential(2e-3, N)
        estimate = scale(times_N, num_timed)
        missed.append(estimate.seconds - times_N.sum())
        said.append(estimate.standard_error_s)
    made = np.sqrt(np.mean(np.square(missed)))
    assert np.mean(said) == pytest.approx(made, rel=0.15)
    covered = np.mean(np.abs(missed) <= 1.96 * np.array(said))
    assert 0.9 <= covered <= 0.98


@pytest.mark.parametrize("num_timed", [2, 3, 5, 20, 60, 200])
def test_the_error_of_a_median_is_the_one_made(num_timed):
    noise = np.random.default_rng(2)
    missed, said = [], []
    for _ in range(400):
        times_N = noise.normal(0.5, 0.05, N)
        estimate = scale_equal(times_N[:num_timed], N)
        missed.append(estimate.seconds - times_N.sum())
        said.append(estimate.standard_error_s)
    made = np.sqrt(np.mean(np.square(missed)))
    assert np.mean(said) == pytest.approx(made, rel=0.3)
    if num_timed >= 5:  # of fewer, the error itself is too unsure for a normal's 1.96
        assert np.mean(np.abs(missed) <= 1.96 * np.array(said)) >= 0.88


def test_an_interruption_moves_no_median():
    times_S = np.array([1.0, 1.0, 1.0, 1.0, 900.0])
    assert scale_equal(times_S, N).seconds == N


def test_what_was_timed_as_a_whole_is_not_scaled():
    times_S, tokens_S = np.array([1.0, 1.0, 4.0]), np.array([1, 2, 3])
    for estimate in (
        scale_equal(times_S, 3),
        scale_by_tokens(times_S, tokens_S, num_rows=3, num_tokens=6),
    ):
        assert (estimate.seconds, estimate.standard_error_s) == (6.0, None)


def test_one_text_says_nothing_of_its_error():
    one_S = np.array([2.0])
    assert scale_equal(one_S, 3).standard_error_s is None
    by_tokens = scale_by_tokens(one_S, np.array([4]), num_rows=3, num_tokens=10)
    assert (by_tokens.seconds, by_tokens.standard_error_s) == (5.0, None)
