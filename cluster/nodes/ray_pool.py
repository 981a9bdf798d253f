"""The pool on Ray: one actor for each core set, on all nodes that the cluster has.

    topology -> core sets -> [ray_pool] -> actors <- jobs <- driver

It connects to Ray, asks every node what it lets this job use, plans core sets there, and starts an
actor on each. A dead actor is replaced on the same cores; the slots of a node that left disappear.
This is the only module that knows Ray: its errors leave here as outcomes. It knows nothing of the
queue, shards or prices.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import pyarrow as pa
import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import (
    ActorUnschedulableError,
    AuthenticationError,
    RayActorError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.execution.connect import PlanPool
from cluster.execution.topology import (
    CoreSet,
    HostTopology,
    apply_core_set,
    describe_core_sets,
    discover_topology,
    plan_core_sets,
)
from cluster.execution.worker import Worker, WorkerSpec
from cluster.scheduling.pool import Failed, Finished, Lost, Outcome, Slot, Ticket
from cluster.scheduling.work import JOBS_IN_HAND, Job
from fastformers.errors import InputError

# Size of Ray's object store, near the least that Ray allows; only receipts pass through it.
_OBJECT_STORE_BYTES = 100 * 2**20
_MAX_FAILED_STARTS = 3
# Ray learns with a delay that an actor has ended and that its CPUs are free.
_FREE_WITHIN_S, _FREE_POLL_S = 10.0, 0.1


@ray.remote
class ScoringActor(Worker):
    """A worker that owns the cores it runs on."""

    def __init__(self, spec: WorkerSpec, core_set: CoreSet, name: str) -> None:
        """Pin this process before anything starts threads, then open the bundle."""
        apply_core_set(core_set)
        pa.set_cpu_count(core_set.num_threads)
        pa.set_io_thread_count(1)
        super().__init__(spec, name, num_threads=core_set.num_threads)


@dataclass
class _Seat:
    """A slot with its actor, and how many actors in a row died in it as they started."""

    slot: Slot
    core_set: CoreSet
    actor: Any = None
    failed_starts: int = 0


@dataclass(frozen=True)
class _Call:
    """A job that an actor was given; the seat may have another actor by now."""

    ticket: Ticket
    seat: _Seat
    actor: Any


class RayPool:
    """Slots with running actors."""

    def __init__(
        self,
        spec: WorkerSpec,
        core_set_of: dict[Slot, CoreSet],
        *,
        self_check: list[str],
        num_idle_cores: int,
    ) -> None:
        """Plan actors.

        Args:
            spec: Description of the work that all actors share.
            core_set_of: Cores of each slot's actor; the slot's host is Ray's id of its node.
            self_check: Lines that say which actors run on which cores.
            num_idle_cores: Physical cores of the actors' nodes that no actor owns.
        """
        self._spec = spec
        self._seats = {slot: _Seat(slot, core_set) for slot, core_set in core_set_of.items()}
        self._calls: dict[Any, _Call] = {}
        self._numbers = count()
        self.self_check = self_check
        self.num_idle_cores = num_idle_cores

    @property
    def slots(self) -> list[Slot]:
        """Slots where actors run."""
        return list(self._seats)

    def start(self) -> None:
        """Start an actor in every slot."""
        for seat in self._seats.values():
            self._start(seat)

    def submit(self, slot: Slot, job: Job) -> Ticket:
        """Send a job to the slot's actor."""
        seat = self._seats[slot]
        ticket = Ticket(next(self._numbers))
        self._calls[seat.actor.run.remote(job)] = _Call(ticket, seat, seat.actor)
        return ticket

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcome of a job, as soon as one has ended; an empty list after `timeout_s`.

        Raises:
            InputError: Actors die repeatedly as they start.
        """
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        return [self._conclude(reference, self._calls.pop(reference)) for reference in ready]

    def kill(self, ticket: Ticket) -> None:
        """End the actor that has this job."""
        for call in self._calls.values():
            if call.ticket == ticket:
                ray.kill(call.actor)

    def stop(self) -> None:
        """End all actors."""
        for seat in self._seats.values():
            if seat.actor is not None:
                ray.kill(seat.actor)

    def _conclude(self, reference: Any, call: _Call) -> Outcome:
        try:
            result = ray.get(reference)
        except (RayActorError, ActorUnschedulableError) as error:
            if call.actor is call.seat.actor:  # not yet replaced for its other job
                as_it_started = isinstance(error, RayActorError) and error.actor_init_failed
                self._replace(call.seat, as_it_started=as_it_started)
            return Lost(ticket=call.ticket, reason=f"its actor died ({type(error).__name__})")
        except RayTaskError as error:
            return Failed(ticket=call.ticket, error=error.cause or error)
        call.seat.failed_starts = 0
        return Finished(ticket=call.ticket, result=result)

    def _replace(self, seat: _Seat, *, as_it_started: bool) -> None:
        """Start a new actor where one died; drop the slot if its node has left the cluster."""
        ray.kill(seat.actor)
        seat.failed_starts = seat.failed_starts + 1 if as_it_started else 0
        if seat.failed_starts > _MAX_FAILED_STARTS:
            raise InputError(
                f"actors on {seat.slot.name} died {seat.failed_starts} times in a row as they "
                "started; see Ray's log directory, and check the node's memory and its installation"
            )
        if seat.slot.host not in {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
            del self._seats[seat.slot]
            seat.actor = None
            return
        self._start(seat)

    def _start(self, seat: _Seat) -> None:
        seat.actor = ScoringActor.options(  # type: ignore[attr-defined]
            num_cpus=seat.core_set.num_threads,
            max_concurrency=JOBS_IN_HAND,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.slot.host, soft=False),
        ).remote(self._spec, seat.core_set, seat.slot.name)


@contextmanager
def connect(address: str | None) -> Iterator[PlanPool]:
    """Use the Ray cluster at `address`, the one RAY_ADDRESS names, or a new one on this machine.

    Raises:
        InputError: No cluster answers there, or it refuses the connection.
    """
    if ray.is_initialized():
        yield plan_ray_pool
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
            f"--address {address}: the cluster refuses the connection ({error}); if it wants a "
            "token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the token's file"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: {error}") from error
    try:
        yield plan_ray_pool
    finally:
        ray.shutdown()


def plan_ray_pool(
    spec: WorkerSpec, *, num_actors: int | None, cores_per_actor: int, oversubscribe: bool
) -> RayPool:
    """Plan core sets on every node of the connected cluster.

    Raises:
        InputError: The nodes do not have that many cores, or they are busy with other work.
    """
    core_set_of: dict[Slot, CoreSet] = {}
    num_needed: dict[str, int] = {}
    self_check: list[str] = []
    num_idle_cores = 0
    hosts = _discover_hosts()
    num_nodes_left = len(hosts)
    for node_id, topology in hosts:
        wanted = None
        if num_actors is not None:
            fair = -(-(num_actors - len(core_set_of)) // num_nodes_left)
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
            slot = Slot(
                name=name, host=node_id, num_cores=core_set.num_threads, max_jobs=JOBS_IN_HAND
            )
            core_set_of[slot] = core_set
        num_needed[node_id] = num_owned
    _check_free(num_needed, hosts)
    return RayPool(spec, core_set_of, self_check=self_check, num_idle_cores=num_idle_cores)


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


def _check_free(num_needed: dict[str, int], hosts: list[tuple[str, HostTopology]]) -> None:
    """Refuse, instead of waiting for CPUs that other work on the cluster holds.

    Args:
        num_needed: CPUs that the plan takes, by Ray's id of the node.
        hosts: Nodes of the cluster.
    """
    deadline = time.monotonic() + _FREE_WITHIN_S
    while True:
        free = _free_cpus()
        busy = [
            (topology.hostname, free.get(node_id, 0.0), num_needed[node_id])
            for node_id, topology in hosts
            if num_needed.get(node_id, 0) > free.get(node_id, 0.0)
        ]
        if not busy:
            return
        if time.monotonic() > deadline:
            hostname, num_free, num_wanted = busy[0]
            raise InputError(
                f"node {hostname} has {num_free:g} free CPUs in Ray, {num_wanted} are needed; "
                "lower --num-actors, or wait for the other work on the cluster"
            )
        time.sleep(_FREE_POLL_S)


def _free_cpus() -> dict[str, float]:
    """CPUs that are free in Ray by node, according to the cluster's control store."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    return {
        node.node_id: float(node.available_resources().get("CPU", 0.0))
        for node in (*status.active_nodes, *status.idle_nodes)
    }
