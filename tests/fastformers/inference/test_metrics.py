import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from fastformers.inference.metrics import MAX_COMPARED_TEXTS, rank_agreement, spearman


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
