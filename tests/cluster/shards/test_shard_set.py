import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.shards.shard_set import ShardSet, key_of, make_key, split_key

names = st.lists(st.tuples(st.integers(0, 999_999), st.integers(0, 99_999)))


@given(names, names)
def test_it_holds_what_was_added_and_nothing_else(added, others):
    shards = ShardSet(f"{index:06d}-{number:05d}" for index, number in added)
    assert len(shards) == len(set(added))
    for index, number in [*added, *others]:
        assert (f"{index:06d}-{number:05d}" in shards) == ((index, number) in added)
    assert [split_key(key) for key in shards.keys().tolist()] == sorted(set(added))


def test_many_are_held_as_few_are():
    numbers = list(range(50_000))
    random.Random(0).shuffle(numbers)
    shards = ShardSet()
    for number in numbers:
        assert shards.add(f"{number:06d}-00000")
        assert not shards.add(f"{number:06d}-00000")
    assert len(shards) == 50_000
    assert all(f"{number:06d}-00000" in shards for number in range(0, 50_000, 97))
    assert "050000-00000" not in shards
    assert shards.keys().tolist() == [make_key(number, 0) for number in range(50_000)]


@pytest.mark.parametrize("name", ["000012-00034", "part-000012-00034.parquet", "000012-00034.json"])
def test_a_file_has_the_number_of_its_shard(name):
    assert key_of(name) == make_key(12, 34)
    assert name in ShardSet([name])


@pytest.mark.parametrize("name", ["", "prepared.json", "000012", "x-000012-00034", ".000012-00034"])
def test_other_names_have_no_number(name):
    assert key_of(name) is None
    assert not ShardSet().add(name)
    assert name not in ShardSet(["000012-00034"])
