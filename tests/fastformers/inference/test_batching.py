import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.inference.batching import (
    MAX_BATCH_ROWS,
    in_row_order,
    plan_batches,
    rows_per_batch,
)

row_lengths = st.lists(st.integers(1, 512), max_size=300).map(lambda xs: np.array(xs, np.int64))
# A few lengths that repeat often: full batches, and more rows of one length than a batch holds.
repeated_lengths = st.builds(
    lambda groups, seed: np.random.default_rng(seed).permutation(np.repeat(*groups)),
    st.tuples(
        st.lists(st.integers(1, 64), min_size=3, max_size=3),
        st.lists(st.integers(0, 700), min_size=3, max_size=3),
    ),
    st.integers(0, 9),
)
any_lengths = row_lengths | repeated_lengths
budgets = st.integers(1, 4096)


@given(any_lengths, budgets)
def test_every_row_is_planned_exactly_once(lengths_N, budget):
    batches = plan_batches(lengths_N, max_batch_tokens=budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths_N)))
    assert all(len(batch) for batch in batches)


@given(any_lengths, budgets)
def test_a_batch_holds_rows_of_one_length(lengths_N, budget):
    for batch in plan_batches(lengths_N, max_batch_tokens=budget):
        assert len(set(lengths_N[batch].tolist())) == 1


@given(any_lengths, budgets)
def test_a_batch_fits_the_budget_unless_it_is_one_row(lengths_N, budget):
    for batch in plan_batches(lengths_N, max_batch_tokens=budget):
        assert len(batch) == 1 or lengths_N[batch].sum() <= budget
        assert len(batch) <= max(MAX_BATCH_ROWS, budget // 16)


@given(any_lengths, budgets)
def test_no_length_takes_more_batches_than_it_needs_and_they_differ_by_one_row(lengths_N, budget):
    sizes: dict[int, list[int]] = {}
    for batch in plan_batches(lengths_N, max_batch_tokens=budget):
        sizes.setdefault(int(lengths_N[batch[0]]), []).append(len(batch))
    for length, of_length in sizes.items():
        limit = int(rows_per_batch(np.array(length), budget))
        assert len(of_length) == -(-sum(of_length) // limit)
        assert max(of_length) - min(of_length) <= 1


@given(any_lengths, budgets)
def test_longest_rows_come_first_and_rows_of_one_length_keep_their_order(lengths_N, budget):
    batches = plan_batches(lengths_N, max_batch_tokens=budget)
    order = [row for batch in batches for row in batch]
    assert order == sorted(range(len(lengths_N)), key=lambda row: -lengths_N[row])


@given(any_lengths, budgets)
def test_the_plan_depends_on_nothing_but_the_lengths(lengths_N, budget):
    before_N = lengths_N.copy()
    first = plan_batches(lengths_N, max_batch_tokens=budget)
    np.testing.assert_array_equal(lengths_N, before_N)
    again = plan_batches(lengths_N.astype(np.uint16), max_batch_tokens=budget)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]


def test_rows_are_spread_evenly_instead_of_leaving_one_for_the_last_batch():
    batches = plan_batches(np.array([3, 9, 3, 3, 3, 3]), max_batch_tokens=12)
    assert [batch.tolist() for batch in batches] == [[1], [0, 2, 3], [4, 5]]


def test_a_row_longer_than_the_budget_runs_alone():
    batches = plan_batches(np.array([5, 99, 99, 5]), max_batch_tokens=10)
    assert [batch.tolist() for batch in batches] == [[1], [2], [0, 3]]


def test_a_batch_has_256_rows_at_most_or_as_many_as_have_16_tokens_under_a_large_budget():
    lengths = np.array([1, 4, 64, 2000])
    assert rows_per_batch(lengths, 1024).tolist() == [256, 256, 16, 1]
    assert rows_per_batch(lengths, 65_536).tolist() == [4096, 4096, 1024, 32]


def test_outputs_come_back_in_the_order_of_the_rows():
    outputs = [np.array([[2.0], [0.0]], np.float32), np.array([[1.0]], np.float32)]
    assert in_row_order(outputs, [np.array([2, 0]), np.array([1])]).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_below_one_token_is_refused(budget):
    with pytest.raises(ValueError, match=f"max_batch_tokens is {budget}"):
        plan_batches(np.array([1]), max_batch_tokens=budget)


def test_a_row_without_tokens_is_refused_by_its_index():
    with pytest.raises(ValueError, match="row 2 has no tokens"):
        plan_batches(np.array([4, 1, 0]), max_batch_tokens=8)
