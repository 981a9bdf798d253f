"""A pool whose jobs end as the test says; no Ray, no bundle, no time that passes by itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

import pytest

from cluster.execution.pool import Failed, Finished, Lost, Slot, Ticket
from cluster.execution.worker import JOBS_IN_HAND


class Clock:
    """A clock that shows the time it was set to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@dataclass
class ScriptedWorker:
    """The worker that a slot has at the moment, and its jobs."""

    jobs: dict[Ticket, object] = field(default_factory=dict)
    is_killed: bool = False


Fate = Literal["done", "dies", "fails", "works"]


class ScriptedPool:
    """A pool in which one job ends each second: the first whose fate is not to go on working.

    Attributes:
        decide: Function that gives the fate of a worker's job; it is called again while it works.
        result_of: Function that gives the result of a job that is done.
        hands: Jobs that a worker held, each time it was given one.
        num_replaced: How many times a dead worker was replaced.
        has_left: Slots whose machine leaves when their worker dies.
    """

    def __init__(self, hosts: list[str], result_of: Callable[[object], object], clock: Clock):
        self.slots = [
            Slot(name=f"{host}:{number}", host=host, num_cores=1, max_jobs=JOBS_IN_HAND)
            for number, host in enumerate(hosts)
        ]
        self.self_check, self.num_idle_cores = ["scripted"], 3
        self.decide = lambda worker, job: "done"
        self.result_of, self.clock = result_of, clock
        self.workers, self.hands, self.num_replaced, self.killed = {}, [], 0, []
        self.has_left, self.num_starts, self.num_stops = set(), 0, 0
        self._slot_of, self._numbers = {}, count()

    def start(self):
        self.num_starts += 1
        self.workers = {slot: ScriptedWorker() for slot in self.slots}

    def submit(self, slot, job):
        ticket = Ticket(next(self._numbers))
        worker = self.workers[slot]
        worker.jobs[ticket] = job
        self._slot_of[ticket] = (slot, worker)
        self.hands.append(list(worker.jobs.values()))
        return ticket

    def wait(self, timeout_s):
        for ticket, (slot, worker) in self._slot_of.items():
            job = worker.jobs[ticket]
            fate = "dies" if worker.is_killed else self.decide(worker, job)
            if fate == "works":
                continue
            self.clock.now += 1.0
            del self._slot_of[ticket], worker.jobs[ticket]
            if fate == "done":
                return [Finished(ticket=ticket, result=self.result_of(job))]
            if fate == "fails":
                return [Failed(ticket=ticket, error=OSError("no such device"))]
            worker.is_killed = True
            if self.workers.get(slot) is worker:
                self._replace(slot)
            return [Lost(ticket=ticket, reason="its actor died (Scripted)")]
        self.clock.now += timeout_s
        return []

    def kill(self, ticket):
        _, worker = self._slot_of[ticket]
        self.killed.append(worker.jobs[ticket])
        worker.is_killed = True

    def stop(self):
        self.num_stops += 1

    def _replace(self, slot):
        if slot in self.has_left:
            self.slots.remove(slot)
            del self.workers[slot]
            return
        self.num_replaced += 1
        self.workers[slot] = ScriptedWorker()

    @property
    def most_in_hand(self):
        return max(map(len, self.hands))


@pytest.fixture
def clock():
    """A clock that stands still until a pool waits."""
    return Clock()


@pytest.fixture
def scripted_pool(clock):
    """Makes a running pool: `scripted_pool(hosts, result_of)`."""

    def make(hosts, result_of=lambda job: None):
        pool = ScriptedPool(hosts, result_of, clock)
        pool.start()
        return pool

    return make
