import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.shard_queue import MAX_ATTEMPTS, MAX_FALSE_ALARMS, Lease, ShardQueue
from fastformers.errors import ScoringError


def make_shard(name="00000-00000", *, num_unique=8, predicted_s=1.0, length=1):
    return Shard(
        name=name,
        num_rows=num_unique,
        num_unique=num_unique,
        num_tokens=num_unique * length,
        num_unique_tokens=num_unique * length,
        predicted_s=predicted_s,
        spans=(("a.csv", num_unique),),
    )


def texts_of(lease):
    """What an actor scores for a lease."""
    wanted = range(lease.shard.num_unique) if lease.probe is None else lease.probe
    return set(wanted) - set(lease.skip)


def play(shard, dies, *, max_leases=500):
    """Score one shard with an actor that may die; returns all leases, the committing one last."""
    queue = ShardQueue()
    queue.add(shard)
    leases = []
    while (lease := queue.lease()) is not None:
        leases.append(lease)
        assert len(leases) <= max_leases, "the queue goes on forever"
        if dies(lease):
            queue.fail(lease, "its actor died")
        else:
            assert queue.complete(lease) == (lease.probe is None)
    return leases


def test_the_costliest_shard_goes_first_and_ties_go_in_corpus_order():
    queue = ShardQueue()
    for name, predicted_s in {"d": 1.0, "b": 5.0, "a": 2.0, "c": 5.0}.items():
        queue.add(make_shard(name, predicted_s=predicted_s))
    order = []
    while (lease := queue.lease()) is not None:
        order.append(lease.shard.name)
    assert order == ["b", "c", "a", "d"]


@pytest.fixture
def two_ended():
    """A queue for two kinds: two shards of about one size, one small and one with no text."""
    queue = ShardQueue(large_s=4.0)
    queue.add(make_shard("short texts", num_unique=100, length=10, predicted_s=8.1))
    queue.add(make_shard("no text", num_unique=0, predicted_s=0.0))
    queue.add(make_shard("long texts", num_unique=8, length=50, predicted_s=7.9))
    queue.add(make_shard("small", length=99, predicted_s=1.0))
    return queue


@pytest.mark.parametrize("shortest", [False, True])
def test_for_two_kinds_shards_are_in_order_of_size_and_of_the_mean_length_of_their_texts(
    two_ended, shortest
):
    order = []
    while (lease := two_ended.lease(shortest=shortest)) is not None:
        order.append(lease.shard.name)
    costliest = ["long texts", "short texts", "small", "no text"]
    assert order == (costliest[::-1] if shortest else costliest)


def test_a_shard_that_was_leased_from_one_end_is_not_there_at_the_other(two_ended):
    assert two_ended.lease(shortest=True).shard.name == "no text"
    longest = two_ended.lease()
    assert two_ended.peek_shortest().name == "small"
    assert [two_ended.lease().shard.name for _ in range(2)] == ["short texts", "small"]
    assert two_ended.peek_shortest() is two_ended.lease() is two_ended.lease(shortest=True) is None
    two_ended.fail(longest, "its actor died")
    assert two_ended.peek_shortest() == longest.shard
    assert two_ended.lease(shortest=True).shard == longest.shard


def test_large_shards_are_counted_while_they_wait(two_ended):
    assert two_ended.num_large == 2
    two_ended.add(make_shard("just large", predicted_s=4.0))
    assert two_ended.num_large == 3
    leases = [two_ended.lease() for _ in range(2)]
    assert two_ended.num_large == 1
    two_ended.give_back(leases[0])
    two_ended.fail(leases[1], "its actor died")
    assert two_ended.num_large == 3
    two_ended.lease(shortest=True)
    assert (two_ended.num_large, len(two_ended)) == (3, 4)


def test_no_shard_is_large_where_one_kind_scores():
    queue = ShardQueue()
    queue.add(make_shard(predicted_s=1e9))
    assert (queue.num_large, queue.peek_shortest()) == (0, None)


@given(st.lists(st.sampled_from(["add", "lease", "complete", "fail"]), max_size=60))
def test_every_shard_is_waiting_leased_or_done(events):
    queue = ShardQueue()
    added, leased, done, failed = 0, [], 0, 0
    for event in events:
        if event == "add":
            queue.add(make_shard(f"{added:05d}", predicted_s=added % 3))
            added += 1
        elif event == "lease":
            lease = queue.lease()
            assert (lease is None) == (len(leased) + done == added)
            leased += [] if lease is None else [lease]
        elif leased and event == "complete":
            done += queue.complete(leased.pop(0))
        elif leased:
            queue.fail(leased.pop(), "its actor died")
            failed += 1
        assert len(queue) == added - len(leased) - done
        assert len({lease.shard.name for lease in leased}) == len(leased)
        assert queue.num_retries == failed


