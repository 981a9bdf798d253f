import numpy as np
import pytest

from cluster.shards.receipts import count_lengths


def test_texts_tokens_and_padding_by_length():
    """Texts of 8, 9 and 9000 tokens; the first two share a batch that is padded to 12."""
    batches = [np.array([0, 1]), np.array([2])]
    assert count_lengths(np.array([8, 9, 9000]), batches, [24, 9000]) == {
        "8": [1, 8, 12],
        "16": [1, 9, 12],
        "8192": [1, 9000, 9000],
    }


def test_a_batch_without_its_tokens_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        count_lengths(np.array([3, 3]), [np.array([0, 1])], [])
