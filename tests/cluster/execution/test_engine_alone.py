import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.execution.engine_alone import deal_shards
from cluster.shards.layout import Shard


def make_shards(seconds):
    return [
        Shard(
            name=f"000000-{number:05d}",
            num_rows=1,
            num_unique=1,
            num_tokens=1,
            num_unique_tokens=1,
            predicted_s=predicted_s,
            spans=(("a.csv", 1),),
        )
        for number, predicted_s in enumerate(seconds)
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
