import pytest

from fastformers.cluster.scheduling.local_nodes import LocalNodes
from fastformers.cluster.scheduling.nodes import NodeJoined, NodeReported, Orders, running
from fastformers.cluster.scheduling.work import Lost, Task, Ticket
from tests.cluster.scheduling.jobs import make_lease, make_node


def orders_of(*numbers, **changes):
    give = tuple(Task(ticket=Ticket(number), job=make_lease(number)) for number in numbers)
    return Orders(**{"give": give, "answer_below": 0, "wait_s": 50.0, **changes})


@pytest.fixture
def started(scripted_pool, clock):
    """Starts nodes with one slot each; returns them and their pools."""

    def start(num_nodes, **options):
        pools = [scripted_pool(1) for _ in range(num_nodes)]
        nodes = [make_node(number, pool.slots) for number, pool in enumerate(pools)]
        local = LocalNodes(dict(zip(nodes, pools, strict=True)), clock=clock, **options)
        local.start()
        assert local.wait(0.0) == [NodeJoined(node=node) for node in nodes]
        return local, pools

    return start


def tickets(events):
    return {event.id: [e.outcome.ticket for e in event.report.ended] for event in events}


def test_a_pool_runs_from_start_to_stop(scripted_pool, clock):
    pools = [scripted_pool(1), scripted_pool(1)]
    nodes = [make_node(number, pool.slots) for number, pool in enumerate(pools)]
    before = [pool.num_starts for pool in pools]
    local = LocalNodes(dict(zip(nodes, pools, strict=True)), clock=clock)
    with running(local):
        assert [pool.num_starts for pool in pools] == [number + 1 for number in before]
        assert [pool.num_stops for pool in pools] == [0, 0]
    assert [pool.num_stops for pool in pools] == [1, 1]
    assert (local.num_starting, local.can_grow) == (0, False)


def test_a_node_answers_what_it_was_asked_and_no_more(started):
    local, _ = started(1)
    local.exchange("node0", orders_of(0, 1, answer_below=2))
    assert tickets(local.wait(100.0)) == {"node0": [0]}
    assert local.wait(0.0) == []
    local.exchange("node0", Orders(wait_s=50.0, answer_below=1))
    assert tickets(local.wait(100.0)) == {"node0": [1]}


def test_nodes_that_work_at_once_answer_as_they_are_done(started, clock):
    local, pools = started(2)
    pools[0].decide = lambda worker, job: "works"
    local.exchange("node0", orders_of(0))
    local.exchange("node1", orders_of(1, answer_below=1))
    assert tickets(local.wait(100.0)) == {"node1": [1]}
    assert clock.now < 2.0
    [event] = local.wait(100.0)
    assert (event.id, event.report.ended) == ("node0", ())
    assert 50.0 <= clock.now < 51.0


def test_nodes_that_are_due_together_answer_together(started, clock):
    local, _ = started(2)
    for number in (0, 1):
        local.exchange(f"node{number}", Orders(wait_s=0.0))
    assert [event.id for event in local.wait(1.0)] == ["node0", "node1"]
    assert clock.now == 0.0


@pytest.mark.parametrize("num_nodes", [1, 2])
def test_it_waits_no_longer_than_it_may(started, clock, num_nodes):
    local, pools = started(num_nodes)
    for number, pool in enumerate(pools):
        pool.decide = lambda worker, job: "works"
        local.exchange(f"node{number}", orders_of(number))
    assert local.wait(3.0) == []
    assert clock.now == pytest.approx(3.0, abs=0.002)
    assert local.wait(0.0) == []


def test_time_limits_are_those_of_the_supervisors(started, clock):
    local, pools = started(1, timeout_s=5.0)
    pools[0].decide = lambda worker, job: "works"
    local.exchange("node0", orders_of(0))
    [event] = local.wait(100.0)
    assert isinstance(event, NodeReported)
    assert isinstance(event.report.ended[0].outcome, Lost)
    assert 5.0 < clock.now < 7.0


def test_a_node_that_is_let_go_is_stopped_once_and_the_others_go_on(started):
    local, pools = started(2)
    for number in (0, 1):
        local.exchange(f"node{number}", orders_of(number, answer_below=1))
    local.release("node0", "its disk is full")
    assert [pool.num_stops for pool in pools] == [1, 0]
    assert tickets(local.wait(100.0)) == {"node1": [1]}
    local.release("node1", None)  # with no exchange under way
    local.stop()
    assert [pool.num_stops for pool in pools] == [1, 1]
    assert local.wait(0.0) == []
