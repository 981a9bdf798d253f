"""The supervisor of a node, as a Ray actor without CPUs: it owns the node's scoring actors.

    driver -> orders -> [supervisor_actor] -> scoring actors of its node -> report

It finds out what the node lets the job use, starts an actor on each core set, and then does what
`Supervisor` says, one exchange after another. If it dies, its actors die with it.
"""

import time
import uuid
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastformers.cluster.execution.topology import (
    CoreSet,
    HostTopology,
    describe_core_sets,
    discover_topology,
    plan_core_sets,
)
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.nodes.admission import Admission, admit
from fastformers.cluster.nodes.cloud_metadata import detect_cloud, read_instance_type
from fastformers.cluster.nodes.metrics import RunMetrics, run_of
from fastformers.cluster.nodes.ray_pool import RayPool, say_error
from fastformers.cluster.nodes.spot_notices import SpotWatcher
from fastformers.cluster.scheduling.nodes import Node, NodeReport, Orders
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.supervisor import Supervisor
from fastformers.errors import NodeUnfitError
from fastformers.inference.cpu import read_machine


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What a node is asked to do.

    Attributes:
        node: Ray's identifier of the node.
        name: Name of the node in reports; None for its host name.
        spec: Description of the work that all actors share.
        admission: What the node must pass first; None for the driver's own machine, which made it.
        num_actors: Actors at most; None for as many as fit.
        cores_per_actor: Physical cores of each.
        oversubscribe: Whether actors may share cores.
        free_cpus: CPUs of the node that Ray lets the job have.
        timeout_s: Seconds that a task may take; see `Supervisor`.
    """

    node: str
    name: str | None
    spec: WorkerSpec
    admission: Admission | None
    num_actors: int | None
    cores_per_actor: int
    oversubscribe: bool
    free_cpus: float
    timeout_s: float | None


@ray.remote
class SupervisorActor:
    """Owns the scoring actors of its node."""

    def __init__(self, plan: NodePlan) -> None:
        """Take the plan; `start` does the rest."""
        self._plan = plan

    def __repr__(self) -> str:
        """Name in Ray's dashboard and logs, also where it never got its plan."""
        plan = getattr(self, "_plan", None)
        return f"SupervisorActor({plan and plan.name})"

    def start(self) -> Node:
        """Start the actors; they open the bundle while the driver goes on.

        Raises:
            NodeUnfitError: The node has too few cores, or does not pass the check.
        """
        plan, topology = self._plan, discover_topology()
        core_sets = plan_core_sets(
            topology,
            num_actors=self._num_actors(topology),
            cores_per_actor=plan.cores_per_actor,
            oversubscribe=plan.oversubscribe,
        )
        named = replace(topology, hostname=plan.name or topology.hostname)
        names = name_actors(named.hostname, core_sets)
        slots = {
            Slot(name=name, num_cores=core_set.num_threads): core_set
            for name, core_set in zip(names, core_sets, strict=True)
        }
        spec = plan.spec
        if plan.admission is not None:
            spec = replace(spec, bundle=admit(plan.admission, node=plan.node))
        share = plan.free_cpus / sum(core_set.num_threads for core_set in core_sets)
        self._pool = RayPool(spec, slots, node=plan.node, cpu_share=min(1.0, share))
        self._pool.start()
        watcher = SpotWatcher(detect_cloud())
        watcher.start()
        self._metrics = RunMetrics(run_of(plan.spec), node=named.hostname)
        self._supervisor = Supervisor(
            self._pool,
            clock=time.perf_counter,
            timeout_s=plan.timeout_s,
            leaving=watcher.leaving,
        )
        return Node(
            id=plan.node,
            name=named.hostname,
            instance_type=read_instance_type(),
            slots=tuple(slots),
            num_cores=topology.num_usable_cores,
            self_check=describe_core_sets(core_sets, topology),
            machine_seen=read_machine(),
        )

    def exchange(self, orders: Orders) -> NodeReport:
        """Take orders, work, and answer when there is something to tell."""
        report = self._supervisor.serve(orders)
        self._metrics.add_report(report, num_in_hand=self._supervisor.num_in_hand)
        return report

    def _num_actors(self, topology: HostTopology) -> int | None:
        plan = self._plan
        fit = topology.num_usable_cores // plan.cores_per_actor
        if plan.oversubscribe or (plan.num_actors is None and fit):
            return plan.num_actors
        if not fit:
            raise NodeUnfitError(
                f"has {topology.num_usable_cores} cores that may be used, an actor needs "
                f"{plan.cores_per_actor} (--cores-per-actor)"
            )
        assert plan.num_actors is not None
        return min(plan.num_actors, fit)


def name_actors(hostname: str, core_sets: list[CoreSet]) -> list[str]:
    """Host and CPUs of each actor, and a number where actors share them."""
    names: list[str] = []
    taken: Counter[tuple[int, ...]] = Counter()
    for core_set in core_sets:
        taken[core_set.cpus] += 1
        number = taken[core_set.cpus]
        name = f"{hostname}:{','.join(map(str, core_set.cpus))}"
        names.append(f"{name}#{number}" if number > 1 else name)
    return names


class RaySupervisor:
    """A supervisor on a node of the connected Ray cluster."""

    def __init__(self, plan: Any, actor: Any = SupervisorActor) -> None:
        """Start it.

        Args:
            plan: What the node is asked to do.
            actor: Class of the supervisor, which is made from its plan.
        """
        self._actor = actor.options(
            name=f"supervisor {plan.name} {uuid.uuid4().hex[:6]}",
            num_cpus=0,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(plan.node, soft=False),
        ).remote(plan)

    def start(self) -> "Future[Node]":
        """Ask it to get ready."""
        return self._actor.start.remote().future()  # type: ignore[no-any-return]

    def exchange(self, orders: Orders) -> "Future[NodeReport]":
        """Send it orders."""
        return self._actor.exchange.remote(orders).future()  # type: ignore[no-any-return]

    def explain(self, error: BaseException) -> str:
        """What an error of one of its calls says, in one line."""
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            return f"its supervisor cannot be reached ({type(error).__name__})"
        return say_error(error)

    def is_verdict(self, error: BaseException) -> bool:
        """Whether an error says that the node cannot work, and not just that it died."""
        if isinstance(error, OutOfMemoryError):  # the memory may be free again soon
            return False
        return not isinstance(error, RayActorError) or bool(error.actor_init_failed)

    def kill(self) -> None:
        """End it, and its actors with it."""
        ray.kill(self._actor)
