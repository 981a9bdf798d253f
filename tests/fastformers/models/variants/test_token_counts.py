import numpy as np
import pytest

from fastformers.models.variants.token_counts import count_kept_tokens, count_pooled_tokens


def test_a_share_is_of_the_tokens_that_enter_its_layer():
    kept = count_kept_tokens(np.array([10, 9, 1]), (0.6, 0.5))
    assert kept.tolist() == [[6, 6, 1], [3, 3, 1]]


def test_rounding_of_floats_adds_no_token():
    lengths = np.arange(1, 513)
    kept = count_kept_tokens(lengths, (0.6,))[0]
    assert kept.tolist() == [-(-6 * int(length) // 10) for length in lengths]  # in integers
    assert count_kept_tokens(lengths, (1.0,))[0].tolist() == lengths.tolist()
    assert count_kept_tokens(lengths, (1e-12,))[0].tolist() == [1] * 512


def test_a_model_that_drops_nothing_counts_nothing():
    assert count_kept_tokens(np.array([3, 4]), ()).shape == (0, 2)


@pytest.mark.parametrize(
    ("length", "every", "pooled"),
    [(1, 4, 1), (2, 4, 2), (5, 4, 2), (6, 4, 3), (9, 4, 3), (9, 2, 5)],
)
def test_the_first_token_is_pooled_with_no_other(length, every, pooled):
    assert count_pooled_tokens(np.array([length]), every).tolist() == [pooled]
