"""The actors of a run: one for each core set, on whatever nodes Ray has.

    topology -> core sets -> [ray_pool] -> actors <- leases <- driver

Connects to Ray, asks every node what it lets this job use, plans core sets there, and starts an
actor on each. A dead actor is replaced on the same cores; a node that left takes its slots along.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.execution.topology import (
    CoreSet,
    HostTopology,
    describe_core_sets,
    discover_topology,
    plan_core_sets,
)
from cluster.execution.worker import Worker, WorkerSpec
from fastformers.errors import InputError

JOBS_IN_HAND = 2  # one that computes, one that is read or written


@ray.remote
class ScoringActor(Worker):
    """A Worker that Ray runs."""


logger = logging.getLogger(__name__)

# What Ray's object store must at least have; only receipts pass through it.
_OBJECT_STORE_BYTES = 100 * 2**20
_MAX_FAILED_STARTS = 3


@dataclass
class Slot:
    """A place for one actor.

    Attributes:
        name: Host and cores, as shown in reports.
        node_id: Ray's id of the node.
        core_set: The cores that the actor owns.
        actor: Its handle.
        failed_starts: Actors in a row that died here as they started.
    """

    name: str
    node_id: str
    core_set: CoreSet
    actor: Any = None
    failed_starts: int = 0


@dataclass
class ActorPool:
    """Slots with running actors.

    Attributes:
        work: What the actors do.
        slots: One for each actor.
        self_check: Which actors run on which cores.
        num_idle_cores: Physical cores of the actors' nodes that no actor owns.
    """

    work: WorkerSpec
    slots: list[Slot]
    self_check: list[str] = field(default_factory=list)
    num_idle_cores: int = 0

    def start(self) -> None:
        """Start an actor in every slot."""
        for slot in self.slots:
            self._start(slot)

    def replace(self, slot: Slot, *, as_it_started: bool) -> None:
        """Start a new actor where one died; drop the slot if its node has left the cluster.

        Args:
            slot: Where it died.
            as_it_started: It never got to work.

        Raises:
            InputError: Actors keep dying there as they start.
        """
        ray.kill(slot.actor)
        slot.failed_starts = slot.failed_starts + 1 if as_it_started else 0
        if slot.failed_starts > _MAX_FAILED_STARTS:
            raise InputError(
                f"actors on {slot.name} died {slot.failed_starts} times in a row as they started; "
                "see Ray's log directory, and check the node's memory and its installation"
            )
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if slot.node_id not in alive:
            self.slots.remove(slot)
            slot.actor = None
            return
        self._start(slot)

    def stop(self) -> None:
        """End all actors."""
        for slot in self.slots:
            if slot.actor is not None:
                ray.kill(slot.actor)

    def _start(self, slot: Slot) -> None:
        slot.actor = ScoringActor.options(  # type: ignore[attr-defined]
            num_cpus=slot.core_set.num_threads,
            max_concurrency=JOBS_IN_HAND,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(slot.node_id, soft=False),
        ).remote(self.work, slot.core_set, slot.name)


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Use the Ray cluster at `address`, the one RAY_ADDRESS names, or a new one on this machine.

    Raises:
        InputError: No cluster answers there.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        _check_answers(address)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=max(1, len(discover_topology().cores)),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
    except (AuthenticationError, ConnectionError) as error:
        raise InputError(
            f"--address {address}: the cluster does not let us in ({error}); if it wants a token, "
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the token's file"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def plan_pool(
    work: WorkerSpec, *, num_actors: int | None, cores_per_actor: int, oversubscribe: bool
) -> ActorPool:
    """Plan core sets on every node of the connected cluster.

    Args:
        work: What the actors do.
        num_actors: Over all nodes; by default as many as fit.
        cores_per_actor: Physical cores of each.
        oversubscribe: Allow actors to share cores.

    Raises:
        InputError: The nodes do not have that many cores, or they are busy with other work.
    """
    slots: list[Slot] = []
    self_check: list[str] = []
    num_idle_cores = 0
    hosts = _discover_hosts()
    num_nodes_left = len(hosts)
    for node_id, topology in hosts:
        wanted = None
        if num_actors is not None:
            fair = -(-(num_actors - len(slots)) // num_nodes_left)
            fit = max(1, topology.num_usable_cores // cores_per_actor)
            wanted = fair if num_nodes_left == 1 or oversubscribe else min(fair, fit)
        num_nodes_left -= 1
        if wanted == 0:
            continue
        core_sets = plan_core_sets(
            topology,
            num_actors=wanted,
            cores_per_actor=cores_per_actor,
            oversubscribe=oversubscribe,
        )
        self_check.append(describe_core_sets(core_sets, topology))
        num_owned = sum(core_set.num_threads for core_set in core_sets)
        num_idle_cores += max(0, topology.num_usable_cores - num_owned)
        for core_set, name in zip(core_sets, _name_actors(topology, core_sets), strict=True):
            slots.append(Slot(name=name, node_id=node_id, core_set=core_set))
    _check_free(slots, hosts)
    return ActorPool(work=work, slots=slots, self_check=self_check, num_idle_cores=num_idle_cores)


def _name_actors(topology: HostTopology, core_sets: list[CoreSet]) -> list[str]:
    """Host and CPUs of each actor, and a number where actors share them."""
    names: list[str] = []
    for core_set in core_sets:
        name = f"{topology.hostname}:{','.join(map(str, core_set.cpus))}"
        taken = sum(other.partition("#")[0] == name for other in names)
        names.append(f"{name}#{taken + 1}" if taken else name)
    return names


def _check_answers(address: str) -> None:
    """Refuse an address at once where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():  # "auto", or a name that Ray resolves
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({error.strerror or error}); start "
            "one with ray start --head, or leave --address out"
        ) from error


def _discover_hosts() -> list[tuple[str, HostTopology]]:
    node_ids = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
    discover = ray.remote(num_cpus=0)(discover_topology)
    asked = [
        discover.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote()
        for node_id in node_ids
    ]
    return list(zip(node_ids, ray.get(asked), strict=True))


def _check_free(slots: list[Slot], hosts: list[tuple[str, HostTopology]]) -> None:
    """Refuse to wait for CPUs that other work on the cluster holds."""
    for node_id, topology in hosts:
        needed = sum(slot.core_set.num_threads for slot in slots if slot.node_id == node_id)
        free = ray._private.state.available_resources_per_node()[node_id].get("CPU", 0)
        if needed > free:
            raise InputError(
                f"node {topology.hostname} has {free:g} free CPUs in Ray, {needed} are needed; "
                "lower --num-actors, or wait for the other work on the cluster"
            )
