"""Which nodes a run uses, of a cluster whose nodes and supervisors do what the test says."""

import threading

import pytest

from fastformers.cluster.scheduling.nodes import (
    NodeJoined,
    NodeLeft,
    NodeRefused,
    NodeReport,
    NodeReported,
    Orders,
)
from fastformers.errors import InputError
from tests.cluster.nodes.fake_cluster import make_nodes, state


def test_every_node_with_free_cpus_is_asked_and_joins_when_it_is_ready(cluster_of):
    cluster = cluster_of(state("head", free=0.0), state("a"), state("b", free=1.0))
    assert {id_: h.num_actors for id_, h in cluster.handles.items()} == {"a": 2, "b": 1}
    assert cluster.nodes.num_starting == 2
    cluster.handles["b"].is_ready()
    [joined] = cluster.wait()
    assert (joined.node.id, joined.seen) == ("b", None)
    assert cluster.nodes.num_starting == 1


def test_it_is_not_settled_before_the_cluster_was_asked(clock):
    nodes = make_nodes(list, clock)
    assert nodes.num_starting == 1
    nodes._inbox.put([])
    assert nodes.wait(0.0) == []
    assert nodes.num_starting == 0


def test_nodes_of_one_name_are_told_apart(cluster_of):
    cluster = cluster_of(state("a"), state("b"), state("c", hostname="other"))
    names = {handle.name for handle in cluster.handles.values()}
    assert names == {"host", "host#2", "other"}


def test_a_node_that_comes_later_costs_from_when_it_was_seen(cluster_of, clock):
    cluster = cluster_of(state("a"))
    cluster.handles["a"].is_ready()
    cluster.wait()
    clock.now = 30.0
    cluster.show(state("a"), state("b"))
    clock.now = 34.0
    cluster.handles["b"].is_ready()
    [joined] = cluster.wait()
    assert (joined.node.id, joined.seen) == ("b", 30.0)
    assert list(cluster.handles) == ["a", "b"]


def test_a_node_whose_cpus_become_free_is_used_then_and_costs_from_then(cluster_of, clock):
    cluster = cluster_of(state("a"), state("b", free=0.0))
    assert list(cluster.handles) == ["a"]
    clock.now = 50.0
    cluster.show(state("a", free=0.0), state("b", free=2.0))
    assert list(cluster.handles) == ["a", "b"]
    cluster.handles["b"].is_ready()
    [joined] = cluster.wait()
    assert joined.seen == 50.0


def test_a_node_that_is_kept_for_later_costs_from_when_it_is_used(cluster_of, clock):
    cluster = cluster_of(state("a"), state("b"), num_nodes=1)
    cluster.handles["a"].is_ready()
    cluster.wait()
    clock.now = 30.0
    cluster.show(state("b"))  # the other is lost
    cluster.handles["b"].is_ready()
    [joined] = cluster.wait()
    assert (joined.node.id, joined.seen) == ("b", 30.0)


def test_a_node_that_is_used_again_costs_from_when_it_was_lost(cluster_of, clock):
    cluster = cluster_of(state("a"))
    cluster.handles["a"].is_ready()
    [joined] = cluster.wait()
    assert joined.seen is None
    cluster.nodes.exchange("a", Orders())
    clock.now = 20.0
    cluster.handles["a"].calls[-1].set_exception(RuntimeError("its supervisor died"))
    [left] = cluster.wait()
    assert isinstance(left, NodeLeft)
    clock.now = 22.0
    cluster.show(state("a"))
    clock.now = 25.0
    cluster.handles["a"].is_ready()
    [joined] = cluster.wait()
    assert joined.seen == 20.0  # what was before has been paid for


def test_orders_for_a_node_that_is_just_being_lost_are_no_error(cluster_of):
    cluster = cluster_of(state("a"), state("b"))
    cluster.handles["a"].is_ready()
    cluster.handles["b"].is_ready()
    cluster.wait()
    cluster.nodes.exchange("a", Orders())
    cluster.handles["a"].calls[-1].set_result(NodeReport(num_slots=2))
    reported, left = cluster.show(state("b"))  # both are in one batch
    assert (reported.id, left.id) == ("a", "a")
    assert isinstance(left, NodeLeft)
    cluster.nodes.exchange("a", Orders())  # the driver answers the report before it knows
    assert len(cluster.handles["a"].orders) == 1


