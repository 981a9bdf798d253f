import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.shards.receipts import add_lengths, count_lengths
from fastformers.inference.batching import plan_batches


def test_texts_tokens_and_padding_by_length():
    """Texts of 8, 9 and 9000 tokens; the first two share a batch that is padded to 12."""
    batches = [np.array([0, 1]), np.array([2])]
    assert count_lengths(np.array([8, 9, 9000]), batches, [24, 9000]) == {
        "8": [1, 8, 12],
        "16": [1, 9, 12],
        "8192": [1, 9000, 9000],
    }


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 4))
def test_counts_of_parts_add_up(lengths, num_parts):
    def count(part):
        batches = plan_batches(part, max_batch_tokens=512)
        return count_lengths(part, batches, [int(part[batch].sum()) for batch in batches])

    lengths_U = np.array(lengths, np.int64)
    total = add_lengths([count(part) for part in np.array_split(lengths_U, num_parts)])
    assert total == count(lengths_U)
    assert sum(texts for texts, _, _ in total.values()) == len(lengths)
    assert all(tokens == computed for _, tokens, computed in total.values())
    assert list(total) == sorted(total, key=int)


def test_a_batch_without_its_tokens_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        count_lengths(np.array([3, 3]), [np.array([0, 1])], [])
