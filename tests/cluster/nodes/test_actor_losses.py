"""What becomes of a slot and its tasks by the way in which its actor ended, without Ray running."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnschedulableError, OutOfMemoryError

from fastformers.cluster.execution.topology import CoreSet
from fastformers.cluster.nodes import ray_pool
from fastformers.cluster.nodes.ray_pool import ActorState, RayPool
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import Finished, Lost, MeasureRate, Task, Ticket
from fastformers.cluster.storage.outages import Outage

BY_MONITOR = "Ray's memory monitor ended it, because the node is short of memory"


class Actors:
    """Actors whose calls end when the test says."""

    def __init__(self):
        self.num_started, self.calls, self.killed = 0, [], []

    def options(self, **options):
        return self

    def remote(self, *arguments):
        self.num_started += 1
        return SimpleNamespace(
            run=SimpleNamespace(options=lambda name: SimpleNamespace(remote=self.run))
        )

    def run(self, tasks):
        self.calls.append(Future())
        return SimpleNamespace(future=lambda: self.calls[-1])


@pytest.fixture
def actors(monkeypatch):
    found = Actors()
    monkeypatch.setattr(ray_pool.ray, "kill", found.killed.append)
    return found


@pytest.fixture
def pool_of(actors):
    def make(num_slots):
        slots = [Slot(name=f"host:{number}") for number in range(num_slots)]
        core_sets = {slot: CoreSet(cpus=(0,), num_threads=1) for slot in slots}
        pool = RayPool(None, core_sets, node="ab" * 28, actor=actors)
        pool.start()
        return pool

    return make


def lose(pool, actors, error, *, num_calls=1):
    """Lost tasks of the first slot, whose calls end with an error."""
    slot = pool.slots[0]
    for number in range(num_calls):
        task = Task(ticket=Ticket(len(actors.calls) + number), job=MeasureRate(seconds=1.0))
        pool.submit(slot, [task])
    for call in actors.calls[-num_calls:]:
        call.set_exception(error)
    lost = pool.wait(0.0)
    assert len(lost) == num_calls
    assert all(isinstance(outcome, Lost) for outcome in lost)
    return lost


def test_a_node_short_of_memory_goes_on_with_fewer_actors_and_blames_no_shard(pool_of, actors):
    pool = pool_of(2)
    for outcome in lose(pool, actors, OutOfMemoryError("killed"), num_calls=2):
        assert (outcome.reason, outcome.is_charged) == (BY_MONITOR, False)
    assert [slot.name for slot in pool.slots] == ["host:1"]
    assert (pool.trouble, actors.num_started) == (BY_MONITOR, 2)


def test_the_last_actor_is_started_again_and_its_shard_is_suspected(pool_of, actors):
    pool = pool_of(1)
    [outcome] = lose(pool, actors, OutOfMemoryError("killed"))
    assert outcome.is_charged
    assert (len(pool.slots), actors.num_started, pool.trouble) == (1, 2, None)


def test_an_actor_that_died_is_replaced_once_for_both_of_its_calls(pool_of, actors):
    pool = pool_of(1)
    lost = lose(pool, actors, ActorDiedError(), num_calls=2)
    assert {outcome.reason for outcome in lost} == {"its actor died (ActorDiedError)"}
    assert all(outcome.is_charged for outcome in lost)
    assert (actors.num_started, len(actors.killed)) == (2, 1)


def test_of_several_outages_the_longest_is_said_and_only_while_its_actor_works(pool_of, actors):
    pool = pool_of(3)
    for number, (slot, since_s) in enumerate(zip(pool.slots, [20.0, 40.0, 60.0], strict=True)):
        if number < 2:
            pool.submit(slot, [Task(ticket=Ticket(number), job=MeasureRate(seconds=1.0))])
        outage = Outage(path=f"s3://b/{number}", since_s=since_s, error="SlowDown")
        pool._seats[slot].state = ActorState(phase="read", outage=outage)
    assert pool.outages() == ["storage does not answer since 40 s: s3://b/1 (SlowDown)"]
    assert list(pool.states().values()) == ["store", "store", "wait"]
    actors.calls[1].set_result([Finished(ticket=Ticket(1), result=1.0, seconds=1.0)])
    assert len(pool.wait(0.0)) == 1
    assert pool.outages() == ["storage does not answer since 20 s: s3://b/0 (SlowDown)"]


def died(message, **how):
    """Ray's own error of an actor that died in this way."""
    return ActorDiedError(ActorDiedErrorContext(actor_id=bytes(16), error_message=message, **how))


@pytest.mark.parametrize(
    "error",
    [
        ActorUnschedulableError("draining"),
        died("The actor died because its node has died. Node Id: ab"),
    ],
)
def test_where_ray_takes_the_node_away_no_actor_is_started(pool_of, actors, error):
    pool = pool_of(1)
    [outcome] = lose(pool, actors, error)
    assert not outcome.is_charged
    assert (pool.slots, actors.num_started) == ([], 1)
    assert pool.trouble == "Ray starts no more actors there, because it is taking the node away"


def test_an_actor_that_never_ran_is_started_once_more_and_blames_no_shard(pool_of, actors):
    pool = pool_of(1)
    for num_started, num_slots in [(2, 1), (2, 0)]:
        [outcome] = lose(pool, actors, died("The node is draining.", never_started=True))
        assert not outcome.is_charged
        assert (actors.num_started, len(pool.slots)) == (num_started, num_slots)
