"""A cluster whose nodes and supervisors do what the test says."""

from concurrent.futures import Future

from fastformers.cluster.nodes.cluster_state import NodeState
from fastformers.cluster.nodes.membership import ClusterNodes
from fastformers.cluster.scheduling.nodes import Node
from fastformers.cluster.scheduling.pool import Slot


class Handle:
    """A supervisor whose calls end when the test says."""

    def __init__(self, state, name, num_actors):
        self.state, self.name, self.num_actors = state, name, num_actors
        self.starting, self.calls, self.orders, self.is_killed = Future(), [], [], False

    def start(self):
        return self.starting

    def exchange(self, orders):
        self.orders.append(orders)
        self.calls.append(Future())
        return self.calls[-1]

    def explain(self, error):
        return f"in its own words: {error}"

    def is_verdict(self, error):
        return not isinstance(error, ConnectionError)

    def kill(self):
        self.is_killed = True

    def is_ready(self, num_slots=None):
        slots = tuple(Slot(name=f"{self.name}:{n}") for n in range(num_slots or self.num_actors))
        self.starting.set_result(
            Node(
                id=self.state.id,
                name=self.name,
                instance_type=None,
                slots=slots,
                num_cores=len(slots),
                self_check="",
            )
        )


def state(id_, free=2.0, hostname="host", **changes):
    return NodeState(id=id_, hostname=hostname, num_cpus=2.0, free_cpus=free, **changes)


def make_nodes(ask, clock):
    """The nodes of a cluster that answers what `ask` returns; no supervisor is started."""
    return ClusterNodes(
        lambda state, **asked: None,
        ask,
        num_actors=None,
        cores_per_actor=1,
        oversubscribe=False,
        can_grow=True,
        clock=clock,
    )


class Cluster:
    """Nodes over a list of states that the test changes."""

    def __init__(self, clock, *states, **options):
        self.clock, self.handles = clock, {}
        self.nodes = ClusterNodes(
            self.launch,
            list,
            **{
                "num_actors": None,
                "cores_per_actor": 1,
                "oversubscribe": False,
                "can_grow": True,
                "clock": clock,
                **options,
            },
        )
        self.events = self.show(*states)

    def launch(self, state, *, name, num_actors):
        self.handles[state.id] = Handle(state, name, num_actors)
        return self.handles[state.id]

    def show(self, *states):
        """What the cluster says now, and what comes of it."""
        self.nodes._inbox.put(list(states))
        return self.nodes.wait(0.0)

    def wait(self):
        return self.nodes.wait(0.0)
