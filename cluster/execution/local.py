"""A pool of one worker in this process: no Ray, no other process, nothing pinned.

    driver -> jobs -> [local] -> the worker here -> outcomes -> driver

It serves corpora that one worker scores soon enough, where Ray is not installed or not wanted. A
job runs while the driver waits for it, so no time limit can end a job that hangs. This module knows
nothing of Ray.
"""

import platform
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from cluster.execution.connect import PlanPool
from cluster.execution.topology import discover_topology, plan_core_sets
from cluster.execution.worker import Worker, WorkerSpec
from cluster.scheduling.pool import Failed, Finished, Lost, Outcome, Slot, Ticket
from cluster.scheduling.work import Job
from fastformers.errors import InputError
from fastformers.formatting import format_count


class LocalPool:
    """One slot: this process."""

    def __init__(self, spec: WorkerSpec, *, num_threads: int = 1, num_idle_cores: int = 0) -> None:
        """Plan a worker in this process.

        Args:
            spec: Description of its work.
            num_threads: Threads that it computes with.
            num_idle_cores: Physical cores of this machine that it leaves idle.
        """
        self._spec = spec
        self._worker: Worker | None = None
        self._waiting: deque[tuple[Ticket, Job]] = deque()
        self._killed: list[Ticket] = []
        self._numbers = count()
        host = platform.node()
        self.slots = [
            Slot(name=f"{host}:local", host=host, num_cores=num_threads, max_jobs=1),
        ]
        threads = format_count(num_threads, "thread")
        self.self_check = [f"1 worker x {threads} in this process, pinned to no core"]
        self.num_idle_cores = num_idle_cores

    def start(self) -> None:
        """Open the bundle."""
        [slot] = self.slots
        self._worker = Worker(self._spec, slot.name, num_threads=slot.num_cores)

    def submit(self, slot: Slot, job: Job) -> Ticket:
        """Queue a job; it runs in `wait`."""
        ticket = Ticket(next(self._numbers))
        self._waiting.append((ticket, job))
        return ticket

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Do the next job, however long it takes."""
        if self._killed:
            killed, self._killed = self._killed, []
            return [Lost(ticket=ticket, reason="it was ended") for ticket in killed]
        if not self._waiting:
            return []
        ticket, job = self._waiting.popleft()
        assert self._worker is not None, "start the pool before it is given jobs"
        try:
            return [Finished(ticket=ticket, result=self._worker.run(job))]
        except Exception as error:  # whatever it is, the driver decides what becomes of the run
            return [Failed(ticket=ticket, error=error)]

    def kill(self, ticket: Ticket) -> None:
        """Take back a job that has not begun."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != ticket)
        self._killed.append(ticket)

    def stop(self) -> None:
        """Close the bundle."""
        self._worker = None


@contextmanager
def connect_here(address: str | None) -> Iterator[PlanPool]:
    """Do the work in this process.

    Raises:
        InputError: An address of a cluster is given.
    """
    if address is not None:
        raise InputError(f"--address {address}: work in this process needs no cluster")
    yield plan_local_pool


def plan_local_pool(
    spec: WorkerSpec, *, num_actors: int | None, cores_per_actor: int, oversubscribe: bool
) -> LocalPool:
    """Plan a worker in this process, with as many threads as an actor would have cores.

    Raises:
        InputError: More than one worker is asked for, or more threads than there are cores.
    """
    if num_actors not in (None, 1):
        raise InputError(f"--num-actors {num_actors}: one process has one worker")
    topology = discover_topology()
    plan_core_sets(
        topology, num_actors=1, cores_per_actor=cores_per_actor, oversubscribe=oversubscribe
    )
    num_idle_cores = max(0, topology.num_usable_cores - cores_per_actor)
    return LocalPool(spec, num_threads=cores_per_actor, num_idle_cores=num_idle_cores)
