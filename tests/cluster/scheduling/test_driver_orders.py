"""What the driver tells nodes, exchange by exchange; they report what the test says."""

from itertools import count

import pytest

from fastformers.cluster.scheduling.nodes import NodeLeft
from tests.cluster.scheduling.played_nodes import (
    do_all,
    done,
    failed,
    joined,
    lost,
    name_of,
    names,
    reported,
    returned,
    scored,
)


def test_while_plenty_waits_a_node_has_more_than_its_slots_take(watch, clock):
    def events(nodes):
        clock.now = 7.0
        yield [joined(0, 2)]
        orders = nodes.last()
        assert nodes.given() == [0, 1, 2, 3, 4]
        assert (orders.is_plenty, orders.answer_below, orders.wait_s) == (True, 5, 2.0)
        assert (orders.now, orders.take_back) == (7.0, ())

    watch(events, num_shards=3 + 5)


def test_what_is_plenty_is_more_than_all_slots(watch):
    def events(nodes):
        yield [joined(0, 2), joined(1, 3)]
        assert [nodes.last(number).is_plenty for number in (0, 1)] == [True, True]
        assert nodes.given(1) == [5, 6, 7, 8, 9, 10, 11]
        yield [reported(0, num_slots=2)]
        assert nodes.last(0).is_plenty
        yield [reported(1, done(nodes.orders["node1"][0].give[0]), num_slots=4)]
        assert not nodes.last(1).is_plenty

    watch(events, num_shards=12 + 6)


def test_at_the_end_a_node_has_a_job_for_each_slot_and_answers_soon(watch):
    def events(nodes):
        yield [joined(0, 2)]
        orders = nodes.last()
        assert nodes.given() == [0, 1]
        assert (orders.is_plenty, orders.answer_below, orders.wait_s) == (False, 2, 0.5)

    watch(events, num_shards=2)


def test_each_of_many_nodes_answers_less_often(watch):
    def events(nodes):
        yield [joined(number) for number in range(400)]
        yield [reported(399)]
        assert nodes.last(399).wait_s == pytest.approx(0.8)

    watch(events, num_shards=1200)


@pytest.mark.parametrize(("num_nodes", "wait_s"), [(1, 0.05), (20, 0.1)])
def test_a_node_with_free_slots_answers_often_but_not_too_many_of_them_at_once(
    watch, num_nodes, wait_s
):
    def events(nodes):
        yield [joined(number, 2) for number in range(num_nodes)]
        assert nodes.last(num_nodes - 1).wait_s == pytest.approx(wait_s)

    watch(events, num_shards=1)


def test_a_fast_node_is_leased_the_work_of_four_seconds(watch):
    def events(nodes):
        yield [joined(0, 2)]
        tasks = nodes.last().give
        yield [reported(0, *(done(task, seconds=0.4) for task in tasks), num_slots=2)]
        assert len(nodes.last().give) == 20
        assert nodes.last().answer_below == 10

    watch(events, num_shards=100)


def test_the_pace_of_slices_is_not_that_of_shards(watch):
    def events(nodes):
        yield [joined(0, 2)]
        tasks = nodes.last().give
        yield [reported(0, *(done(task, seconds=0.01, shards=()) for task in tasks), num_slots=2)]
        assert len(nodes.last().give) == 5

    watch(events, num_slices=100)


def test_a_node_that_will_be_taken_away_gets_no_work_and_gives_back_what_it_has_not_begun(
    play, caplog, journal
):
    def events(nodes):
        yield [joined(0, 2), joined(1, 1)]
        tasks = nodes.last(0).give
        begun = [(task.ticket, 1.0) for task in tasks[:2]]
        leaves = {"leaving": "in 120 s", "num_slots": 2}
        yield [reported(0, begun=tuple(begun), **leaves)]
        orders = nodes.last(0)
        assert (orders.give, orders.take_back) == ((), tuple(task.ticket for task in tasks[2:]))
        yield [reported(0, *map(returned, tasks[2:]), **leaves)]
        assert (nodes.last(0).give, nodes.last(0).take_back) == ((), ())
        assert nodes.released == []
        yield [reported(0, *map(done, tasks[:2]), **leaves)]
        assert nodes.released == [("node0", "in 120 s")]
        yield from do_all(nodes, 1)

    play(events, num_shards=12)
    assert sorted(scored(journal)) == names(*range(12))
    assert caplog.messages == [
        "node host0: in 120 s; it gets no more work",
        "node host0 has left: in 120 s",
    ]
    assert [(use.name, use.reason) for use in journal.nodes] == [
        ("host0", "in 120 s"),
        ("host1", None),
    ]
    assert {receipt.attempt for receipt in journal.receipts} == {1}


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("no space left", "no space left"), (None, "it has no workers left")],
)
def test_a_node_without_slots_is_left_out_with_its_own_words(
    play, journal, caplog, trouble, reason
):
    def events(nodes):
        yield [joined(0), joined(1)]
        yield [reported(0, num_slots=0, trouble=trouble)]
        assert nodes.released == [("node0", reason)]
        yield from do_all(nodes, 1)

    play(events, num_shards=6)
    assert sorted(scored(journal)) == names(*range(6))
    assert caplog.messages == [f"node host0 is left out: {reason}"]