def test_a_node_that_is_drained_while_it_works_leaves(cluster_of):
    cluster = cluster_of(state("a"), state("b"))
    for handle in cluster.handles.values():
        handle.is_ready()
    cluster.wait()

    def report_of(node, **said):
        cluster.nodes.exchange(node, Orders())
        cluster.handles[node].calls[-1].set_result(NodeReport(num_slots=2, **said))
        [event] = cluster.wait()
        return event.report

    assert report_of("a").leaving is None
    cluster.show(state("a", is_draining=True), state("b"))
    assert report_of("a") == NodeReport(num_slots=2, leaving="Ray is taking it away")
    assert report_of("a", leaving="a notice").leaving == "a notice"
    assert report_of("b").leaving is None
    cluster.show(state("a"), state("b"))
    assert report_of("a").leaving is None


def test_a_node_that_is_being_drained_is_not_used(cluster_of):
    assert cluster_of(state("a", is_draining=True)).handles == {}


def test_a_number_of_actors_is_shared_among_nodes_and_made_up_when_one_leaves(cluster_of):
    cluster = cluster_of(state("a"), state("b"), state("c"), num_actors=4)
    assert {id_: h.num_actors for id_, h in cluster.handles.items()} == {"a": 2, "b": 1, "c": 1}
    for handle in cluster.handles.values():
        handle.is_ready()
    cluster.wait()
    cluster.show(state("a"), state("b"), state("d"))
    assert cluster.handles["d"].num_actors == 1


def test_reports_come_back_by_node(cluster_of):
    cluster = cluster_of(state("a"))
    handle = cluster.handles["a"]
    handle.is_ready()
    cluster.wait()
    cluster.nodes.exchange("a", Orders(wait_s=2.0))
    assert cluster.wait() == []
    handle.calls[0].set_result(NodeReport(num_slots=2))
    assert cluster.wait() == [NodeReported(id="a", report=NodeReport(num_slots=2))]
    assert handle.orders == [Orders(wait_s=2.0)]


def test_a_node_that_cannot_start_is_refused_in_its_own_words_and_not_asked_again(cluster_of):
    cluster = cluster_of(state("a"))
    cluster.handles["a"].starting.set_exception(RuntimeError("no bundle"))
    assert cluster.wait() == [NodeRefused(name="host", reason="in its own words: no bundle")]
    assert cluster.handles.pop("a").is_killed
    cluster.show(state("a"))
    assert cluster.handles == {}


def test_a_supervisor_that_dies_has_left_and_its_node_is_used_again_some_times(cluster_of):
    cluster = cluster_of(state("a"))
    left = NodeLeft(id="a", reason="in its own words: gone")
    reason = "lost 3 times, at last: in its own words: gone"
    for events in [left], [left], [left, NodeRefused(name="host", reason=reason)]:
        handle = cluster.handles.pop("a")
        handle.is_ready()
        assert isinstance(cluster.wait()[0], NodeJoined)
        cluster.nodes.exchange("a", Orders())
        handle.calls[0].set_exception(RuntimeError("gone"))
        assert cluster.wait() == events
        assert handle.is_killed
        cluster.show(state("a"))
    assert cluster.handles == {}


def test_a_node_that_the_cluster_has_lost_has_left(cluster_of):
    cluster = cluster_of(state("a"), state("b"))
    cluster.handles["a"].is_ready()
    cluster.wait()
    events = cluster.show()
    assert [type(event) for event in events] == [NodeLeft, NodeRefused]
    assert all(handle.is_killed for handle in cluster.handles.values())


def test_a_node_that_does_not_answer_has_left_within_ten_seconds(cluster_of, clock):
    cluster = cluster_of(state("a"))
    handle = cluster.handles["a"]
    handle.is_ready()
    cluster.wait()
    cluster.nodes.exchange("a", Orders(wait_s=2.0))
    while not (events := cluster.wait()):
        clock.now += 0.5
        assert clock.now < 10.0
    assert events == [NodeLeft(id="a", reason="it has not answered for 6 s")]
    assert clock.now > 7.0
    assert handle.is_killed
    handle.calls[0].set_result(NodeReport())  # too late
    assert cluster.wait() == []


