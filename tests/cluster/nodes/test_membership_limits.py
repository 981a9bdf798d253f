"""How many actors each node gets, how long it is waited for, and how it is named."""

import logging
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


def asked(cluster):
    """Actors that each node was asked for."""
    return {node: handle.num_actors for node, handle in cluster.handles.items()}


def join(cluster, *nodes):
    """Let nodes join; returns when each was first seen."""
    for node in nodes:
        cluster.handles[node].is_ready()
    return {event.node.id: event.seen for event in cluster.wait()}


def pass_time(cluster, until):
    """Wait as the driver does, a second at a time, until something happens or the time comes."""
    while cluster.clock.now < until:
        cluster.clock.now = min(until, cluster.clock.now + 1.0)
        if events := cluster.wait():
            return events
    return []


@pytest.mark.parametrize(("free", "num_actors"), [(1.9, None), (2.0, 1), (3.9, 1), (4.0, 2)])
def test_an_actor_needs_all_of_its_cores(cluster_of, free, num_actors):
    cluster = cluster_of(state("a", free=free), cores_per_actor=2)
    assert asked(cluster) == ({} if num_actors is None else {"a": num_actors})


def test_a_cluster_of_the_run_s_own_decides_itself_how_many_fit(cluster_of):
    assert asked(cluster_of(state("a"), can_grow=False)) == {"a": None}
    cluster = cluster_of(state("a"), can_grow=False, num_actors=1)
    assert asked(cluster) == {"a": 1}


def test_actors_that_share_cores_are_as_many_as_asked_for(cluster_of):
    assert asked(cluster_of(state("a"), oversubscribe=True, num_actors=7)) == {"a": 7}
    assert asked(cluster_of(state("a"), oversubscribe=True)) == {"a": None}
    one_core = state("a", free=1.0)
    assert asked(cluster_of(one_core, oversubscribe=True, cores_per_actor=2)) == {"a": None}
    assert asked(cluster_of(one_core, cores_per_actor=2)) == {}


def test_shares_are_rounded_up_until_none_is_left(cluster_of):
    states = [state(name, free=8.0) for name in "abcd"]
    assert asked(cluster_of(*states, num_actors=7)) == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert asked(cluster_of(*states, num_actors=2)) == {"a": 1, "b": 1}


def test_what_does_not_fit_on_one_node_is_asked_of_the_next(cluster_of):
    cluster = cluster_of(
        state("a", free=2.0), state("b", free=9.0), num_actors=6, cores_per_actor=2
    )
    assert asked(cluster) == {"a": 1, "b": 4}


def test_what_a_node_has_counts_and_not_what_was_asked_of_it(cluster_of):
    cluster = cluster_of(state("a", free=4.0), num_actors=4)
    cluster.handles["a"].is_ready(num_slots=1)
    cluster.wait()
    cluster.show(state("a", free=0.0), state("b", free=9.0))
    assert asked(cluster) == {"a": 4, "b": 3}


def test_what_was_asked_of_a_node_that_is_not_ready_counts(cluster_of):
    cluster = cluster_of(state("a", free=2.0), num_actors=4)
    cluster.show(state("a", free=2.0), state("b", free=9.0))
    assert asked(cluster) == {"a": 2, "b": 2}


def test_a_supervisor_that_dies_as_it_starts_had_no_cpus_to_give_back(cluster_of):
    one_core = state("a", free=1.0)
    cluster = cluster_of(one_core, can_grow=False, oversubscribe=True, cores_per_actor=2)
    cluster.handles.pop("a").starting.set_exception(ConnectionError("gone"))
    assert cluster.wait() == []
    cluster.show(one_core)
    assert asked(cluster) == {"a": None}


def test_at_most_so_many_nodes_are_used_at_once(cluster_of):
    cluster = cluster_of(state("c"), state("b"), state("a"), num_nodes=2)
    assert sorted(cluster.handles) == ["a", "b"]
    join(cluster, "a", "b")
    cluster.show(state("a"), state("b"), state("c"))
    assert sorted(cluster.handles) == ["a", "b"]
    cluster.show(state("a"), state("c"))  # b is gone
    cluster.show(state("a"), state("c"))
    assert sorted(cluster.handles) == ["a", "b", "c"]


def test_a_node_is_waited_for_until_it_is_ready_but_not_for_ever(cluster_of):
    cluster = cluster_of(state("a"))
    assert pass_time(cluster, 300.0) == []
    [event] = pass_time(cluster, 301.0)
    assert event == NodeRefused(name="host", reason="it was not ready within 300 s")
    assert cluster.handles.pop("a").is_killed
    cluster.show(state("a"))
    assert cluster.handles == {}


def test_a_node_must_answer_six_seconds_after_it_should(cluster_of):
    cluster = cluster_of(state("a"))
    join(cluster, "a")
    cluster.nodes.exchange("a", Orders(wait_s=2.0))
    assert pass_time(cluster, 8.0) == []
    assert pass_time(cluster, 8.5) == [NodeLeft(id="a", reason="it has not answered for 6 s")]


def test_a_node_that_was_asked_nothing_is_not_missed(cluster_of):
    cluster = cluster_of(state("a"))
    join(cluster, "a")
    assert pass_time(cluster, 400.0) == []


def test_a_second_of_absence_is_no_reason_for_more_time(cluster_of, clock):
    cluster = cluster_of(state("a"), state("b"))
    join(cluster, "a", "b")
    cluster.nodes.exchange("a", Orders(wait_s=2.0))
    clock.now = 5.0
    assert cluster.wait() == []  # five seconds away: due at 13
    assert pass_time(cluster, 13.0) == []
    assert pass_time(cluster, 14.0) == [NodeLeft(id="a", reason="it has not answered for 6 s")]


