"""The supervisor of a node, as a Ray actor without CPUs: it owns the node's scoring actors.

    driver -> orders -> [supervisor_actor] -> scoring actors of its node -> report

It finds out what the node lets the job use, starts an actor on each core set, and then does what
`Supervisor` says, one exchange after another. If it dies, its actors die with it.
"""

import time
import uuid
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastformers.cluster.devices.cards import discover_cards
from fastformers.cluster.execution.topology import (
    CardCores,
    CoreSet,
    HostTopology,
    describe_card_cores,
    describe_core_sets,
    discover_topology,
    plan_card_cores,
    plan_core_sets,
    without_card_cores,
)
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.nodes.admission import Admission, admit
from fastformers.cluster.nodes.cloud_metadata import detect_cloud, read_instance_type
from fastformers.cluster.nodes.cluster_state import KindsOfActors, NodeState
from fastformers.cluster.nodes.metrics import RunMetrics, run_of
from fastformers.cluster.nodes.ray_pool import GpuShare, RayPool, say_error
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
        state: What the cluster says of it.
        name: Name of the node in reports; None for its host name.
        spec: Description of the work that all actors share.
        admission: What the node must pass first; None for the driver's own machine, which made it.
        num_actors: Actors at most; None for as many as fit.
        kinds: Which kinds of actors there are, and what each owns.
        timeout_s: Seconds that a task may take; see `Supervisor`.
    """

    state: NodeState
    name: str | None
    spec: WorkerSpec
    admission: Admission | None
    num_actors: int | None
    kinds: KindsOfActors
    timeout_s: float | None

    @property
    def node(self) -> str:
        """Ray's identifier of the machine."""
        return self.state.machine_id


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
        layout = plan_layout(plan, topology)
        spec, core_sets = plan.spec, layout.core_set_of.values()
        if plan.admission is not None:
            num_gpus = layout.gpus.per_actor if layout.gpus else 0
            spec = admit(plan.admission, spec, node=plan.node, num_gpus=num_gpus)
        share = plan.state.free_cpus / sum(core_set.num_threads for core_set in core_sets)
        self._pool = RayPool(
            spec,
            layout.core_set_of,
            node=plan.node,
            cpu_share=min(1.0, share),
            gpus=layout.gpus,
        )
        self._pool.start()
        watcher = SpotWatcher(detect_cloud())
        watcher.start()
        self._metrics = RunMetrics(run_of(plan.spec), node=layout.name)
        self._supervisor = Supervisor(
            self._pool,
            clock=time.perf_counter,
            timeout_s=plan.timeout_s,
            extra=spec.extra,
            leaving=watcher.leaving,
        )
        return Node(
            id=plan.state.id,
            name=layout.name,
            instance_type=read_instance_type(),
            slots=tuple(layout.core_set_of),
            num_cores=layout.num_cores,
            self_check=layout.self_check,
            device=plan.state.device,
            scores=plan.state.scores,
            machine=plan.state.machine,
            machine_seen=read_machine(),
        )

    def exchange(self, orders: Orders) -> NodeReport:
        """Take orders, work, and answer when there is something to tell."""
        report = self._supervisor.serve(orders)
        self._metrics.add_report(report, num_in_hand=self._supervisor.num_in_hand)
        return report


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The actors of a node, and what they own.

    Attributes:
        name: Name of the node.
        core_set_of: Cores of the actor of each slot.
        num_cores: Physical cores that the node has.
        self_check: Line about it, for people.
        gpus: The GPUs that they are on, or None.
    """

    name: str
    core_set_of: dict[Slot, CoreSet]
    num_cores: int
    self_check: str
    gpus: GpuShare | None = None


def plan_layout(plan: NodePlan, topology: HostTopology, root: Path = Path("/")) -> Layout:
    """Decide which actor owns what.

    Args:
        plan: What the node is asked to do.
        topology: Its machine.
        root: Directory with the kernel's files about GPUs; a fake tree in tests.

    Raises:
        NodeUnfitError: The node has too few cores.
    """
    kinds, num_gpus = plan.kinds, plan.state.num_gpus
    cards: tuple[CardCores, ...] = ()
    if kinds.use_gpus and num_gpus:
        cards = plan_card_cores(
            topology,
            discover_cards(num_gpus, root),
            cores_per_card=kinds.cores_per_gpu(plan.state),
            num_threads=kinds.cores_per_actor,
        )
    if plan.state.device == "cuda":
        return _plan_on_gpus(plan, topology, cards)
    if not kinds.oversubscribe:
        topology = without_card_cores(topology, cards)
    core_sets = plan_core_sets(
        topology,
        num_actors=_num_on_cores(plan, topology),
        cores_per_actor=kinds.cores_per_actor,
        oversubscribe=kinds.oversubscribe,
    )
    name = plan.name or topology.hostname
    names = name_actors(name, core_sets)
    helps = "" if plan.state.scores else ", which tokenize for GPUs"
    return Layout(
        name=name,
        core_set_of={
            Slot(name=actor, num_cores=core_set.num_threads): core_set
            for actor, core_set in zip(names, core_sets, strict=True)
        },
        num_cores=topology.num_usable_cores,
        self_check=describe_core_sets(core_sets, topology) + helps,
    )


def _plan_on_gpus(plan: NodePlan, topology: HostTopology, cards: tuple[CardCores, ...]) -> Layout:
    assert plan.state.room is not None
    num_actors = min(plan.num_actors or plan.state.room, plan.state.room)
    name = plan.name or f"{topology.hostname}:cuda"
    # Ray says later which of its GPUs an actor has; these are the cores where that is not known.
    core_sets = [cards[number % len(cards)].core_set for number in range(num_actors)]
    return Layout(
        name=name,
        core_set_of={
            Slot(name=f"{name}#{number}", num_cores=core_set.num_threads): core_set
            for number, core_set in enumerate(core_sets, start=1)
        },
        num_cores=len(topology.cores)
        - len(without_card_cores(topology, cards[: plan.state.free_gpus]).cores),
        self_check=describe_card_cores(cards, topology, num_actors=num_actors),
        gpus=GpuShare(cards=cards, actors_per_gpu=plan.kinds.actors_per_gpu),
    )


def _num_on_cores(plan: NodePlan, topology: HostTopology) -> int | None:
    """Actors on the cores of a node; None for as many as fit.

    Raises:
        NodeUnfitError: There are too few cores for one.
    """
    cores_per_actor = plan.kinds.cores_per_actor
    fit = topology.num_usable_cores // cores_per_actor
    if plan.kinds.oversubscribe or (plan.num_actors is None and fit):
        return plan.num_actors
    if not fit:
        raise NodeUnfitError(
            f"has {topology.num_usable_cores} cores that may be used, an actor needs "
            f"{cores_per_actor} (--cores-per-actor)"
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
