"""The real driver, by a clock that jumps: it forecasts its own end, also when nodes come and go."""

import random

import pytest

from fastformers.cluster.scaling.sleeping_nodes import JumpingClock, SleepingNodes
from fastformers.cluster.scheduling.driver import Driver
from fastformers.cluster.scheduling.node_books import NodeBooks
from fastformers.cluster.scheduling.nodes import Ended
from fastformers.cluster.scheduling.progress import Before, Counts
from fastformers.cluster.scheduling.work import Finished, Ticket
from tests.cluster.scheduling.jobs import (
    make_lease,
    make_node,
    make_receipt,
    make_shard,
    make_slice,
    make_slice_receipt,
)


class Deaf:
    """A journal that nobody reads."""

    def __getattr__(self, name):
        return lambda told: None


def test_a_run_knows_its_end_from_its_first_hundredth_on():
    rng, clock, seen = random.Random(4), JumpingClock(), []
    shards = [make_shard(n, predicted_s=20 * rng.uniform(0.8, 1.2)) for n in range(400)]
    nodes = SleepingNodes(8, 4, clock)
    driver = Driver(
        nodes,
        slices=(),
        shards=shards,
        scores=True,
        journal=Deaf(),
        clock=clock,
        start=0.0,
        on_progress=seen.append,
    )
    nodes.start()
    end = driver.run().work_end_s
    forecasts = [
        (progress.elapsed_s, progress.time_left)
        for progress in seen
        if progress.time_left is not None and progress.predicted_done_s >= 80.0
    ]
    assert len(forecasts) > 100
    for now, left in forecasts:
        assert now + left.seconds == pytest.approx(end, abs=24.0)  # a shard
    within = sum(now + left.low_s <= end <= now + left.high_s for now, left in forecasts)
    assert within >= 0.9 * len(forecasts)


def finished(counts, books, lease, *, slot, end_s, phase_s):
    """Let a job end in a slot."""
    receipt = make_receipt(lease, predicted_s=lease.shard.predicted_s, phase_s=phase_s)
    outcome = Finished(ticket=Ticket(0), result=receipt, seconds=end_s)
    counts.add_receipt(receipt)
    counts.add_finished(books, Ended(outcome=outcome, slot=slot, start_s=0.0, end_s=end_s))


@pytest.fixture
def counts():
    """Two nodes of two slots; each slot did a shard of 10 predicted seconds in 20, loading first.

    Then the slots of the first did another, from 30 s on until 50.
    """
    counts = Counts()
    counts.nodes = []
    for number in range(40):
        counts.add_known(make_shard(number, predicted_s=10.0))
    for number in range(2):
        node = make_node(number, 2, instance_type="c7i")
        books = NodeBooks(node, node.id, 0.0, 0.0, 2)
        counts.add_node(books)
        counts.nodes.append(books)
        for end_s in (30.0, 50.0)[: 2 - number]:
            for slot in node.slots:
                lease = make_lease(number, predicted_s=10.0)
                own = {"slot": slot.name, "end_s": end_s, "phase_s": {"infer": 20.0}}
                finished(counts, books, lease, **own)
    return counts


def forecast(counts, nodes):
    progress = counts.at(50.0, 0.0, nodes, num_slices_left=0, num_retries=0)
    return None if progress.time_left is None else progress.time_left.seconds


def test_loading_the_model_is_no_part_of_the_pace(counts):
    """34 shards of 20 s in 4 slots, half a shard of which is done."""
    assert forecast(counts, counts.nodes) == pytest.approx((34 * 20 - 10) / 4)


def test_the_slots_that_are_there_now_do_the_rest(counts):
    one, two = counts.nodes
    assert forecast(counts, [one]) == pytest.approx((34 * 20 - 10) / 2)
    assert forecast(counts, []) is None
    two.leaving = "its cloud takes it back"
    assert forecast(counts, counts.nodes) == forecast(counts, [one])
    more = NodeBooks(make_node(3, 4, instance_type="c7i"), "node3", 50.0, 50.0, 4)
    assert forecast(counts, [one, more]) == pytest.approx((34 * 20 - 10) / 6)


def test_time_lost_between_two_jobs_of_a_slot_counts(counts):
    [slot, _] = counts.nodes[1].node.slots
    lease = make_lease(9, predicted_s=10.0)
    before = forecast(counts, counts.nodes)
    finished(counts, counts.nodes[1], lease, slot=slot.name, end_s=130.0, phase_s={"infer": 20.0})
    assert forecast(counts, counts.nodes) > before  # 100 s for a shard that computed for 20


def test_earlier_sessions_say_what_slices_hold():
    counts = Counts(before=Before(predicted_s=100.0, num_cut=4, cut_s=240.0))
    progress = counts.at(1.0, 0.0, [], num_slices_left=3, num_retries=0)
    assert (progress.predicted_before_s, progress.predicted_left_s) == (100.0, 180.0)


def test_what_cutting_takes_is_forecast_too(counts):
    [slot, _] = counts.nodes[0].node.slots
    before = forecast(counts, counts.nodes)
    receipt = make_slice_receipt(make_slice(0), make_shard(90, predicted_s=0.0))
    counts.add_slice(receipt)
    outcome = Finished(ticket=Ticket(0), result=receipt, seconds=8.0)
    counts.add_finished(
        counts.nodes[0], Ended(outcome=outcome, slot=slot.name, start_s=50.0, end_s=58.0)
    )
    progress = counts.at(58.0, 0.0, counts.nodes, num_slices_left=10, num_retries=0)
    assert progress.time_left.seconds == pytest.approx(before + 10 * 8.0 / 4)
