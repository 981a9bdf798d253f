from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers import clock
from fastformers.benchmark import timing
from fastformers.benchmark.timing import (
    SHAPES,
    Candidate,
    Rates,
    engine_candidate,
    fixed_batch,
    measure_rates,
    plan_exact,
    plan_rounded,
    plan_sorted,
    predict_all,
)
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tokenizer import TokenizedRows


def make_rows(rows):
    return TokenizedRows(
        ids=np.array([token for row in rows for token in row], np.uint16),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]),
        second_lengths_N=np.zeros(len(rows), np.uint16),
    )


token_rows = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), max_size=30)


def check_batches(batches, rows):
    """Every row is there once, whole, and followed by nothing but padding."""
    assert sorted(row for batch in batches for row in batch.rows_B) == list(range(len(rows)))
    for batch in batches:
        for row, ids_T, mask_T in zip(batch.rows_B, batch.ids_BT, batch.mask_BT, strict=True):
            padding = [0] * (len(ids_T) - len(rows[row]))
            assert ids_T.tolist() == rows[row] + padding
            assert mask_T.tolist() == [1] * len(rows[row]) + padding
    assert sum(batch.num_tokens for batch in batches) == sum(map(len, rows))


@given(token_rows, st.integers(1, 100))
def test_exact_batches_hold_every_row_once_without_padding(rows, budget):
    batches = plan_exact(make_rows(rows), max_batch_tokens=budget)
    check_batches(batches, rows)
    for batch in batches:
        assert batch.num_tokens == batch.ids_BT.size
        assert batch.ids_BT.size <= budget or len(batch.ids_BT) == 1


@given(token_rows, st.integers(1, 8))
def test_sorted_batches_hold_every_row_once_padded_to_their_longest(rows, num_rows):
    batches = plan_sorted(make_rows(rows), num_rows=num_rows)
    check_batches(batches, rows)
    assert all(len(batch.ids_BT) == num_rows for batch in batches[:-1])
    lengths = [[len(rows[row]) for row in batch.rows_B] for batch in batches]
    assert [batch.ids_BT.shape[1] for batch in batches] == [max(of_one) for of_one in lengths]
    together = [length for of_one in lengths for length in of_one]
    assert together == sorted(together, reverse=True)


@given(token_rows, st.integers(1, 100), st.integers(1, 20))
def test_rounded_batches_hold_every_row_once_at_few_widths(rows, budget, multiple):
    batches = plan_rounded(make_rows(rows), max_batch_tokens=budget, multiple=multiple)
    check_batches(batches, rows)
    for batch in batches:
        width = batch.ids_BT.shape[1]
        assert width % multiple == 0
        assert all(0 <= width - len(rows[row]) < multiple for row in batch.rows_B)
        assert batch.ids_BT.size <= budget or len(batch.ids_BT) == 1


def test_rows_of_near_lengths_share_a_rounded_batch_but_no_exact_one():
    rows = make_rows([[1] * 3, [2] * 4, [3] * 5])
    assert [batch.ids_BT.shape for batch in plan_rounded(rows, max_batch_tokens=100)] == [(3, 16)]
    shapes = [batch.ids_BT.shape for batch in plan_exact(rows, max_batch_tokens=100)]
    assert shapes == [(1, 5), (1, 4), (1, 3)]


