"""Nodes that go, rows that are bad, times and progress: what a run says and how it ends."""

import pytest

from fastformers.cluster.scheduling.nodes import NodeLeft, NodeRefused
from fastformers.errors import InputError, ScoringError
from tests.cluster.scheduling.played_nodes import (
    do_all,
    done,
    joined,
    lost,
    name_of,
    names,
    reported,
    scored,
)


def test_a_node_that_leaves_loses_its_jobs_to_the_others(play, journal, caplog):
    def events(nodes):
        yield [joined(0, 2), joined(1), joined(2)]
        yield [NodeLeft(id="node0", reason="its raylet died")]
        yield [NodeLeft(id="node0", reason="and again"), reported(0)]
        yield [NodeLeft(id="node1", reason="so did its")]
        yield from do_all(nodes, 2)

    result, _ = play(events, num_shards=6)
    assert sorted(scored(journal)) == names(*range(6))
    assert {receipt.attempt for receipt in journal.receipts} == {1}
    assert caplog.messages == [
        "node host0 has left: its raylet died; the others do its 5 jobs again",
        "node host1 has left: so did its; the others do its 1 job again",
    ]
    assert result.num_retries == 0


def test_a_node_that_leaves_with_empty_hands_takes_nothing_along(watch, caplog):
    def events(nodes):
        yield [joined(0), joined(1)]
        yield [NodeLeft(id="node1", reason="its raylet died")]
        assert caplog.messages == ["node host1 has left: its raylet died"]

    watch(events, num_shards=1)


def test_a_run_waits_15_s_for_the_only_node_to_come_back(play, clock, caplog):
    def events(nodes):
        yield [joined(0)]
        clock.now = 100.0
        yield [NodeLeft(id="node0", reason="its raylet died")]
        for now in (101.0, 114.9):
            clock.now = now
            yield []
        clock.now = 115.0
        yield []

    with pytest.raises(InputError, match="every node has left the cluster; add nodes and run"):
        play(events, num_shards=1)
    assert caplog.messages[1:] == ["no node works; waiting 15 s for one to join"]


def test_a_cluster_that_may_grow_is_given_300_s_even_if_a_node_was_refused(play, clock, caplog):
    def events(nodes):
        yield [NodeRefused(name="host0", reason="no bundle")]
        clock.now = 299.9
        yield []
        clock.now = 300.0
        yield [NodeRefused(name="host1", reason="no memory")]

    with pytest.raises(InputError, match="no node can work: host0: no bundle; host1: no memory"):
        play(events, num_shards=1, can_grow=True)
    assert "no node works; waiting 300 s for one to join" in caplog.messages


def test_where_none_may_join_a_refusal_ends_the_run_at_once(play):
    def events(nodes):
        yield [NodeRefused(name="host0", reason="no bundle")]

    with pytest.raises(InputError, match="no node can work: host0: no bundle"):
        play(events, num_shards=1)


def test_time_without_nodes_counts_anew_after_each_that_worked_or_may(play, clock, caplog):
    def events(nodes):
        nodes.num_starting = 1
        for now in (0.0, 500.0):
            clock.now = now
            yield []
        nodes.num_starting = 0
        clock.now = 514.0
        yield []
        yield [joined(0)]
        clock.now = 600.0
        yield []
        yield [NodeLeft(id="node0", reason="its raylet died")]
        clock.now = 614.0
        yield []
        yield [joined(0)]
        yield from do_all(nodes, 0)

    play(events, num_shards=1)
    assert caplog.messages.count("no node works; waiting 15 s for one to join") == 2


def test_refusals_are_said_again_only_for_another_reason(play, caplog):
    def events(nodes):
        yield [joined(0)]
        for reason in ("no bundle", "no bundle", "no memory"):
            yield [NodeRefused(name="bad", reason=reason)]
        yield from do_all(nodes, 0)

    play(events, num_shards=1)
    assert caplog.messages == [
        "node bad is left out: no bundle",
        "node bad is left out: no memory",
    ]


