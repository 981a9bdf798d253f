"""The driver's loop over a pool whose jobs end as the test says."""

from dataclasses import replace

import pytest

from cluster.corpus.slices import Piece, Slice
from cluster.scheduling.driver import Driver
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt
from cluster.shards.receipts import Receipt
from cluster.shards.shard_queue import Lease
from fastformers.errors import InputError, ScoringError


def make_shard(number):
    return Shard(
        name=f"000000-{number:05d}",
        num_rows=1,
        num_unique=1,
        num_tokens=1,
        num_unique_tokens=1,
        predicted_s=1.0,
        spans=(("a.csv", 1),),
    )


def make_receipt(lease, **changes):
    fields = {
        "shard": lease.shard.name,
        "actor": "",
        "attempt": lease.attempt,
        "num_rows": 1,
        "num_unique": 1,
        "num_errors": 0,
        "num_tokens": 1,
        "num_scored_tokens": 1,
        "num_computed_tokens": 1,
        "num_batches": 1,
        "started_at": 0.0,
        "finished_at": 1.0,
        "predicted_s": 1.0,
        "rss_bytes": 1,
        "peak_rss_bytes": 1,
    }
    return Receipt(**{**fields, **changes})


def result_of(job):
    if isinstance(job, Lease):
        return make_receipt(job) if job.probe is None else None
    return SliceReceipt(
        shards=(make_shard(job.index),), rest=None, first_bad=None, phase_s={"read": 1.0}
    )


@pytest.fixture
def pool_of(scripted_pool):
    return lambda num_slots: scripted_pool(["host"] * num_slots, result_of)


def drive(pool, *, num_shards=0, num_slices=0, **options):
    pieces = (Piece(path="a.csv", start=0, stop=1),)
    driver = Driver(
        pool,
        slices=[Slice(index=n, pieces=pieces, first_shard=0) for n in range(num_slices)],
        shards=[make_shard(n) for n in range(num_shards)],
        **{"scores": True, "clock": pool.clock, "start": pool.clock.now, **options},
    )
    return driver.run()


def test_a_slot_has_a_second_job_in_hand_while_more_waits_than_there_are_slots(pool_of):
    pool = pool_of(2)
    result = drive(pool, num_shards=20)
    assert pool.most_in_hand == 2
    assert {receipt.shard for receipt in result.receipts} == {make_shard(n).name for n in range(20)}


def test_the_last_shards_are_not_hoarded(pool_of):
    pool = pool_of(3)
    first = pool.workers[pool.slots[0]]
    # The first worker never finishes before all others are idle: its second job would wait for it.
    pool.decide = lambda worker, job: (
        "done"
        if worker is not first or not any(w.jobs for w in pool.workers.values() if w is not first)
        else "works"
    )
    drive(pool, num_shards=5)
    assert pool.most_in_hand == 1


def test_slices_are_read_ahead_too(pool_of):
    pool = pool_of(1)
    result = drive(pool, num_slices=4)
    assert pool.most_in_hand == 2
    assert len(result.receipts) == len(result.slice_receipts) == 4


def test_what_only_prepares_scores_nothing(pool_of):
    result = drive(pool_of(2), num_slices=3, scores=False)
    assert result.receipts == []
    assert [shard.name for shard in result.shards] == [make_shard(n).name for n in range(3)]


def test_a_worker_that_dies_with_two_jobs_is_replaced_once_and_both_go_back(pool_of):
    pool = pool_of(1)
    victim = pool.workers[pool.slots[0]]
    pool.decide = lambda worker, job: (
        "done" if worker is not victim else "dies" if len(victim.jobs) == 2 else "works"
    )
    result = drive(pool, num_shards=5)
    assert pool.num_replaced == 1
    assert result.num_retries == 2
    assert len(result.receipts) == 5
    assert [a.is_lost for a in result.attempts].count(True) == 2


def test_a_shard_whose_worker_died_is_tried_again_alone(pool_of):
    """Otherwise the search for a deadly text would suspect shards that the worker merely held."""
    pool = pool_of(2)
    deadly = make_shard(3).name

    def decide(worker, job):
        if job.shard.name == deadly and job.attempt < 3:
            return "dies"
        return "done" if pool.num_replaced else "works"

    pool.decide = decide
    result = drive(pool, num_shards=9)
    assert len(result.receipts) == 9
    assert {len(hand) for hand in pool.hands} == {1, 2}
    retried = [hand for hand in pool.hands if any(job.attempt > 1 for job in hand)]
    assert len(retried) == 3
    assert {len(hand) for hand in retried} == {1}


