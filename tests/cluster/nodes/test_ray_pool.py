"""The pool of one node on Ray, with actors that live and die, as its supervisor sees it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.topology import CoreSet
from fastformers.cluster.nodes.connect import connect
from fastformers.cluster.nodes.ray_pool import RayPool, _round_cpus
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import (
    CALLS_IN_HAND,
    Failed,
    Finished,
    Lost,
    MeasureRate,
    Task,
    Ticket,
    TimeEngine,
)
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import StorageOptions
from tests.cluster.chaos.jobs import family, ray_actors

REPOSITORY = Path(__file__).parents[3]
KNOWS_NO_RAY = [
    *("execution.job", "execution.run", "execution.claim", "execution.local", "execution.worker"),
    *("execution.topology", "execution.core_split", "execution.engine_alone"),
    *("scheduling.driver", "scheduling.pool"),
]


@pytest.mark.parametrize("module", KNOWS_NO_RAY)
def test_only_the_pool_of_ray_loads_ray(module):
    script = f"import sys, cluster.{module}; sys.exit('ray' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


@pytest.fixture(scope="module")
def cluster():
    """A cluster on this machine."""
    with connect(None):
        yield


@pytest.fixture
def pool_of(cluster):
    """Makes a running pool of one slot."""
    pools = []

    def make(spec):
        slot = Slot(name="here:0")
        cpu = min(os.sched_getaffinity(0))
        node = ray.get_runtime_context().get_node_id()
        pools.append(RayPool(spec, {slot: CoreSet(cpus=(cpu,), num_threads=1)}, node=node))
        pools[-1].start()
        return pools[-1], slot

    yield make
    for pool in pools:
        pool.stop()


@pytest.fixture
def spec(bundle, tmp_path, write_rows):
    path = write_rows(tmp_path / "c.jsonl", [{"text": "a cat"}])
    return open_score_job(
        str(path),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
    ).worker_spec()


def actor_processes():
    """Processes of scoring actors below this one."""
    return ray_actors(family(os.getpid()), "ScoringActor")


def outcomes(pool, number):
    found = []
    while len(found) < number:
        found.extend(pool.wait(60.0))
    return {outcome.ticket: outcome for outcome in found}


def measure(number, seconds):
    return Task(ticket=Ticket(number), job=MeasureRate(seconds=seconds))


@pytest.mark.cluster
def test_an_actor_that_dies_with_two_calls_is_replaced_once_and_works(pool_of, spec):
    pool, slot = pool_of(spec)
    assert slot.max_calls == CALLS_IN_HAND
    pool.submit(slot, [measure(0, 0.01)])
    assert isinstance(outcomes(pool, 1)[0], Finished)
    [first] = actor_processes()
    pool.submit(slot, [measure(1, 60.0)])
    pool.submit(slot, [measure(2, 60.0), measure(3, 60.0)])
    assert pool.wait(0.2) == []
    first.send_signal(signal.SIGKILL)
    lost = outcomes(pool, 3)
    pool.submit(slot, [measure(4, 0.01)])  # lost if replaced a second time
    finished = outcomes(pool, 1)[4]
    assert sorted(lost) == [1, 2, 3]
    for outcome in lost.values():
        assert isinstance(outcome, Lost)
        assert outcome.is_charged
        assert outcome.reason.startswith("its actor died (Actor")
    assert isinstance(finished, Finished)
    assert pool.slots == [slot]
    [second] = actor_processes()
    assert second.pid != first.pid


@pytest.mark.cluster
def test_a_task_is_killed_with_its_actor_and_errors_come_back_as_they_were(pool_of, spec):
    pool, slot = pool_of(spec)
    pool.submit(slot, [measure(0, 3600.0)])
    assert pool.wait(0.2) == []
    pool.kill(Ticket(0))
    assert isinstance(outcomes(pool, 1)[0], Lost)
    wrong = Task(ticket=Ticket(1), job=TimeEngine(shards=("no shard",)))
    pool.submit(slot, [wrong, measure(2, 0.01)])
    found = outcomes(pool, 2)
    assert isinstance(found[1], Failed)
    assert isinstance(found[1].error, AttributeError)
    assert "'str' object has no attribute" in str(found[1].error)
    assert isinstance(found[2], Finished)


@pytest.mark.cluster
def test_what_an_actor_does_is_known_while_it_does_it(pool_of, spec, monkeypatch):
    monkeypatch.setattr("fastformers.cluster.nodes.ray_pool._ASK_EVERY_S", 0.05)
    pool, slot = pool_of(spec)
    assert pool.states() == {slot: "wait"}
    pool.submit(slot, [measure(0, 3600.0)])
    deadline = time.monotonic() + 60.0
    while pool.states() != {slot: "infer"} and time.monotonic() < deadline:
        assert pool.wait(0.05) == []
    assert pool.states() == {slot: "infer"}


@pytest.mark.cluster
def test_an_actor_that_waits_for_storage_says_for_which(pool_of, spec, monkeypatch):
    monkeypatch.setattr("fastformers.cluster.nodes.ray_pool._ASK_EVERY_S", 0.05)
    keys = {"access_key": "a", "secret_key": "b", "region": "x", "scheme": "http"}
    away = StorageOptions({**keys, "endpoint_override": "127.0.0.1:9"})  # nothing listens there
    pool, slot = pool_of(replace(spec, shards=open_directory("s3://away/shards", away)))
    shard = Shard(
        name="000000-00000",
        num_rows=1,
        num_unique=1,
        num_tokens=1,
        num_unique_tokens=1,
        predicted_s=1.0,
        spans=(),
    )
    pool.submit(slot, [Task(ticket=Ticket(0), job=Lease(shard=shard, attempt=1))])
    deadline = time.monotonic() + 60.0
    while not pool.outages() and time.monotonic() < deadline:
        assert pool.wait(0.05) == []
    [line] = pool.outages()
    assert line.startswith("storage does not answer since ")
    assert "s3://away/shards/tokens/part-000000-00000.parquet" in line
    assert pool.states() == {slot: "store"}
    pool.kill(Ticket(0))
    assert isinstance(outcomes(pool, 1)[0], Lost)
    assert pool.outages() == []


@pytest.mark.cluster
def test_a_slot_whose_actors_cannot_start_disappears_with_their_own_error(pool_of, spec, tmp_path):
    pool, slot = pool_of(replace(spec, bundle=replace(spec.bundle, path=tmp_path / "none")))
    for number in range(2):
        pool.submit(slot, [measure(number, 0.01)])
        [lost] = outcomes(pool, 1).values()
        assert isinstance(lost, Lost)
        assert not lost.is_charged
    assert pool.slots == []
    assert "not a bundle (no bundle.json)" in pool.trouble


@pytest.mark.parametrize(
    ("asked", "counted"), [(2.0, 2), (1.0, 1), (1.5, 1), (2 / 3, 0.6666), (0.4, 0.4)]
)
def test_cpus_are_asked_for_as_ray_counts_them(asked, counted):
    """Three actors on two CPUs must all find room."""
    assert _round_cpus(asked) == counted
