"""The candidates of a card, on the CPU: what each computes and which work they share."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastformers.benchmark import card
from fastformers.benchmark.encoder_shapes import EncoderShape
from fastformers.benchmark.random_models import make_random_model, random_rows
from fastformers.inference.engine import OnnxEngine

SHAPE = EncoderShape(
    num_layers=2, width=52, num_heads=2, head_width=26, ffn_width=64, activation="relu",
    vocab_size=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return make_random_model(SHAPE, max_length=32)


@pytest.fixture(scope="module")
def rows():
    return random_rows(np.array([5, 9, 5, 31, 1, 9, 9]), vocab_size=100)


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("card") / "bundle"
    return card.make_card_bundle(model, tokenizer_json="{}", path=path)


def exact_logits(model, rows):
    chosen = range(len(rows.lengths_N))
    with torch.inference_mode():
        ids = (torch.from_numpy(rows.batch_ids(np.array([row]))) for row in chosen)
        return torch.cat([model(input_ids=row).logits for row in ids]).numpy()


def test_our_candidate_runs_the_float16_graph_on_every_row_once(model, rows, bundle):
    class Kept:
        """The engine, with what it was given and gave."""

        num_in_flight = 2

        def __init__(self):
            self.engine, self.rows = OnnxEngine(bundle.model_path), []

        def run(self, ids_BT, types_BT):
            logits_BC = self.engine.run(ids_BT, types_BT)
            self.rows += zip(ids_BT.tolist(), logits_BC.tolist(), strict=True)
            return logits_BC

    engine = Kept()
    candidate = card.our_candidate("ours", engine, rows, max_batch_tokens=20)
    candidate.run()
    assert bundle.precision == "float16"
    assert candidate.num_rows == len(engine.rows) == 7
    exact = {
        tuple(rows.batch_ids(np.array([row]))[0].tolist()): logits
        for row, logits in enumerate(exact_logits(model, rows))
    }
    for ids, logits in engine.rows:
        assert logits == pytest.approx(exact[tuple(ids)].tolist(), abs=2e-3)


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_pytorch_gets_every_row_with_its_mask(model, rows, name, monkeypatch):
    seen = []
    logits_of = card._logits

    def kept(on_card, batch):
        logits = logits_of(on_card, batch)
        seen.extend(zip(batch.rows_B.tolist(), logits.float().tolist(), strict=True))
        return logits

    monkeypatch.setattr(card, "_logits", kept)
    if name == "float32":
        candidate = card.pytorch_float32(model, rows, device="cpu")
    else:
        candidate = card.pytorch_float16(model, rows, max_batch_tokens=40, device="cpu")
    candidate.run()
    assert candidate.num_rows == 7
    order = [row for row, _ in seen]
    assert sorted(order) == list(range(7))
    assert (order == list(range(7))) is (name == "float32")
    tolerance = 1e-5 if name == "float32" else 5e-3
    exact_NC = exact_logits(model, rows)
    for row, logits in seen:
        assert logits == pytest.approx(exact_NC[row].tolist(), abs=tolerance)


def test_sorted_batches_fit_the_budget_padded_and_long_rows_run_alone(rows):
    batches = card._plan_sorted(rows, 20)
    assert [rows.lengths_N[rows_B].tolist() for rows_B in batches] == [[31], [9, 9], [9, 5], [5, 1]]


def test_rates_are_of_each_candidate_s_own_rows(monkeypatch):
    monkeypatch.setattr(card, "time_call", lambda run: run())
    fast = card.CardCandidate(name="fast", num_rows=100, run=lambda: 2.0)
    slow = card.CardCandidate(name="slow", num_rows=10, run=lambda: 5.0)
    assert card.measure_rates_on_card([fast, slow], repeats=3) == {"fast": 50.0, "slow": 2.0}


def test_operations_are_those_of_the_products_and_of_no_padding():
    """By hand: one layer of width 2, a head of 2, FFN 3; rows of 1 and 3 tokens."""
    shape = replace(SHAPE, num_layers=1, width=2, num_heads=1, head_width=2, ffn_width=3)
    products = 4 * (2 * 2) * 4 + 4 * (2 * 2 * 3)  # four projections and two, for 4 tokens
    scores_and_contexts = 2 * 2 * (1 * 1 + 3 * 3)
    assert card.count_operations(shape, np.array([1, 3])) == 2 * (products + scores_and_contexts)
    half = replace(shape, keep_shares=(0.5,))  # 1 and 2 tokens reach the output and the FFN
    products = 3 * (2 * 2) * 4 + (2 * 2 + 2 * (2 * 3)) * 3
    assert card.count_operations(half, np.array([1, 3])) == 2 * (products + scores_and_contexts)


def test_tiled_rows_are_the_same_rows_again(rows):
    twice = card.tile_rows(rows, 2)
    assert twice.lengths_N.tolist() == [*rows.lengths_N, *rows.lengths_N]
    for row in range(7):
        first, again = (twice.batch_ids(np.array([place])) for place in (row, row + 7))
        assert first.tolist() == again.tolist() == rows.batch_ids(np.array([row])).tolist()