def test_progress_is_shown_once_a_second_and_at_the_end(play, clock):
    seen = []

    def events(nodes):
        yield [joined(0, 2)]
        for now in (0.99, 1.0, 1.5, 2.0):
            clock.now = now
            yield [reported(0, num_slots=2, doing={"infer": 2}, notices=("a slow store",))]
        yield [reported(0, lost(nodes.orders["node0"][0].give[0]), num_slots=2)]
        clock.now = 3.0
        tasks = [*nodes.orders["node0"][0].give[1:], *nodes.last().give]
        assert [name_of(task.job) for task in tasks] == [*(f"slice {50 + n}" for n in range(4)), 0]
        yield [reported(0, *map(done, tasks), num_slots=2)]
        clock.now = 3.5
        yield from do_all(nodes, 0)

    play(events, num_shards=2, num_slices=6, on_progress=seen.append)
    assert [progress.elapsed_s for progress in seen] == [1.0, 2.0, 3.0, 3.5]
    assert [progress.num_done for progress in seen] == [0, 0, 1, 8]
    assert [progress.num_retries for progress in seen] == [0, 0, 1, 1]
    assert [progress.num_known for progress in seen] == [2, 2, 6, 8]
    assert (dict(seen[0].doing), seen[0].notices) == ({"infer": 2}, ("node host0: a slow store",))
    assert (seen[0].num_nodes, seen[-1].num_nodes) == (1, 0)
    assert [progress.num_slices_left for progress in seen] == [6, 6, 2, 0]
    assert [sum(progress.machine_s.values()) for progress in seen] == [1.0, 2.0, 3.0, 3.5]


def test_a_run_without_work_asks_no_node(play, journal):
    result, nodes = play(lambda nodes: iter(()))
    assert (nodes.waited, journal.nodes) == ([], [])
    assert (result.setup_s, result.work_end_s, result.num_retries) == (0.0, 0.0, 0)


def test_its_times_count_from_the_start(play, clock, journal):
    lines = []

    def events(nodes):
        clock.now = 12.0
        yield [joined(0)]
        clock.now = 13.0
        yield [joined(1, seen=11.0)]
        clock.now = 15.0
        yield [reported(number, *map(done, nodes.last(number).give)) for number in (0, 1)]

    result, nodes = play(events, num_shards=4, start=10.0, log=lines.append)
    assert (result.setup_s, result.work_end_s) == (2.0, 5.0)
    assert lines == ["scripted", "scripted"]
    assert nodes.waited == [0.5] * 3
    assert [(use.joined_s, use.ready_s, use.left_s) for use in journal.nodes] == [
        (0.0, 2.0, 5.0),
        (1.0, 3.0, 5.0),
    ]
    assert [(attempt.start_s, attempt.end_s) for attempt in journal.attempts] == [(-10.0, -9.0)] * 4


def test_nodes_of_a_run_that_ends_by_an_error_are_told_too(play, clock, journal):
    def events(nodes):
        yield [joined(0), joined(1)]
        clock.now = 4.0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(events, num_shards=2)
    assert [(use.name, use.left_s, use.reason) for use in journal.nodes] == [
        ("host0", 4.0, None),
        ("host1", 4.0, None),
    ]


def test_what_the_journal_raises_ends_the_run(play, journal, monkeypatch):
    def events(nodes):
        yield [joined(0)]
        yield [reported(0, done(nodes.last().give[0]))]
        yield from do_all(nodes, 0)

    def refuse(receipt):
        raise ScoringError("too many bad rows")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "add_slice", refuse)
        with pytest.raises(ScoringError, match="too many bad rows"):
            play(events, num_slices=1)
    assert journal.receipts == []
    play(events, num_slices=1)
    assert (len(journal.slices), scored(journal)) == (1, names(50))


def test_a_search_for_the_text_that_kills_commits_nothing(play, journal):
    def events(nodes):
        yield [joined(0)]
        for _ in range(3):
            yield [reported(0, lost(nodes.last().give[0]))]
        for _ in range(2):
            [probe] = nodes.last().give
            assert probe.job.probe == range(1)
            yield [reported(0, lost(probe))]
        [task] = nodes.last().give
        assert task.job.skip == {0: "the text kills its actor: its actor died"}
        yield [reported(0, done(task))]

    result, _ = play(events, num_shards=1)
    assert (scored(journal), result.num_retries) == (names(0), 5)
    assert [attempt.job for attempt in journal.attempts] == ["score"] * 3 + ["search"] * 2 + [
        "score"
    ]