def test_a_node_is_left_out_after_three_errors_in_a_row(play, journal, caplog):
    def events(nodes):
        yield [joined(0, 4), joined(1, 1)]
        first, second, third, fourth, *_ = nodes.last(0).give
        yield [reported(0, failed(first), failed(second), num_slots=4)]
        yield [reported(0, done(third), failed(fourth), num_slots=4)]
        assert nodes.released == []
        more = nodes.last(0).give
        yield [reported(0, failed(more[0]), num_slots=4)]
        assert nodes.released == []
        yield [reported(0, failed(more[1], "its disk is full"), num_slots=4)]
        [(node, reason)] = nodes.released
        assert node == "node0"
        assert "its disk is full" in reason
        assert f"node host0: {reason}" in caplog.messages
        yield from do_all(nodes, 1)

    result, _ = play(events, num_shards=40)
    assert sorted(scored(journal)) == names(*range(40))
    assert result.num_retries == 0


def test_a_node_alone_is_not_left_out_for_its_errors(play, journal):
    def events(nodes):
        yield [joined(0, 4)]
        yield [reported(0, *map(failed, nodes.last().give[:4]), num_slots=4)]
        assert nodes.released == []
        tasks = [task for orders in nodes.orders["node0"] for task in orders.give][4:]
        yield [reported(0, *map(done, tasks), num_slots=4)]
        yield from do_all(nodes, 0)

    play(events, num_shards=12)
    assert sorted(scored(journal)) == names(*range(12))


@pytest.mark.parametrize(
    ("end", "attempt", "num_retries", "is_told"),
    [
        (lost, 2, 1, True),
        (lambda task: lost(task, is_charged=False), 1, 0, True),
        (returned, 1, 0, False),
        (failed, 1, 0, True),
    ],
)
def test_a_job_that_was_not_done_is_given_again(play, journal, end, attempt, num_retries, is_told):
    def events(nodes):
        yield [joined(0)]
        yield [reported(0, end(nodes.last().give[0]))]
        [task] = nodes.last().give
        assert task.job.attempt == attempt
        yield [reported(0, done(task))]

    result, _ = play(events, num_shards=1)
    assert scored(journal) == names(0)
    assert result.num_retries == num_retries
    assert [attempt.is_lost for attempt in journal.attempts] == [True] * is_told + [False]


def test_a_slice_of_a_worker_that_died_is_read_again(play, journal):
    def events(nodes):
        yield [joined(0)]
        yield [reported(0, lost(nodes.last().give[0]))]
        assert nodes.given() == ["slice 50"]
        yield from do_all(nodes, 0)

    play(events, num_slices=1)
    assert scored(journal) == names(50)
    assert [(attempt.name, attempt.number) for attempt in journal.attempts] == [
        ("slice 50", 1),
        ("slice 50", 2),
        (names(50)[0], 1),
    ]


@pytest.fixture
def race(play, clock):
    """A job that two nodes have begun; `race(end)` goes on with events of its two tasks."""

    def run(end):
        def events(nodes):
            yield [joined(0), joined(1)]
            first, *others = nodes.last(0).give
            yield [reported(0, *map(done, others), begun=((first.ticket, 0.0),))]
            clock.now = 50.0  # all jobs took a second, but for the first one
            yield [reported(1, *map(done, nodes.orders["node1"][0].give))]
            clock.now = 51.0
            yield [reported(1)]
            [copy] = nodes.last(1).give
            assert copy.job.shard == first.job.shard
            yield from end(nodes, first, copy)

        return play(events, num_shards=4)

    return run


