"""Actors on cores and on GPUs over one queue: who does what, and that neither waits for the other.

Engines sleep by a clock that jumps, below the real driver and the real supervisors.
"""

from collections import Counter

import pytest

from tests.cluster.scheduling.two_kinds import Machine, make_sized, run_two_kinds

NOTHING_LEFT = "nothing is left to tokenize"


def names_of(run):
    return Counter(receipt.shard for receipt in run.journal.receipts)


def seconds_of(run):
    """Core-seconds that were scored, of shards that were known."""
    return sum(shard.predicted_s for shard in run.journal.shards)


MIXED = {
    "a machine": [Machine(num_cores=16, num_gpus=1)],
    "two GPUs": [Machine(num_cores=64, num_gpus=2)],
    "slow GPUs": [Machine(num_cores=16, num_gpus=2, gpu_speed=8.0)],
    "several machines": [Machine(num_gpus=1, num_cores=4), *[Machine(num_cores=32)] * 3],
    "cores of two generations": [
        Machine(num_gpus=1, num_cores=8),
        Machine(num_cores=16, core_speed=0.5),
    ],
}


@pytest.mark.parametrize("machines", MIXED.values(), ids=MIXED)
def test_neither_kind_waits_for_the_other_more_than_a_fiftieth_of_the_run(machines):
    speed = sum(m.num_cores * m.core_speed + m.num_gpus * m.gpu_speed for m in machines)
    run = run_two_kinds(*machines, num_slices=round(3 * speed))  # about 300 s
    assert set(names_of(run).values()) == {1}
    assert len(names_of(run)) == len(run.journal.shards)
    assert seconds_of(run) == pytest.approx(100.0 * round(3 * speed))
    for device in ("cpu", "cuda"):
        assert run.jobs("score", device)
        assert run.idle_tail(device) < 0.02
        assert run.busy_share(device) > 0.95
    assert run.seconds < 1.06 * (seconds_of(run) + 3.0 * len(run.journal.slices)) / speed


def test_large_shards_go_to_the_gpus_and_small_ones_to_the_cores():
    run = run_two_kinds(Machine(num_cores=16, num_gpus=1), num_slices=200)
    size_of = {shard.name: shard.predicted_s for shard in run.journal.shards}
    scored = {
        device: Counter(size_of[attempt.name] for attempt in run.jobs("score", device))
        for device in ("cpu", "cuda")
    }
    assert scored["cpu"].keys() == {2.0}
    assert 25.0 * scored["cuda"][25.0] > 0.75 * sum(s * n for s, n in scored["cuda"].items())


def test_of_prepared_shards_gpus_take_those_of_long_texts():
    """All have one size, as `prepare` cut them."""
    shards = [make_sized(0, n, 2.0, mean_length=20 + n) for n in range(1500)]
    run = run_two_kinds(Machine(num_cores=8, num_gpus=1, gpu_speed=8.0), shards=shards)
    assert set(names_of(run).values()) == {1}
    length = {shard.name: shard.num_tokens for shard in shards}
    on_cores, on_gpus = (
        [length[attempt.name] for attempt in run.jobs("score", device) if not attempt.is_lost]
        for device in ("cpu", "cuda")
    )
    assert max(on_cores) - min(on_gpus) < 40  # they meet in the middle
    assert run.idle_tail("cpu") < 0.02
    assert run.idle_tail("cuda") < 0.02


def test_a_core_begins_no_shard_that_would_end_after_all_others():
    shards = [make_sized(0, number, 20.0) for number in range(400)]
    run = run_two_kinds(Machine(num_cores=4, num_gpus=1), shards=shards)
    assert set(names_of(run).values()) == {1}
    assert sum(attempt.is_lost for attempt in run.jobs("score", "cpu")) == 0
    assert run.idle_tail("cuda") < 0.02
    assert run.seconds < 1.1 * 8000 / 54


def test_cores_that_only_tokenize_feed_the_gpus_and_are_let_go():
    machines = [Machine(num_cores=7, num_gpus=2), Machine(num_cores=8)]
    run = run_two_kinds(*machines, scorers=("cuda",), num_slices=300)
    assert set(names_of(run).values()) == {1}
    assert run.jobs("score", "cpu") == run.jobs("prepare", "cuda") == []
    assert run.busy_share("cuda") > 0.95
    assert sorted(run.released) == [("host0:cpu", NOTHING_LEFT), ("host1:cpu", NOTHING_LEFT)]
    uses = {use.node: use for use in run.journal.nodes}
    assert uses["host1:cpu"].left_s < uses["host0:cuda"].left_s == run.seconds
    assert {use.machine for use in uses.values()} == {"host0", "host1"}


def test_gpus_without_any_core_beside_them_tokenize_for_themselves():
    run = run_two_kinds(Machine(num_gpus=2), scorers=("cuda",), num_slices=20)
    assert set(names_of(run).values()) == {1}
    assert len(run.jobs("prepare", "cuda")) == 20


def test_precisions_are_compared_in_shards_from_all_over_the_run():
    run = run_two_kinds(Machine(num_cores=16, num_gpus=1), num_slices=100, compares=True)
    compared = run.jobs("compare", "cpu")
    on_gpus = [a.name for a in run.jobs("score", "cuda") if not a.is_lost]
    places = sorted(on_gpus.index(attempt.name) + 1 for attempt in compared)
    assert places == [2**number for number in range(len(on_gpus).bit_length())]
    assert len(run.journal.agreements) == len(compared)
    assert run.jobs("compare", "cuda") == []


def test_one_precision_needs_no_comparison():
    run = run_two_kinds(Machine(num_cores=4, num_gpus=1), num_slices=10)
    assert run.journal.agreements == run.jobs("compare", "cpu") == []
