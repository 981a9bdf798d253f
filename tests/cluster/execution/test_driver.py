"""The driver's loop with actors that do nothing until the test says so; no Ray."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

import cluster.execution.driver
from cluster.corpus.slices import Piece, Slice
from cluster.execution.driver import Driver
from cluster.execution.ray_pool import Slot
from cluster.execution.topology import CoreSet
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt
from cluster.shards.receipts import Receipt
from cluster.shards.shard_queue import Lease


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


def make_receipt(lease):
    return Receipt(
        shard=lease.shard.name,
        actor="",
        attempt=lease.attempt,
        num_rows=1,
        num_unique=1,
        num_errors=0,
        num_tokens=1,
        num_scored_tokens=1,
        num_computed_tokens=1,
        num_batches=1,
        started_at=0.0,
        finished_at=1.0,
        predicted_s=1.0,
        rss_bytes=1,
        peak_rss_bytes=1,
    )


class Actor:
    """Takes jobs in hand; the stage decides what becomes of them."""

    def __init__(self, stage):
        self.jobs, self.stage = [], stage
        self.score = self.prepare = SimpleNamespace(remote=self._take)

    def _take(self, job):
        reference = object()
        self.jobs.append(job)
        self.stage.in_hand[reference] = (self, job)
        self.stage.hands.append(list(self.jobs))
        return reference


class Stage:
    """Stands for Ray and for the pool: one event at a time, as `play` yields them."""

    def __init__(self, num_actors, clock):
        self.in_hand, self.hands, self.killed, self.log = {}, [], [], []
        self.num_replaced, self.clock = 0, clock
        core_set = CoreSet(cpus=(0,), num_threads=1, numa_node=0)
        self.slots = [Slot(f"host:{n}", "node", core_set, Actor(self)) for n in range(num_actors)]
        self.self_check, self.num_idle_cores = [], 0
        self.decide = lambda actor, job: "done"

    @property
    def most_in_hand(self):
        return max(map(len, self.hands))

    def replace(self, slot, *, as_it_started):
        self.num_replaced += 1
        slot.actor = Actor(self)

    def kill(self, actor):
        self.killed.append(actor)

    def wait(self, references, num_returns, timeout):
        for reference in references:
            actor, job = self.in_hand[reference]
            if actor in self.killed or self.decide(actor, job) in ("done", "die"):
                self.clock.now += 1.0
                return [reference], []
        self.clock.now += timeout
        return [], references

    def get(self, reference):
        actor, job = self.in_hand.pop(reference)
        if actor in self.killed or self.decide(actor, job) == "die":
            self.killed.append(actor)
            raise RayActorError
        actor.jobs.remove(job)
        self.log.append(job)
        if isinstance(job, Lease):
            return make_receipt(job)
        return SliceReceipt(
            shards=(make_shard(job.index),), rest=None, first_bad=None, phase_s={"read": 1.0}
        )


@pytest.fixture
def stage_of(monkeypatch):
    def make(num_actors):
        clock = SimpleNamespace(now=0.0)
        stage = Stage(num_actors, clock)
        monkeypatch.setattr(cluster.execution.driver, "ray", stage)
        timer = SimpleNamespace(perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
        monkeypatch.setattr(cluster.execution.driver, "time", timer)
        return stage

    return make


def drive(stage, *, num_shards=0, num_slices=0, **options):
    pieces = (Piece(path="a.csv", start=0, stop=1),)
    driver = Driver(
        stage,
        slices=[Slice(index=n, pieces=pieces, first_shard=0) for n in range(num_slices)],
        shards=[make_shard(n) for n in range(num_shards)],
        scores=True,
        **options,
    )
    driver.run()
    return driver


def test_an_actor_has_a_second_job_in_hand_while_more_waits_than_there_are_actors(stage_of):
    stage = stage_of(2)
    driver = drive(stage, num_shards=20)
    assert stage.most_in_hand == 2
    assert {receipt.shard for receipt in driver.receipts} == {make_shard(n).name for n in range(20)}


def test_the_last_shards_are_not_hoarded(stage_of):
    stage = stage_of(3)
    first = stage.slots[0].actor
    # The first actor never finishes before all others are idle: what it hoards would wait for it.
    stage.decide = lambda actor, job: (
        "done" if actor is not first or len(stage.in_hand) == len(first.jobs) else "works"
    )
    drive(stage, num_shards=5)
    assert stage.most_in_hand == 1


def test_slices_are_read_ahead_too(stage_of):
    stage = stage_of(1)
    driver = drive(stage, num_slices=4)
    assert stage.most_in_hand == 2
    assert len(driver.receipts) == len(driver.slice_receipts) == 4


def test_an_actor_that_dies_with_two_jobs_is_replaced_once_and_both_go_back(stage_of):
    stage = stage_of(1)
    victim = stage.slots[0].actor
    stage.decide = lambda actor, job: (
        "done" if actor is not victim else "die" if len(victim.jobs) == 2 else "works"
    )
    driver = drive(stage, num_shards=5)
    assert stage.num_replaced == 1
    assert driver.num_retries == 2
    assert len(driver.receipts) == 5
    assert [a.is_lost for a in driver.attempts].count(True) == 2


def test_a_shard_whose_actor_died_is_tried_again_alone(stage_of):
    """Else the search for a deadly text would blame shards that only were in the same hand."""
    stage = stage_of(2)
    deadly = make_shard(3).name

    def decide(actor, job):
        if job.shard.name == deadly and job.attempt < 3:
            return "die"
        return "done" if stage.num_replaced else "works"

    stage.decide = decide
    driver = drive(stage, num_shards=9)
    assert len(driver.receipts) == 9
    assert {len(hand) for hand in stage.hands} == {1, 2}
    retried = [hand for hand in stage.hands if any(job.attempt > 1 for job in hand)]
    assert len(retried) == 3
    assert {len(hand) for hand in retried} == {1}


def test_the_time_limit_of_a_job_in_hand_begins_when_the_one_before_it_ends(stage_of):
    stage = stage_of(1)
    slow = make_shard(0).name
    stage.decide = lambda actor, job: (
        "works" if job.shard.name == slow and stage.clock.now < 9.0 else "done"
    )
    driver = drive(stage, num_shards=4, timeout_s=10.0)
    assert stage.killed == []
    assert driver.num_retries == 0
    stage = stage_of(1)
    stage.decide = lambda actor, job: (
        "works" if job.shard.name == slow and job.attempt == 1 else "done"
    )
    driver = drive(stage, num_shards=4, timeout_s=10.0)
    assert stage.num_replaced == 1
    assert len(driver.receipts) == 4


def test_an_actor_s_attempts_follow_one_another(stage_of):
    driver = drive(stage_of(1), num_shards=8)
    spans = [(attempt.start_s, attempt.end_s) for attempt in driver.attempts]
    assert spans == [(float(n), float(n + 1)) for n in range(8)]