def test_nodes_are_not_missed_where_the_driver_was_away(cluster_of, clock):
    cluster = cluster_of(state("a"))
    cluster.handles["a"].is_ready()
    cluster.wait()
    cluster.nodes.exchange("a", Orders(wait_s=2.0))
    clock.now += 3600.0
    assert cluster.wait() == []


def test_a_node_that_is_let_go_for_a_reason_is_not_asked_again(cluster_of):
    cluster = cluster_of(state("a"), state("b"))
    for handle in cluster.handles.values():
        handle.is_ready()
    cluster.wait()
    cluster.nodes.release("a", "its disk is full")
    assert cluster.handles.pop("a").is_killed
    cluster.show(state("a"), state("b"))
    assert list(cluster.handles) == ["b"]
    cluster.nodes.stop()
    assert cluster.handles["b"].is_killed


def test_the_watcher_asks_again_when_the_cluster_did_not_answer(clock, monkeypatch):
    monkeypatch.setattr("fastformers.cluster.nodes.membership._ASK_EVERY_S", 0.01)
    answers = iter([ConnectionError("away"), [state("a", free=0.0)]])

    def ask():
        answer = next(answers, [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    nodes = make_nodes(ask, clock)
    nodes.start()
    nodes.wait(30.0)
    nodes.stop()
    assert nodes.num_starting == 0


def test_a_cluster_that_never_says_which_nodes_it_has_is_not_waited_for_for_ever(
    clock, monkeypatch
):
    monkeypatch.setattr("fastformers.cluster.nodes.membership._ASK_EVERY_S", 0.01)
    asked = threading.Event()

    def ask():
        asked.set()
        raise ConnectionError("the control store\n is away")

    nodes = make_nodes(ask, clock)
    nodes.start()
    assert asked.wait(30.0)
    assert nodes.wait(0.0) == []
    clock.now += 30.0  # this process was away, for which nobody is to blame
    assert nodes.wait(0.0) == []
    for _ in range(61):
        clock.now += 1.0
        if clock.now < 90.0:
            assert nodes.wait(0.0) == []
    nodes._last_wait = clock.now
    with pytest.raises(
        InputError, match=r"which nodes it has, for 60 s \(the control store is away"
    ):
        nodes.wait(0.0)
    nodes.stop()


def test_a_supervisor_that_dies_as_it_starts_is_started_again_some_times(cluster_of, clock):
    cluster = cluster_of(state("a"))
    events = []
    for _ in range(3):
        assert events == []
        cluster.handles.pop("a").starting.set_exception(ConnectionError("gone"))
        events = cluster.wait()
        clock.now += 1.0
        cluster.show(state("a"))
    assert events == [NodeRefused(name="host", reason="in its own words: gone")]
    assert cluster.handles == {}


def after_a_loss(cluster_of):
    """A cluster whose one node was there until its supervisor died."""
    cluster = cluster_of(state("a"))
    cluster.handles["a"].is_ready()
    cluster.wait()
    cluster.nodes.exchange("a", Orders())
    cluster.handles.pop("a").calls[-1].set_exception(RuntimeError("gone"))
    cluster.wait()
    return cluster


def test_a_node_that_comes_back_is_used_with_all_of_its_cpus(cluster_of, clock):
    """Ray learns with a delay that the actors of a lost supervisor have ended."""
    cluster = after_a_loss(cluster_of)
    cluster.show(state("a", free=1.0))
    assert cluster.handles == {}
    cluster.show(state("a", free=2.0))
    assert cluster.handles["a"].num_actors == 2


def test_cpus_that_stay_away_are_not_waited_for(cluster_of, clock):
    cluster = after_a_loss(cluster_of)
    clock.now += 20.0
    cluster.show(state("a", free=1.0))
    assert cluster.handles["a"].num_actors == 1