PLANS: dict[str, Callable] = {
    "exact": partial(plan_exact, max_batch_tokens=12),
    "sorted": partial(plan_sorted, num_rows=3),
    "rounded": partial(plan_rounded, max_batch_tokens=12, multiple=4),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_predictions_come_back_in_the_order_of_the_rows(plan):
    rows = [[row + 1] * length for row, length in enumerate([3, 1, 4, 1, 5, 9, 2, 6, 5])]
    candidate = Candidate(
        name="sums",
        run=lambda batch: np.stack(
            [batch.ids_BT.sum(axis=1), batch.mask_BT.sum(axis=1)], axis=1
        ).astype(np.float32),
        plan=plan,
    )
    expected = [[sum(row), len(row)] for row in rows]
    assert predict_all(candidate, make_rows(rows)).tolist() == expected


def test_a_fixed_batch_is_full_of_known_tokens_the_same_ones_each_time():
    batch = fixed_batch(8, 64, vocab_size=20)
    assert set(batch.ids_BT.ravel().tolist()) == set(range(20))
    assert batch.num_tokens == 8 * 64
    np.testing.assert_array_equal(batch.ids_BT, fixed_batch(8, 64, vocab_size=20).ids_BT)


@pytest.fixture
def fake_clock(monkeypatch):
    """A clock that only candidates advance."""
    fake = SimpleNamespace(now=0.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    return fake


@pytest.fixture
def slow_candidate(fake_clock):
    """A candidate whose n-th call takes the n-th of the given seconds, later calls the last."""
    calls = []

    def make(name, seconds, *, plan=None, fixed_shapes=True):
        left = list(seconds)

        def run(batch):
            calls.append(name)
            fake_clock.now += left.pop(0) if len(left) > 1 else left[0]
            return np.zeros((len(batch.ids_BT), 2), np.float32)

        return Candidate(
            name=name,
            run=run,
            plan=plan or partial(plan_sorted, num_rows=100),
            fixed_shapes=fixed_shapes,
        )

    make.calls = calls
    return make


def test_candidates_take_turns_and_their_medians_count(slow_candidate, monkeypatch):
    """The first turn warms up and does not count."""
    monkeypatch.setattr(timing, "SHAPES", ())
    candidates = [slow_candidate("a", [100, 1, 5, 2]), slow_candidate("b", [0.5, 4, 4, 1])]
    rows = make_rows([[7] * 6, [7] * 2])
    rates = measure_rates(candidates, rows=rows, vocab_size=9, repeats=3)
    assert slow_candidate.calls == ["a", "b"] * 4
    assert rates.by_case == {"rows": {"a": pytest.approx(8 / 2), "b": pytest.approx(8 / 4)}}


def test_only_real_tokens_count(slow_candidate, monkeypatch):
    """Two candidates take equally long per batch; one needs one padded batch, the other two."""
    monkeypatch.setattr(timing, "SHAPES", ())
    rows = make_rows([[7] * 10, [7] * 2])
    one = slow_candidate("one batch", [1.0])
    two = slow_candidate("two batches", [1.0], plan=partial(plan_exact, max_batch_tokens=100))
    rates = measure_rates([one, two], rows=rows, vocab_size=9, repeats=1).by_case["rows"]
    assert rates == {"one batch": pytest.approx(12), "two batches": pytest.approx(6)}


def test_a_fixed_shape_runs_for_its_time_and_all_of_it_counts(slow_candidate):
    candidate = slow_candidate("a", [0.2])
    rates = measure_rates([candidate], rows=None, vocab_size=9, repeats=1, shape_s=0.5)
    assert list(rates.by_case) == [f"{num_rows}x{length}" for num_rows, length in SHAPES]
    assert len(slow_candidate.calls) == len(SHAPES) * 2 * 3  # two turns of 3 runs: 0.6 s each
    assert rates.by_case["8x128"]["a"] == pytest.approx(8 * 128 / 0.2)


def test_a_candidate_may_skip_the_fixed_shapes(slow_candidate):
    candidates = [slow_candidate("a", [1.0]), slow_candidate("b", [1.0], fixed_shapes=False)]
    rates = measure_rates(candidates, rows=make_rows([[1]]), vocab_size=9, repeats=1)
    assert {case: set(of_case) for case, of_case in rates.by_case.items()} == {
        **{f"{num_rows}x{length}": {"a"} for num_rows, length in SHAPES},
        "rows": {"a", "b"},
    }


def test_rates_compare_by_name_and_by_prefix():
    rates = Rates(by_case={"rows": {"ours": 60.0, "other slow": 20.0, "other fast": 40.0}})
    assert rates.ratio("rows", "ours", "other fast") == 1.5
    assert rates.best("rows", "other") == "other fast"
    assert rates.best("rows", "another") is None


@pytest.mark.parametrize("kind", ["bundle", "pair_bundle"])
def test_our_candidate_gives_each_rows_own_logits(request, kind, make_texts):
    bundle = request.getfixturevalue(kind)
    rows = bundle.load_tokenizer().encode(make_texts(40))
    engine = OnnxEngine(bundle.model_path)
    candidate = engine_candidate("ours", engine, max_batch_tokens=64)
    alone_NC = np.concatenate(
        [
            engine.run(rows.batch_ids(np.array([row])), rows.batch_types(np.array([row])))
            for row in range(len(rows))
        ]
    )
    np.testing.assert_allclose(predict_all(candidate, rows), alone_NC, atol=1e-5)
    assert alone_NC.std(axis=0).min() > 0.01
