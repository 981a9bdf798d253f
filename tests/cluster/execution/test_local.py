"""One worker in this process, as the driver sees it."""

import pytest

from fastformers.cluster.corpus.slices import Piece, Slice
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.local import LocalPool, connect_here, open_local_nodes
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.execution.topology import discover_topology
from fastformers.cluster.records.slice_table import load_shards
from fastformers.cluster.scheduling.work import Failed, Finished, Lost, MeasureRate, Task, Ticket
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import InputError


@pytest.fixture
def pool_of():
    """Makes a running pool of one worker."""
    pools = []

    def make(job):
        pools.append(LocalPool(job.worker_spec()))
        pools[-1].start()
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


def task(number, job):
    return Task(ticket=Ticket(number), job=job)


@pytest.fixture
def job_of_shards(bundle, tmp_path, write_rows):
    """A job on three shards that were prepared."""
    rows = [{"text": f"a cat {row}"} for row in range(9)]
    path = write_rows(tmp_path / "c.jsonl", rows)
    settings = CorpusSettings(shard_seconds=bundle.cost_profile.estimate_total_seconds([5] * 3))
    shards = str(tmp_path / "shards")
    result = run_job(
        open_prepare_job(str(path), bundle.path, shards, settings), ActorSettings(), connect_here
    )
    job = open_score_job(
        shards,
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
    )
    job.predictions.create()
    assert result.tally.known.num_shards == 3
    return job, load_shards(job.shards)


def test_tasks_are_done_one_after_the_other_while_one_waits(job_of_shards, pool_of):
    job, shards = job_of_shards
    pool = pool_of(job)
    [slot] = pool.slots
    pool.submit(slot, [task(n, Lease(shard=shard, attempt=1)) for n, shard in enumerate(shards)])
    assert job.predictions.list_files() == []
    for number, shard in enumerate(shards):
        [outcome] = pool.wait(0.0)
        assert isinstance(outcome, Finished)
        assert isinstance(outcome.result, Receipt)
        assert (outcome.ticket, outcome.result.shard) == (number, shard.name)
        assert outcome.result.actor == slot.name
        assert len(job.predictions.list_files()) == number + 1
    assert pool.wait(0.0) == []


def test_an_error_is_an_outcome_and_the_next_task_is_done(job_of_shards, pool_of):
    job, _ = job_of_shards
    pool = pool_of(job)
    missing = Slice(index=0, pieces=(Piece(path="/none", start=0, stop=1),), first_shard=0)
    pool.submit(pool.slots[0], [task(0, missing), task(1, MeasureRate(seconds=0.01))])
    [failed], [finished] = pool.wait(0.0), pool.wait(0.0)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, AssertionError)  # these shards are prepared: none can be cut
    assert isinstance(finished, Finished)
    assert finished.result > 0
    assert [failed.ticket, finished.ticket] == [0, 1]


def test_a_task_that_is_ended_comes_back_as_lost_and_is_not_done(job_of_shards, pool_of):
    job, shards = job_of_shards
    pool = pool_of(job)
    leases = [Lease(shard=shard, attempt=1) for shard in shards[:2]]
    pool.submit(pool.slots[0], [task(n, lease) for n, lease in enumerate(leases)])
    pool.kill(Ticket(0))
    assert pool.wait(0.0) == [Lost(ticket=Ticket(0), reason="it was ended")]
    [outcome] = pool.wait(0.0)
    assert outcome.ticket == 1
    assert job.predictions.list_files() == [shards[1].file_name]


def test_a_user_s_interrupt_is_nobody_s_outcome(job_of_shards, pool_of, monkeypatch):
    job, shards = job_of_shards
    pool = pool_of(job)
    monkeypatch.setattr(
        "fastformers.cluster.execution.worker.read_shard_table",
        lambda table: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    pool.submit(pool.slots[0], [task(0, Lease(shard=shards[0], attempt=1))])
    with pytest.raises(KeyboardInterrupt):
        pool.wait(0.0)


def test_one_process_is_one_worker_without_a_cluster(job_of_shards):
    spec = job_of_shards[0].worker_spec()
    with pytest.raises(InputError, match="--num-actors 2: one process has one worker"):
        open_local_nodes(spec, ActorSettings(num_actors=2), cores_per_actor=1)
    with pytest.raises(InputError, match="--cores-per-actor 1000 needs 1000 cores"):
        open_local_nodes(spec, ActorSettings(num_actors=1), cores_per_actor=1000)
    with (
        pytest.raises(InputError, match="--address head:1: work in this process needs no cluster"),
        connect_here("head:1"),
    ):
        pass


def test_its_threads_are_those_of_an_actor_and_the_other_cores_are_idle(job_of_shards):
    spec = job_of_shards[0].worker_spec()
    nodes = open_local_nodes(spec, ActorSettings(oversubscribe=True), cores_per_actor=2)
    nodes.start()
    [joined] = nodes.wait(0.0)
    nodes.stop()
    assert [(slot.num_cores, slot.max_calls) for slot in joined.node.slots] == [(2, 1)]
    assert joined.node.self_check == "1 worker x 2 threads in this process, pinned to no core"
    assert joined.node.num_idle_cores == max(0, discover_topology().num_usable_cores - 2)