def test_all_that_happened_comes_at_once(cluster_of):
    cluster = cluster_of(state("a"), state("b"))
    for handle in cluster.handles.values():
        handle.is_ready()
    cluster.nodes._inbox.put([state("a"), state("b"), state("c")])
    assert [type(event) for event in cluster.wait()] == [NodeJoined, NodeJoined]
    assert sorted(cluster.handles) == ["a", "b", "c"]
    assert cluster.nodes.num_starting == 1


def test_orders_for_a_node_that_is_lost_go_nowhere(cluster_of):
    cluster = cluster_of(state("a"))
    join(cluster, "a")
    cluster.nodes.release("a", None)
    cluster.nodes.exchange("a", Orders())
    assert cluster.handles["a"].orders == []
    assert pass_time(cluster, 20.0) == []


def test_a_node_that_is_let_go_without_reason_may_be_used_again(cluster_of):
    cluster = cluster_of(state("a"))
    join(cluster, "a")
    cluster.nodes.release("a", None)
    assert cluster.handles.pop("a").is_killed
    cluster.show(state("a"))
    assert asked(cluster) == {"a": 2}


def test_a_call_of_a_supervisor_that_was_given_up_does_not_count(cluster_of):
    """Its node has another one by now."""
    cluster = cluster_of(state("a"))
    old = cluster.handles["a"]
    cluster.nodes.release("a", None)
    cluster.show(state("a"))
    old.is_ready()
    assert cluster.wait() == []
    assert cluster.nodes.num_starting == 1


def test_a_node_that_ray_takes_away_says_so_in_its_reports(cluster_of):
    cluster = cluster_of(state("a"), state("b"))
    join(cluster, "a", "b")
    reports = {"a": NodeReport(num_slots=2), "b": NodeReport(num_slots=2, leaving="in 120 s")}

    def answers():
        for node, report in reports.items():
            cluster.nodes.exchange(node, Orders())
            cluster.handles[node].calls[-1].set_result(report)
        return {event.id: event.report.leaving for event in cluster.wait()}

    assert answers() == {"a": None, "b": "in 120 s"}
    cluster.show(state("a", is_draining=True), state("b", is_draining=True))
    assert answers() == {"a": "Ray is taking it away", "b": "in 120 s"}
    cluster.show(state("a"), state("b"))
    assert answers()["a"] is None


def test_a_report_is_that_of_its_node(cluster_of):
    cluster = cluster_of(state("a"))
    join(cluster, "a")
    cluster.nodes.exchange("a", Orders())
    report = NodeReport(num_slots=1, notices=("a slow store",))
    cluster.handles["a"].calls[0].set_result(report)
    assert cluster.wait() == [NodeReported(id="a", report=report)]


def test_a_node_that_was_lost_costs_from_when_it_was(cluster_of, clock):
    cluster = cluster_of(state("a"))
    assert join(cluster, "a") == {"a": None}
    clock.now = 0.5
    cluster.nodes.exchange("a", Orders())
    cluster.handles["a"].calls[0].set_exception(RuntimeError("gone"))
    cluster.wait()
    clock.now = 1.0
    cluster.show(state("a"))
    assert join(cluster, "a") == {"a": 0.5}


@pytest.mark.parametrize(("after_s", "is_used"), [(14.9, False), (15.0, True)])
def test_cpus_of_a_lost_node_are_waited_for_15_s(cluster_of, clock, after_s, is_used):
    clock.now = 100.0
    cluster = cluster_of(state("a", free=6.0), cores_per_actor=2)
    join(cluster, "a")
    cluster.nodes.exchange("a", Orders())
    cluster.handles.pop("a").calls[0].set_exception(RuntimeError("gone"))
    cluster.wait()
    cluster.show(state("a", free=5.9))
    assert cluster.handles == {}
    clock.now += after_s
    cluster.show(state("a", free=5.9))
    assert asked(cluster) == ({"a": 2} if is_used else {})


def test_names_are_given_once_and_for_all(cluster_of):
    cluster = cluster_of(state("a"), state("b"), state("c"), state("d", hostname="host#2"))
    names = {node: handle.name for node, handle in cluster.handles.items()}
    assert names == {"a": "host", "b": "host#2", "c": "host#3", "d": "host#2#2"}
    cluster.nodes.release("b", None)
    cluster.show(*(state(node) for node in "abce"))
    assert cluster.handles["b"].name == "host#2"
    assert cluster.handles["e"].name == "host#4"


def test_a_cluster_that_says_nothing_at_all_is_waited_for_a_minute(clock):
    nodes = make_nodes(list, clock)
    nodes._watcher = threading.Thread(target=lambda: None)  # its question is never answered
    nodes.start()
    for clock.now in range(61):
        assert nodes.wait(0.0) == []
    clock.now = 60.5
    with pytest.raises(InputError, match=r"which nodes it has, for 60 s \(no answer\)"):
        nodes.wait(0.0)


def test_the_cluster_is_asked_every_two_seconds_by_a_thread_that_holds_up_nobody(clock, caplog):
    answers = iter([[state("a", free=0.0)], ConnectionError("away"), [state("b", free=0.0)]])
    waited = []

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    nodes = make_nodes(ask, clock)

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            nodes.stop()

    nodes._stopped.wait = wait
    with caplog.at_level(logging.DEBUG):
        nodes._watch_cluster()
    assert caplog.messages == ["Ray does not say which nodes it has: away"]
    assert waited == [2.0] * 3
    assert nodes._inbox.qsize() == 2
    assert nodes._watcher.daemon
