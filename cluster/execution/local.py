"""A node in this process with one worker: no Ray, no other process, nothing pinned.

    driver -> tasks -> [local] -> the worker here -> outcomes -> driver

It serves corpora that one worker scores soon enough, where Ray is not installed or not wanted. A
task runs while the driver waits for it, so no time limit can end one that hangs. This module knows
nothing of Ray.
"""

import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fastformers.cluster.execution.connect import OpenNodes
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.cluster.execution.worker import Worker, WorkerSpec
from fastformers.cluster.scheduling.local_nodes import LocalNodes
from fastformers.cluster.scheduling.nodes import Node
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import Lost, Outcome, Task, Ticket
from fastformers.cluster.settings import ActorSettings
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.cpu import read_machine


class LocalPool:
    """One slot: this process."""

    trouble = None

    def __init__(self, spec: WorkerSpec, *, num_threads: int = 1) -> None:
        """Plan a worker in this process.

        Args:
            spec: Description of its work.
            num_threads: Threads that it computes with.
        """
        self._spec = spec
        self._worker: Worker | None = None
        self._waiting: deque[Task] = deque()
        self._killed: list[Ticket] = []
        self.slots = [
            Slot(name=f"{platform.node()}:local", num_cores=num_threads, max_calls=1),
        ]

    def start(self) -> None:
        """Open the bundle."""
        [slot] = self.slots
        device = "cpu" if "cpu" in self._spec.scorings else next(iter(self._spec.scorings))
        self._worker = Worker(self._spec, slot.name, num_threads=slot.num_cores, device=device)

    def submit(self, slot: Slot, tasks: Sequence[Task]) -> None:
        """Queue tasks; they run in `wait`."""
        self._waiting.extend(tasks)

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Do the next task, however long it takes."""
        if self._killed:
            killed, self._killed = self._killed, []
            return [Lost(ticket=ticket, reason="it was ended") for ticket in killed]
        if not self._waiting:
            time.sleep(timeout_s)
            return []
        assert self._worker is not None, "start the pool before it is given tasks"
        return list(self._worker.run([self._waiting.popleft()]))

    def kill(self, ticket: Ticket) -> None:
        """Take back a task that has not begun."""
        self._waiting = deque(task for task in self._waiting if task.ticket != ticket)
        self._killed.append(ticket)

    def states(self) -> dict[Slot, str]:
        """Nothing: while this is asked, the worker does nothing."""
        return {}

    def outages(self) -> list[str]:
        """Nothing: what the worker waits for is said in this process."""
        return []

    def stop(self) -> None:
        """Close the bundle."""
        self._worker = None


@contextmanager
def connect_here(
    address: str | None, *, clock: Callable[[], float] = time.perf_counter
) -> Iterator[OpenNodes]:
    """Do the work in this process.

    Raises:
        InputError: An address of a cluster is given.
    """
    if address is not None:
        raise InputError(f"--address {address}: work in this process needs no cluster")

    def open_nodes(spec: WorkerSpec, actors: ActorSettings, *, cores_per_actor: int) -> LocalNodes:
        return open_local_nodes(spec, actors, cores_per_actor=cores_per_actor, clock=clock)

    yield open_nodes


def open_local_nodes(
    spec: WorkerSpec,
    actors: ActorSettings,
    *,
    cores_per_actor: int,
    clock: Callable[[], float] = time.perf_counter,
) -> LocalNodes:
    """A node in this process, with as many threads as an actor would have cores.

    Raises:
        InputError: More than one worker is asked for, or more threads than there are cores.
    """
    if actors.num_actors not in (None, 1):
        raise InputError(f"--num-actors {actors.num_actors}: one process has one worker")
    topology = discover_topology()
    plan_core_sets(
        topology,
        num_actors=1,
        cores_per_actor=cores_per_actor,
        oversubscribe=actors.oversubscribe,
    )
    pool = LocalPool(spec, num_threads=cores_per_actor)
    threads = format_count(cores_per_actor, "thread")
    node = Node(
        id="local",
        name=topology.hostname,
        instance_type=None,
        slots=tuple(pool.slots),
        num_cores=topology.num_usable_cores,
        self_check=f"1 worker x {threads} in this process, pinned to no core",
        machine_seen=read_machine(),
    )
    return LocalNodes({node: pool}, clock=clock, timeout_s=actors.timeout_s)
