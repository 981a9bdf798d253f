"""How the cores of a worker are chosen, on invented machines."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from cluster.execution.core_split import measure_split, plan_workers
from cluster.execution.pool import measure_at_once, running
from cluster.execution.worker import MeasureRate, TimeEngine
from cluster.settings import ActorSettings
from fastformers.errors import InputError, ScoringError

SCORES = SimpleNamespace(predictions="somewhere")


@dataclass
class Machines:
    """Plans scripted pools on machines with these numbers of cores, and records each."""

    scripted_pool: object
    cores_of_hosts: dict[str, int]
    rate_of_split: dict[int, float]

    def __post_init__(self):
        self.pools, self.asked = [], []

    def __call__(self, spec, *, num_actors, cores_per_actor, oversubscribe):
        hosts = [
            host
            for host, cores in self.cores_of_hosts.items()
            for _ in range(num_actors or cores // cores_per_actor)
        ]
        pool = self.scripted_pool(hosts, lambda job: self.rate_of_split[cores_per_actor])
        pool.num_starts = 0
        self.pools.append(pool)
        self.asked.append((num_actors, cores_per_actor, oversubscribe))
        return pool


def test_the_fastest_split_is_taken_with_all_workers_at_once(scripted_pool):
    machines = Machines(scripted_pool, {"host": 4}, {1: 10.0, 2: 25.0, 4: 30.0})
    lines = []
    assert measure_split(machines, SCORES, lines.append) == 2  # 4 x 10, 2 x 25, 1 x 30
    assert lines == [
        "4 x 1 cores: 40 tokens/s",
        "2 x 2 cores: 50 tokens/s",
        "1 x 4 cores: 30 tokens/s",
    ]
    for pool in machines.pools[1:]:
        assert (pool.num_starts, pool.num_stops) == (1, 1)
        assert pool.hands == [[MeasureRate(seconds=2.0)]] * (2 * len(pool.slots))


def test_no_split_is_tried_that_the_smallest_machine_cannot_have(scripted_pool):
    rates = {1: 1.0, 2: 3.0}
    machines = Machines(scripted_pool, {"large": 8, "small": 2}, rates)
    assert measure_split(machines, SCORES, lambda line: None) == 2


def test_what_was_asked_for_is_planned_without_measuring(scripted_pool):
    machines = Machines(scripted_pool, {"host": 4}, {})
    actors = ActorSettings(num_actors=3, cores_per_actor=2, oversubscribe=True)
    plan_workers(machines, SCORES, actors, lambda line: None)
    assert machines.asked == [(3, 2, True)]


def test_what_was_left_open_is_measured(scripted_pool):
    machines = Machines(scripted_pool, {"host": 2}, {1: 1.0, 2: 3.0})
    plan_workers(machines, SCORES, ActorSettings(num_actors=1, cores_per_actor=None), print)
    assert machines.asked[-1] == (1, 2, False)


def test_preparing_has_no_split_to_measure(scripted_pool):
    machines = Machines(scripted_pool, {"host": 2}, {})
    with pytest.raises(InputError, match="--cores-per-actor auto: preparing runs no model"):
        plan_workers(
            machines, SimpleNamespace(predictions=None), ActorSettings(cores_per_actor=None), print
        )


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
