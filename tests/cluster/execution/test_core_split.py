"""How the cores of a worker are chosen, on invented machines."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from fastformers.cluster.execution.core_split import join_all, measure_split, open_asked_nodes
from fastformers.cluster.scheduling.local_nodes import LocalNodes
from fastformers.cluster.scheduling.nodes import Node, NodeJoined, NodeLeft, NodeRefused
from fastformers.cluster.scheduling.work import MeasureRate
from fastformers.cluster.settings import ActorSettings
from fastformers.errors import InputError, ScoringError

SCORES = SimpleNamespace(predictions="somewhere", scorings={"cpu": None})


@dataclass
class Machines:
    """Opens scripted nodes on machines with these numbers of cores, and records each."""

    scripted_pool: object
    cores_of_hosts: dict[str, int]
    rate_of_split: dict[int, float]

    def __post_init__(self):
        self.pools, self.asked = [], []

    def __call__(self, spec, actors, *, cores_per_actor):
        pools = {}
        for host, cores in self.cores_of_hosts.items():
            pool = self.scripted_pool(
                actors.num_actors or cores // cores_per_actor,
                lambda job: self.rate_of_split[cores_per_actor],
            )
            pool.num_starts = 0
            node = Node(
                id=host,
                name=host,
                instance_type=None,
                slots=tuple(pool.slots),
                num_cores=cores,
                self_check="",
            )
            pools[node] = pool
        self.pools += pools.values()
        self.asked.append((actors.num_actors, cores_per_actor, actors.oversubscribe))
        return LocalNodes(pools, clock=next(iter(pools.values())).clock)


def test_the_fastest_split_is_taken_with_all_workers_at_once(scripted_pool):
    machines = Machines(scripted_pool, {"host": 4}, {1: 10.0, 2: 25.0, 4: 30.0})
    lines = []
    assert (
        measure_split(machines, SCORES, ActorSettings(), lines.append) == 2
    )  # 4 x 10, 2 x 25, 1 x 30
    assert lines == [
        "4 x 1 cores: 40 tokens/s",
        "2 x 2 cores: 50 tokens/s",
        "1 x 4 cores: 30 tokens/s",
    ]
    for pool in machines.pools:
        assert (pool.num_starts, pool.num_stops) == (1, 1)
        assert pool.hands == [[MeasureRate(seconds=2.0)]] * (2 * len(pool.slots))


def test_no_split_is_tried_that_the_smallest_machine_cannot_have(scripted_pool):
    rates = {1: 1.0, 2: 3.0}
    machines = Machines(scripted_pool, {"large": 8, "small": 2}, rates)
    assert measure_split(machines, SCORES, ActorSettings(), lambda line: None) == 2


def test_what_was_asked_for_is_planned_without_measuring(scripted_pool):
    machines = Machines(scripted_pool, {"host": 4}, {})
    actors = ActorSettings(num_actors=3, cores_per_actor=2, oversubscribe=True)
    open_asked_nodes(machines, SCORES, actors, lambda line: None)
    assert machines.asked == [(3, 2, True)]


def test_what_was_left_open_is_measured(scripted_pool):
    machines = Machines(scripted_pool, {"host": 2}, {1: 1.0, 2: 3.0})
    open_asked_nodes(machines, SCORES, ActorSettings(num_actors=1, cores_per_actor=None), print)
    assert machines.asked[-1] == (1, 2, False)


def test_preparing_has_no_split_to_measure(scripted_pool):
    machines = Machines(scripted_pool, {"host": 2}, {})
    with pytest.raises(InputError, match="--cores-per-actor auto: preparing runs no model"):
        open_asked_nodes(
            machines, SimpleNamespace(predictions=None), ActorSettings(cores_per_actor=None), print
        )


def test_where_gpus_alone_score_there_is_no_split_to_measure(scripted_pool):
    machines = Machines(scripted_pool, {"host": 2}, {})
    spec = SimpleNamespace(predictions="somewhere", scorings={"cuda": None})
    with pytest.raises(InputError, match="--cores-per-actor auto: no model runs on cores"):
        open_asked_nodes(machines, spec, ActorSettings(cores_per_actor=None), print)
    assert machines.asked == []


@pytest.mark.parametrize(
    ("fate", "reason"), [("fails", "no such device"), ("dies", r"host:0: its actor died")]
)
def test_a_worker_that_fails_over_the_measurement_ends_it_by_its_error(scripted_pool, fate, reason):
    machines = Machines(scripted_pool, {"host": 1}, {1: 1.0})

    def open_failing(spec, actors, *, cores_per_actor):
        nodes = machines(spec, actors, cores_per_actor=cores_per_actor)
        for pool in machines.pools:
            pool.decide = lambda worker, job: fate
        return nodes

    with pytest.raises(ScoringError, match=reason):
        measure_split(open_failing, SCORES, ActorSettings(), print)
    assert [pool.num_stops for pool in machines.pools] == [1]


def test_what_happens_beside_a_report_holds_up_no_measurement(scripted_pool, monkeypatch):
    """A node that is refused again and again, as one may be while others are measured."""
    wait = LocalNodes.wait
    monkeypatch.setattr(LocalNodes, "wait", lambda nodes, s: [REFUSED, *wait(nodes, s)])
    machines = Machines(scripted_pool, {"host": 2}, {1: 1.0, 2: 3.0})
    assert measure_split(machines, SCORES, ActorSettings(), lambda line: None) == 2


class ToldNodes:
    """Nodes of which each wait tells one event, with how many nodes then still start."""

    def __init__(self, *told):
        self.told, self.num_starting = list(told), 1

    def wait(self, timeout_s):
        event, self.num_starting = self.told.pop(0)
        return [event]


JOINED = NodeJoined(
    node=Node(id="a", name="a", instance_type=None, slots=(), num_cores=1, self_check="")
)
REFUSED = NodeRefused(name="host", reason="has no engine")


def test_where_no_node_can_work_each_says_why():
    other = NodeRefused(name="other", reason="has no bundle")
    with pytest.raises(InputError) as refused:
        join_all(ToldNodes((REFUSED, 1), (other, 0)))
    assert str(refused.value) == "no node can work: host: has no engine; other: has no bundle"


@pytest.mark.parametrize("told", [[(REFUSED, 1), (JOINED, 0)], [(JOINED, 1), (REFUSED, 0)]])
def test_nodes_that_can_work_are_enough(told):
    assert join_all(ToldNodes(*told)) == [JOINED.node]


def test_a_node_that_leaves_ends_the_measurement():
    left = NodeLeft(id="a", reason="its raylet died")
    with pytest.raises(ScoringError, match="left while it was measured: its raylet died"):
        join_all(ToldNodes((JOINED, 1), (left, 0)))


def test_a_node_that_starts_for_long_is_waited_for_and_a_minute_more(clock):
    class StartsInVain:
        @property
        def num_starting(self):
            return int(clock.now < 100.0)

        def wait(self, timeout_s):
            clock.now += timeout_s
            return []

    with pytest.raises(InputError, match="no node has had free CPUs for 60 s"):
        join_all(StartsInVain(), clock=clock)
    assert 159.0 <= clock.now <= 162.0


def test_nodes_that_never_come_are_not_waited_for_without_end(clock):
    class NoNodes:
        num_starting = 0

        def wait(self, timeout_s):
            assert clock.now < 1000.0
            clock.now += timeout_s
            return []

    with pytest.raises(InputError, match="no node has had free CPUs for 60 s"):
        join_all(NoNodes(), clock=clock)
