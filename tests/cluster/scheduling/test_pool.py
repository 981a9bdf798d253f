"""What any pool is used through, with a pool whose jobs end as the test says."""

import pytest

from cluster.scheduling.pool import Failed, Ticket, measure_at_once, raise_failure, running
from cluster.scheduling.work import MeasureRate, TimeEngine
from fastformers.errors import InputError, ScoringError


def test_measurements_come_in_the_order_of_the_slots(scripted_pool):
    pool = scripted_pool(["a", "b", "c"], lambda job: float(len(job.shards)))
    first = pool.workers[pool.slots[0]]
    pool.decide = lambda worker, job: (
        "works" if worker is first and len(pool.workers[pool.slots[2]].jobs) else "done"
    )
    jobs = [TimeEngine(shards=("shard",) * number) for number in (3, 1, 2)]
    assert measure_at_once(pool, jobs) == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("fate", "words"),
    [("dies", r"^b:1: its actor died"), ("fails", r"^b:1: OSError\('no such device'\)")],
)
def test_a_worker_that_cannot_measure_is_named_and_all_are_stopped(scripted_pool, fate, words):
    pool = scripted_pool(["a", "b"], lambda job: 1.0)
    victim = pool.workers[pool.slots[1]]
    pool.decide = lambda worker, job: fate if worker is victim else "done"
    pool.start = lambda: None
    with pytest.raises(ScoringError, match=words), running(pool):
        measure_at_once(pool, [MeasureRate(seconds=1.0)] * 2)
    assert pool.num_stops == 1


def test_a_pool_that_only_half_starts_is_stopped(scripted_pool):
    pool = scripted_pool(["a"])

    def fail():
        raise InputError("no memory")

    pool.start = fail
    with pytest.raises(InputError, match="no memory"), running(pool):
        pass
    assert pool.num_stops == 1


def test_what_a_job_raised_on_purpose_is_raised_as_it_is():
    error = InputError("a.jsonl: row 1: repair it")
    with pytest.raises(InputError) as caught:
        raise_failure(Failed(ticket=Ticket(0), error=error), "shard 7, attempt 1")
    assert caught.value is error


def test_any_other_error_of_a_job_gets_its_place_and_keeps_its_cause():
    error = KeyError("token_type_ids")
    with pytest.raises(ScoringError, match=r"^shard 7, attempt 1: KeyError\(") as caught:
        raise_failure(Failed(ticket=Ticket(0), error=error), "shard 7, attempt 1")
    assert caught.value.__cause__ is error
