from dataclasses import replace

import numpy as np
import pytest

from fastformers.inference import autotune
from fastformers.inference.autotune import EngineChoice, tune
from fastformers.inference.engines import CUDA_ENGINE, card_measures
from fastformers.inference.engines.card_measures import (
    CARD_BUDGETS,
    choose_budget,
    measure_batch_difference,
    measure_card_budgets,
)


class Card:
    """A card that takes 1 ms for a batch that it is not full with, and more for what is beyond."""

    name = "onnxruntime-cuda 1.31.1 on NVIDIA Fake"
    num_in_flight = 1
    input_names = ("input_ids",)
    num_outputs = 2

    def __init__(self, *, full_at=10_000, memory=10**9, drift=0.0):
        self.lowered_to = None
        self.seconds = 0.0
        self._full_at, self._memory, self._drift = full_at, memory, drift
        self.sizes = []

    def run(self, ids_BT, types_BT):
        assert ids_BT.shape == types_BT.shape
        self.sizes.append(ids_BT.size)
        if ids_BT.size > self._memory:
            self.lowered_to = ids_BT.size // 2
        self.seconds += 1e-3 * max(1, ids_BT.size / self._full_at)
        sums_B = ids_BT.sum(axis=1) + self._drift * (len(ids_BT) > 3)
        return np.stack([sums_B, -sums_B], axis=1).astype(np.float32)


@pytest.fixture
def open_card(monkeypatch):
    """Makes cards whose clock is the one that is read."""

    def make(**fields):
        card = Card(**fields)
        monkeypatch.setattr(card_measures.time, "perf_counter", lambda: card.seconds)
        return card

    return make


def test_budgets_double_until_memory_ends(open_card):
    assert list(measure_card_budgets(open_card(), max_length=512)) == list(CARD_BUDGETS)
    assert list(measure_card_budgets(open_card(memory=20_000), max_length=512)) == [
        4096,
        8192,
        16384,
    ]
    small = open_card(memory=1000)  # not even the first fits: the engine halves it
    assert list(measure_card_budgets(small, max_length=512)) == [4096]


def test_seconds_are_those_of_a_token(open_card):
    seconds = measure_card_budgets(open_card(full_at=4096), max_length=64)
    rows = {37: 4096 // 37, 64: 64}
    expected = np.mean([1e-3 / (rows[length] * length) for length in rows])
    assert seconds[4096] == pytest.approx(expected)


def test_the_smallest_budget_that_is_fast_enough_is_chosen():
    assert choose_budget({4096: 2.0, 8192: 1.01, 16384: 1.0, 32768: 1.5}) == 8192
    assert choose_budget({4096: 2.0, 8192: 1.03, 16384: 1.0}) == 16384


def test_the_largest_difference_of_a_row_between_batches_is_found(open_card):
    options = {"max_length": 64, "vocabulary": 90, "max_batch_tokens": 1024}
    assert measure_batch_difference(open_card(), **options) == 0
    card = open_card(drift=0.5)
    assert measure_batch_difference(card, **options) == 0.5
    assert card.sizes == [27 * 37, 37, 3 * 37, 16 * 37, 16 * 64, 64, 3 * 64, 16 * 64]


def test_a_run_on_cards_has_the_budget_that_its_card_measured(
    open_card, bundle, tmp_path, monkeypatch
):
    card = open_card(full_at=30_000)
    monkeypatch.setattr(autotune, "open_right_engines", lambda *_, **__: {CUDA_ENGINE: card})
    bundle = replace(bundle, max_length=512)
    first = tune(bundle, engine=CUDA_ENGINE, cache=tmp_path)
    assert first == EngineChoice(engine=CUDA_ENGINE, max_batch_tokens=32768)
    num_batches = len(card.sizes)
    assert tune(bundle, engine=CUDA_ENGINE, cache=tmp_path) == first
    assert len(card.sizes) == num_batches  # it is kept
    given = tune(bundle, engine=CUDA_ENGINE, max_batch_tokens=100, cache=tmp_path)
    assert given.max_batch_tokens == 100
