from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.execution.engine_alone import deal_shards, measure_engine_alone
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.scheduling.local_nodes import LocalNodes
from fastformers.cluster.scheduling.nodes import Node
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from tests.cluster.scheduling.jobs import make_shard


def make_shards(seconds):
    return [
        make_shard(number, predicted_s=predicted_s) for number, predicted_s in enumerate(seconds)
    ]


seconds_of_shards = st.lists(st.integers(0, 1000).map(float), max_size=40)


@given(seconds_of_shards, st.integers(1, 8))
def test_every_shard_is_dealt_once_and_no_share_is_ahead_by_more_than_its_last(seconds, num_shares):
    shards = make_shards(seconds)
    shares = deal_shards(shards, num_shares)
    assert len(shares) == num_shares
    dealt = [shard.name for share in shares for shard in share]
    assert sorted(dealt) == [shard.name for shard in shards]
    loads = [sum(shard.predicted_s for shard in share) for share in shares]
    for share, load in zip(shares, loads, strict=True):
        assert not share or load - share[-1].predicted_s <= min(loads)


def test_long_shards_are_dealt_first():
    shares = deal_shards(make_shards([1, 1, 2, 4]), 2)
    assert [[shard.predicted_s for shard in share] for share in shares] == [[4], [2, 1, 1]]


@pytest.mark.parametrize("num_shares", [1, 3])
def test_shares_may_be_empty_where_there_are_few_shards(num_shares):
    shares = deal_shards(make_shards([5]), num_shares)
    assert [len(share) for share in shares] == [1, 0, 0][:num_shares]


def test_every_worker_s_rate_on_its_share_is_added(
    scripted_pool, bundle, tmp_path, write_rows, run_locally
):
    path = write_rows(tmp_path / "c.jsonl", [{"text": f"a cat {row}"} for row in range(12)])
    settings = CorpusSettings(shard_seconds=bundle.cost_profile.estimate_total_seconds([5] * 3))
    run_locally(open_prepare_job(str(path), bundle.path, str(tmp_path / "shards"), settings))
    job = open_score_job(
        str(tmp_path / "shards"),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
    )
    pool = scripted_pool(2, lambda job: float(len(job.shards)))
    node = Node(
        id="n", name="n", instance_type=None, slots=tuple(pool.slots), num_cores=2, self_check=""
    )

    @contextmanager
    def connect(address):
        assert address == "head:1"
        yield lambda spec, actors, cores_per_actor: LocalNodes({node: pool}, clock=pool.clock)

    rate = measure_engine_alone(job, ActorSettings(address="head:1"), connect, print)
    [[first], [second]] = pool.hands
    rows = [sum(shard.num_rows for shard in job.shards) for job in (first, second)]
    assert sum(rows) == 12
    assert len(first.shards) > 1
    assert rate == pytest.approx(rows[0] / len(first.shards) + rows[1] / len(second.shards))
    assert pool.num_stops == 1