def test_an_empty_queue_has_nothing_to_lease():
    queue = ShardQueue()
    assert queue.lease() is None
    assert (len(queue), queue.num_retries) == (0, 0)


@pytest.mark.parametrize("num_deaths", range(MAX_ATTEMPTS))
def test_a_shard_whose_actor_died_is_scored_again(num_deaths):
    deaths = iter([True] * num_deaths)
    shard = make_shard()
    leases = play(shard, lambda lease: next(deaths, False))
    assert leases == [Lease(shard=shard, attempt=n) for n in range(1, num_deaths + 2)]


def test_a_shard_that_came_back_waits_in_its_place():
    queue = ShardQueue()
    queue.add(make_shard("cheap", predicted_s=1))
    queue.add(make_shard("dear", predicted_s=9))
    queue.fail(queue.lease(), "its actor died")
    assert [queue.lease().shard.name, queue.lease().shard.name] == ["dear", "cheap"]


def test_a_lease_that_is_given_back_was_none():
    queue = ShardQueue()
    for name, predicted_s in {"dear": 9.0, "cheap": 1.0}.items():
        queue.add(make_shard(name, predicted_s=predicted_s))
    for _ in range(MAX_ATTEMPTS + 1):
        lease = queue.lease()
        assert (lease.shard.name, lease.attempt, lease.probe) == ("dear", 1, None)
        queue.give_back(lease)
    assert (len(queue), queue.num_retries) == (2, 0)


def test_a_probe_that_is_given_back_is_made_again():
    queue = ShardQueue()
    queue.add(make_shard(num_unique=8))
    for _ in range(MAX_ATTEMPTS):
        queue.fail(queue.lease(), "its actor died")
    probe = queue.lease()
    queue.give_back(probe)
    assert queue.lease() == probe == Lease(shard=make_shard(), attempt=4, probe=range(4))


def test_a_text_that_kills_is_found_by_halves():
    leases = play(make_shard(num_unique=8), lambda lease: 5 in texts_of(lease))
    assert [lease.probe for lease in leases] == [
        *(None, None, None),  # three deaths, then
        *(range(4), range(4, 6), range(4, 5), range(5, 6)),
        range(5, 6),  # twice, to be sure
        None,
    ]
    assert [lease.attempt for lease in leases] == list(range(1, 10))
    assert list(leases[-1].skip) == [5]
    assert "its actor died" in leases[-1].skip[5]
    assert all(not lease.skip for lease in leases[:-1])


def test_a_text_that_is_alone_in_its_shard_is_left_out_after_two_more_deaths():
    leases = play(make_shard(num_unique=1), lambda lease: 0 in texts_of(lease))
    assert [lease.probe for lease in leases] == [None] * 3 + [range(1)] * 2 + [None]
    assert leases[-1].skip == {0: "the text kills its actor: its actor died"}


def test_the_search_for_a_second_text_begins_anew():
    leases = play(make_shard(num_unique=2), lambda lease: bool(texts_of(lease)))
    assert [lease.probe for lease in leases] == [
        *([None] * 3 + [range(1)] * 2),
        *([None] * 3 + [range(1)] + [range(1, 2)] * 2),
        None,
    ]
    with pytest.raises(ScoringError, match=r"killed its actor 10 times, at last with nothing to"):
        play(make_shard(num_unique=1), lambda lease: True)


def test_a_death_before_a_false_alarm_does_not_count_after_it():
    probes = iter([True, False, True, False])

    def dies(lease):
        return next(probes) if lease.probe is not None else len(deaths) < 6 and not deaths.append(0)

    deaths = []
    assert play(make_shard(num_unique=1), dies)[-1].skip == {}
    assert next(probes, None) is None


def test_nothing_is_held_of_a_shard_that_is_done():
    queue = ShardQueue()
    queue.add(make_shard())
    queue.complete(queue.lease())
    assert not queue._entries


def test_one_death_on_a_text_alone_is_not_enough_to_blame_it():
    """Machines die on their own, too: here while texts 0 and then 1 are scored alone, once each."""
    alone = []

    def dies(lease):
        if lease.probe is None:
            return len(alone) == 0
        first_time = lease.probe not in alone
        alone.append(lease.probe)
        return len(lease.probe) == 1 and first_time

    leases = play(make_shard(num_unique=2), dies)
    assert alone == [range(1), range(1), range(1, 2), range(1, 2)]
    assert leases[-1].probe is None
    assert leases[-1].skip == {}