def test_the_time_limit_of_a_job_in_hand_begins_when_the_one_before_it_ends(pool_of, clock):
    pool = pool_of(1)
    slow = make_shard(0).name
    pool.decide = lambda worker, job: (
        "works" if job.shard.name == slow and clock.now < 9.0 else "done"
    )
    result = drive(pool, num_shards=4, timeout_s=10.0)
    assert pool.killed == []
    assert result.num_retries == 0
    pool = pool_of(1)
    pool.decide = lambda worker, job: (
        "works" if job.shard.name == slow and job.attempt == 1 else "done"
    )
    result = drive(pool, num_shards=4, timeout_s=10.0)
    assert [lease.shard.name for lease in pool.killed] == [slow]
    assert pool.num_replaced == 1
    assert len(result.receipts) == 4


def test_by_default_a_shard_may_take_300_seconds(pool_of, clock, caplog):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "works" if job.attempt == 1 else "done"
    drive(pool, num_shards=1)
    assert 300.0 < clock.now < 305.0
    [line] = caplog.messages
    assert line == (
        "shard 000000-00000, attempt 1: it took longer than its time limit (--timeout-s); retrying"
    )


def test_a_slot_s_attempts_follow_one_another(pool_of):
    result = drive(pool_of(1), num_shards=8)
    spans = [(attempt.start_s, attempt.end_s) for attempt in result.attempts]
    assert spans == [(float(n), float(n + 1)) for n in range(8)]
    assert (result.setup_s, result.work_end_s) == (0.0, 8.0)


def test_attempts_count_from_the_start_of_the_run(pool_of, clock):
    pool = pool_of(1)
    clock.now = 107.0
    result = drive(pool, num_shards=1, start=100.0)
    [attempt] = result.attempts
    assert (result.setup_s, attempt.start_s, attempt.end_s, result.work_end_s) == (7, 7, 8, 8)


def test_a_machine_that_leaves_takes_its_slots_and_the_others_go_on(scripted_pool):
    pool = scripted_pool(["gone", "stays"], result_of)
    gone, stays = pool.slots
    pool.has_left = {gone}
    victim = pool.workers[gone]
    pool.decide = lambda worker, job: "dies" if worker is victim else "done"
    result = drive(pool, num_shards=6)
    assert len(result.receipts) == 6
    assert result.slots == (stays,)
    assert set(result.actor_cores) == {gone.name, stays.name}


def test_when_every_machine_has_left_the_run_says_so(pool_of):
    pool = pool_of(1)
    pool.has_left = set(pool.slots)
    pool.decide = lambda worker, job: "dies"
    with pytest.raises(InputError, match="every node has left the cluster; add nodes and run the"):
        drive(pool, num_shards=2)


def test_a_slice_that_kills_three_workers_is_named(pool_of):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "dies"
    with pytest.raises(ScoringError, match=r"slice 0 \(a\.csv\): its actor died .*three times in"):
        drive(pool, num_slices=1)
    assert pool.num_replaced == 3


@pytest.mark.parametrize(
    ("work", "place"),
    [
        ({"num_shards": 1}, "shard 000000-00000, attempt 1"),
        ({"num_slices": 1}, r"slice 0 \(a.csv\)"),
    ],
)
def test_an_error_that_was_not_meant_is_told_with_its_job(pool_of, work, place):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "fails"
    with pytest.raises(ScoringError, match=rf"^{place}: OSError\('no such device'\)$") as caught:
        drive(pool, **work)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_slot_that_holds_one_job_gets_one(pool_of):
    pool = pool_of(2)
    pool.slots = [replace(slot, max_jobs=1) for slot in pool.slots]
    pool.start()
    assert len(drive(pool, num_shards=9).receipts) == 9
    assert pool.most_in_hand == 1


def test_a_slot_that_stands_for_a_node_gets_as_many_as_it_holds(pool_of):
    pool = pool_of(2)
    pool.slots = [replace(slot, max_jobs=8) for slot in pool.slots]
    pool.start()
    assert len(drive(pool, num_shards=40).receipts) == 40
    assert pool.most_in_hand == 8
