"""What is kept of a card, measured with an engine whose clock is arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from fastformers.cluster.cost import card_profile
from fastformers.cluster.cost.machine_profile import load_profile, write_profile
from fastformers.cluster.cost.measured.machine import describe_machine
from fastformers.inference.batching import rows_per_batch
from fastformers.inference.engines import card_measures


class Card:
    """A card on which a batch takes 1 ms, and a token 1 us."""

    name, lowered_to, num_in_flight = "card 1.0", None, 1
    now = 0.0

    def run(self, ids_BT, types_BT):
        Card.now += 1e-3 + 1e-6 * ids_BT.size
        return np.zeros((len(ids_BT), 2), np.float32)


@pytest.fixture
def measured(monkeypatch, bundle):
    """The profile of a bundle on that card, whose host tokenizes a token in 2 us."""
    monkeypatch.setattr(card_measures.time, "perf_counter", lambda: Card.now)
    monkeypatch.setattr(card_profile, "measure_host_tokenizing", lambda *_, **__: 2e-6)
    return card_profile.measure_card_profile(
        bundle,
        Card(),
        gpu_name="L4-24GB",
        texts=["a cat"],
        core_sets=[frozenset({0})],
        machine=describe_machine(),
        instance_type="g6.xlarge",
    )


def test_a_card_is_measured_in_full_batches_by_length(measured, bundle):
    budget = measured.cost.max_batch_tokens
    assert budget == 65_536  # 1.5% slower than without end: the smallest within 2% of the fastest
    assert measured.cost.lengths == bundle.cost_profile.lengths
    for length, seconds in zip(measured.cost.lengths, measured.cost.seconds_per_row, strict=True):
        (rows,) = rows_per_batch(np.array([length]), budget)
        assert seconds == pytest.approx((1e-3 + 1e-6 * rows * length) / rows)
    assert (measured.gpu_name, measured.instance_type) == ("L4-24GB", "g6.xlarge")
    assert (measured.tokenize_s_per_token, measured.bundle_digest) == (2e-6, bundle.digest)


def test_reading_and_writing_take_a_tenth_of_tokenizing(measured):
    infer_s, tokens = sum(measured.cost.seconds_per_row), sum(measured.cost.lengths)
    assert measured.overhead_share * infer_s == pytest.approx(0.1 * 2e-6 * tokens)


def test_a_profile_of_a_card_comes_back_as_it_was_written(measured, tmp_path):
    write_profile(tmp_path / "l4.json", measured)
    assert load_profile(tmp_path / "l4.json") == measured
    write_profile(tmp_path / "core.json", replace(measured, gpu_name=None))
    assert load_profile(tmp_path / "core.json").gpu_name is None