@given(st.data(), st.integers(1, 70))
def test_the_killing_texts_are_skipped_and_no_others(data, num_unique):
    killers = data.draw(st.sets(st.integers(0, num_unique - 1), max_size=3))
    leases = play(make_shard(num_unique=num_unique), lambda lease: killers & texts_of(lease))
    assert leases[-1].probe is None
    assert set(leases[-1].skip) == killers
    search = MAX_ATTEMPTS + math.ceil(math.log2(num_unique)) + 2
    assert len(leases) <= len(killers) * search + 1


@given(st.data(), st.integers(1, 40), st.lists(st.booleans(), max_size=60))
def test_unrelated_deaths_blame_no_text_unless_it_was_alone(data, num_unique, unrelated):
    """A death blames a text only if the actor was scoring that text by itself."""
    killers = data.draw(st.sets(st.integers(0, num_unique - 1), max_size=3))
    deaths = iter(unrelated)

    def dies(lease):
        is_alone = len(texts_of(lease)) <= 1
        return killers & texts_of(lease) or (not is_alone and next(deaths, False))

    try:
        leases = play(make_shard(num_unique=num_unique), dies)
    except ScoringError:
        assert sum(unrelated) > MAX_FALSE_ALARMS
    else:
        assert set(leases[-1].skip) == killers


@given(st.data(), st.integers(2, 40))
def test_a_few_unrelated_deaths_do_not_stop_a_run(data, num_unique):
    killers = data.draw(st.sets(st.integers(0, num_unique - 1), max_size=2))
    moments = data.draw(st.sets(st.integers(0, 30), max_size=MAX_FALSE_ALARMS))
    num_leases = iter(range(10_000))

    def dies(lease):
        is_unrelated = next(num_leases) in moments and len(texts_of(lease)) > 1
        return killers & texts_of(lease) or is_unrelated

    assert set(play(make_shard(num_unique=num_unique), dies)[-1].skip) == killers


@pytest.mark.parametrize("num_unique", [1, 2, 3, 50])
def test_a_shard_that_only_dies_as_a_whole_is_given_up(num_unique):
    """For example, its batches need more memory than there is."""
    num_deaths = 0

    def dies(lease):
        nonlocal num_deaths
        num_deaths += lease.probe is None
        return lease.probe is None

    with pytest.raises(ScoringError, match="no text of it does alone") as caught:
        play(make_shard("00007-00001", num_unique=num_unique), dies)
    assert num_deaths == MAX_ATTEMPTS * (MAX_FALSE_ALARMS + 1)
    assert "shard 00007-00001" in str(caught.value)
    assert "--max-batch-tokens" in str(caught.value)


def test_a_shard_that_no_text_of_kills_is_scored_without_an_audit():
    """The audit, which no probe does, may be what kills; with a text to blame it goes on."""
    leases = play(make_shard(), lambda lease: lease.probe is None and lease.audits)
    assert [lease.audits for lease in leases if lease.probe is None] == [True] * 3 + [False]
    assert all(lease.audits for lease in play(make_shard(), lambda lease: 3 in texts_of(lease)))


def test_the_message_counts_deaths_and_not_the_leases_that_went_well():
    with pytest.raises(ScoringError, match=r"killed its actor 9 times"):
        play(make_shard(), lambda lease: lease.probe is None)


@pytest.mark.parametrize("num_unique", [2, 3, 50])
def test_two_texts_that_only_kill_together_blame_neither(num_unique):
    with pytest.raises(ScoringError, match="no text of it does alone"):
        play(
            make_shard(num_unique=num_unique), lambda lease: {0, num_unique - 1} <= texts_of(lease)
        )


@pytest.mark.parametrize("num_unique", [0, 1, 4, 50])
def test_an_actor_that_always_dies_is_not_the_fault_of_every_text(num_unique):
    """For example, the machine lacks the memory to read the shard: the run ends, and says so."""
    with pytest.raises(ScoringError):
        play(make_shard(num_unique=num_unique), lambda lease: True, max_leases=300)


def test_a_shard_without_texts_is_given_up_if_it_always_dies():
    def dies(lease):
        return lease.probe is None

    with pytest.raises(ScoringError):
        play(make_shard(num_unique=0), dies)


def test_each_shard_has_its_own_deaths():
    queue = ShardQueue()
    for name in "ab":
        queue.add(make_shard(name))
    for _ in range(MAX_ATTEMPTS - 1):
        for lease in (queue.lease(), queue.lease()):
            queue.fail(lease, "its actor died")
    assert [queue.lease().probe, queue.lease().probe] == [None, None]
