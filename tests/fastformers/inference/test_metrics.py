from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from fastformers.inference.metrics import (
    MAX_COMPARED_TEXTS,
    difference_interval,
    is_share_below,
    mean_interval,
    rank_agreement,
    share_interval,
    spearman,
    spearman_interval,
    student_quantile,
)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 1000], 1),
        ([1, 2, 3], [3, 2, 1], -1),
        # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: the textbook example of ties.
        ([1, 2, 2, 3], [1, 3, 2, 4], 4.5 / np.sqrt(4.5 * 5)),
        ([1, 1, 1], [1, 2, 3], 0),
        ([5, 5], [7, 7], 1),
    ],
)
def test_spearman_is_of_ranks_that_ties_share(first, second, expected):
    assert spearman(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-12)


values = st_np.arrays(np.float32, 12, elements=st.integers(0, 5).map(float))


@given(values, values)
def test_spearman_is_symmetric_and_independent_of_scale(first, second):
    assert spearman(first, second) == pytest.approx(spearman(second, 3 * first - 7), abs=1e-9)
    assert -1 - 1e-9 <= spearman(first, second) <= 1 + 1e-9
    assert spearman(first, first) == 1


def test_many_embeddings_are_compared_on_some():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((MAX_COMPARED_TEXTS * 3, 2)).astype(np.float32)
    assert rank_agreement(vectors, vectors) == 1


def covered(interval_of, truth, samples):
    """Share of samples whose interval holds the truth."""
    intervals = [interval_of(sample) for sample in samples]
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize(("truth", "num_rows"), [(0.5, 40), (0.97, 200), (0.97, 1000)])
def test_the_interval_of_a_share_holds_it_in_95_of_100_samples(truth, num_rows):
    equal = np.random.default_rng(0).binomial(num_rows, truth, 2000)
    found = covered(lambda count: share_interval(count, num_rows), truth, equal)
    assert 0.93 < found < 0.98


def test_the_interval_of_a_difference_holds_it_in_95_of_100_samples():
    draws = np.random.default_rng(0).multinomial(400, [0.03, 0.05, 0.92], 2000)
    found = covered(lambda kinds: difference_interval(kinds[0], kinds[1], 400), -0.02, draws)
    assert 0.93 < found < 0.98
    low, high = difference_interval(0, 0, 100)
    assert low < 0 < high  # no point, where no difference was seen


def test_the_interval_of_a_mean_holds_it_in_95_of_100_samples():
    draws = np.random.default_rng(0).exponential(2.0, (2000, 200))
    found = covered(lambda row: mean_interval(row.mean(), (row**2).mean(), 200), 2.0, draws)
    assert 0.92 < found < 0.97


def test_the_interval_of_a_rank_correlation_is_wider_of_fewer_rows():
    few, many = spearman_interval(0.9, 30), spearman_interval(0.9, 3000)
    assert few[0] < many[0] < 0.9 < many[1] < few[1] < 1


@pytest.mark.parametrize(
    ("below", "freedom", "quantile", "error"),
    [
        (0.95, 3, 2.3534, 3e-3),
        (0.95, 4, 2.1318, 1e-3),
        (0.95, 10, 1.8125, 1e-3),
        (0.95, 100, 1.6602, 1e-4),
        (0.975, 3, 3.1824, 1e-2),
        (0.975, 5, 2.5706, 2e-3),
        (0.975, 7, 2.3646, 1e-3),
    ],
)
def test_quantiles_of_student_s_t_are_those_of_the_tables(below, freedom, quantile, error):
    z = NormalDist().inv_cdf(below)
    assert student_quantile(z, freedom) == pytest.approx(quantile, rel=error)


def test_a_share_that_is_looked_at_after_every_row_is_seldom_called_too_low():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        equal = np.cumsum(rng.random(400) < 0.9)
        wrong += any(
            is_share_below(0.9, int(count), row, chance=0.05)
            for row, count in enumerate(equal, start=1)
        )
    assert wrong <= 0.05 * 300
    assert is_share_below(0.9, 60, 100, chance=0.001)
    assert not is_share_below(0.9, 95, 100, chance=0.5)
    assert is_share_below(1.0, 99, 100, chance=0.001)
    assert not is_share_below(1.0, 100, 100, chance=0.001)