def test_where_the_copy_is_done_the_work_is_done(race, journal):
    def end(nodes, first, copy):
        yield [reported(1, done(copy))]

    race(end)
    assert sorted(scored(journal)) == names(*range(4))


def test_the_slower_copy_is_taken_back_and_its_result_does_not_count(race, journal):
    def end(nodes, first, copy):
        yield [reported(0, done(first)), reported(1, done(copy))]

    _, nodes = race(end)
    assert sorted(scored(journal)) == names(*range(4))
    assert len(journal.attempts) == 4
    [*_, copied, last] = nodes.orders["node1"]
    assert last.take_back == tuple(task.ticket for task in copied.give)


@pytest.mark.parametrize("end_first", [failed, lost, returned])
def test_a_copy_that_is_not_done_leaves_the_other_to_do_it(race, journal, end_first):
    def end(nodes, first, copy):
        yield [reported(0, end_first(first))]
        assert nodes.last(0).give == ()
        yield [reported(1, end_first(copy))]
        yield [reported(0)]
        [again] = [*nodes.last(0).give, *nodes.last(1).give]  # it waited again, for one of them
        number = 0 if nodes.last(0).give else 1
        yield [reported(number, done(again))]

    result, _ = race(end)
    assert sorted(scored(journal)) == names(*range(4))
    assert result.num_retries == (end_first is lost)


def test_what_was_to_be_copied_is_not_begun_twice_where_its_node_has_left(play, clock, journal):
    def events(nodes):
        yield [joined(0), joined(1, 2)]
        first, *others = nodes.last(0).give
        yield [reported(0, *map(done, others), begun=((first.ticket, 0.0),))]
        clock.now = 50.0
        yield [reported(1, *map(done, nodes.orders["node1"][0].give), num_slots=2)]
        yield [NodeLeft(id="node0", reason="its raylet died"), reported(1, num_slots=2)]
        [again] = nodes.last(1).give
        yield [reported(1, done(again), num_slots=2)]

    play(events, num_shards=5)
    assert sorted(scored(journal)) == names(*range(5))


def test_slots_of_a_node_that_has_left_do_not_count(watch):
    def events(nodes):
        yield [joined(0, 8), joined(1)]
        assert not nodes.last(1).is_plenty
        yield [NodeLeft(id="node0", reason="its raylet died"), reported(1)]
        assert nodes.last(1).is_plenty

    watch(events, num_shards=8)


def test_a_node_that_leaves_with_a_copy_leaves_the_other_to_do_it(race, journal):
    def end(nodes, first, copy):
        yield [NodeLeft(id="node0", reason="its raylet died")]
        yield [reported(1, returned(copy))]
        [again] = nodes.last(1).give
        yield [reported(1, done(again))]

    race(end)
    assert sorted(scored(journal)) == names(*range(4))


def test_at_the_end_what_a_node_has_not_begun_is_given_to_one_that_idles(play, clock, journal):
    def events(nodes):
        yield [joined(0, 1), joined(1, 1)]
        held, other = nodes.last(0).give, nodes.last(1).give
        assert (len(held), len(other)) == (3, 1)
        clock.now = 1.0
        yield [reported(1, *map(done, other)), reported(0, begun=((held[0].ticket, 0.5),))]
        clock.now = 1.2
        yield [reported(0)]
        [ticket] = nodes.last(0).take_back
        assert ticket == held[1].ticket
        yield [reported(0, returned(held[1])), reported(1)]
        assert nodes.last(0).take_back == ()
        assert nodes.given(1) == [name_of(held[1].job)]
        yield [reported(1, done(nodes.last(1).give[0])), reported(0, done(held[0]), done(held[2]))]

    play(events, num_shards=4)
    assert sorted(scored(journal)) == names(*range(4))


def test_tickets_are_never_used_twice(watch):
    def events(nodes):
        yield [joined(0, 2)]
        for _ in range(4):
            given = [task.ticket for orders in nodes.orders["node0"] for task in orders.give]
            assert given == [ticket for ticket, _ in zip(count(given[0]), given, strict=False)]
            yield [reported(0, *map(done, nodes.last().give), num_slots=2)]

    watch(events, num_shards=100)
