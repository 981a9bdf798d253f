"""A Ray cluster on this machine whose actors do nothing, to load the driver and the supervisors.

    driver -> orders -> [idle_actors] -> supervisors, actors that answer at once -> reports

Driver, supervisors, pools and messages are those of every run; an actor's work is a function that
is handed in. Any number of actors fits on this machine's cores, because none computes.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from fastformers.cluster.execution.topology import CoreSet
from fastformers.cluster.nodes.cluster_state import NodeState, list_own_nodes
from fastformers.cluster.nodes.membership import ClusterNodes
from fastformers.cluster.nodes.ray_pool import WAIT, ActorState, RayPool
from fastformers.cluster.nodes.start import start_ray
from fastformers.cluster.nodes.supervisor_actor import RaySupervisor
from fastformers.cluster.scheduling.nodes import Node, NodeReport, Orders
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.supervisor import Supervisor
from fastformers.cluster.scheduling.work import Finished, Task

# What an idle actor does with a task, given its name.
Answer = Callable[[Task, str], Finished]


@dataclass(frozen=True, kw_only=True)
class IdlePlan:
    """What a node of idle actors is asked to do.

    Attributes:
        node, name: Ray's identifier of the node, and its name in reports.
        num_actors: How many actors.
        answer: What they do.
    """

    node: str
    name: str
    num_actors: int
    answer: Answer


@ray.remote
class IdleActor:
    """An actor that answers at once."""

    def __init__(self, answer: Answer, core_set: CoreSet, name: str) -> None:
        """Take the function that answers."""
        self._answer, self._name = answer, name

    def run(self, tasks: Sequence[Task]) -> list[Finished]:
        """Answer."""
        return [self._answer(task, self._name) for task in tasks]

    def describe(self) -> ActorState:
        """It never does anything."""
        return ActorState(phase=WAIT)


@ray.remote
class IdleSupervisor:
    """The supervisor of idle actors."""

    def __init__(self, plan: IdlePlan) -> None:
        """Take the plan; `start` does the rest."""
        self._plan = plan

    def start(self) -> Node:
        """Start the actors."""
        plan = self._plan
        core = CoreSet(cpus=(0,), num_threads=1)
        slots = {Slot(name=f"{plan.name}:{number}"): core for number in range(plan.num_actors)}
        self._pool = RayPool(plan.answer, slots, node=plan.node, actor=IdleActor)
        self._pool.start()
        self._supervisor = Supervisor(self._pool, clock=time.perf_counter)
        return Node(
            id=plan.node,
            name=plan.name,
            instance_type=None,
            slots=tuple(slots),
            num_cores=plan.num_actors,
            self_check="",
        )

    def exchange(self, orders: Orders) -> NodeReport:
        """Take orders, work, and answer when there is something to tell."""
        return self._supervisor.serve(orders)


@contextmanager
def open_idle_nodes(answer: Answer, *, num_slots: int) -> Iterator[ClusterNodes]:
    """A node of idle actors in a Ray cluster of its own, which ends with the block.

    Args:
        answer: What the actors do; a function of a module, so that it can travel.
        num_slots: How many actors.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    start_ray(num_cpus=num_slots)

    def launch(state: NodeState, *, name: str, num_actors: int | None) -> RaySupervisor:
        plan = IdlePlan(node=state.id, name=name, num_actors=num_slots, answer=answer)
        return RaySupervisor(plan, IdleSupervisor)

    try:
        yield ClusterNodes(
            launch,
            list_own_nodes,
            num_actors=None,
            cores_per_actor=1,
            oversubscribe=True,
            can_grow=False,
        )
    finally:
        ray.shutdown()
