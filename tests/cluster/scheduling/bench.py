"""A supervisor over slots in which tasks end when the test says."""

from fastformers.cluster.scheduling.nodes import Orders
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.supervisor import Supervisor
from fastformers.cluster.scheduling.work import Finished, Lost, Task, Ticket
from tests.cluster.scheduling.jobs import make_lease


class ManualPool:
    """Slots in which tasks end when the test says.

    Attributes:
        calls: Number of the slot and tickets of each call, in the order in which they were given.
        killed: Tickets of the tasks that were to be ended.
        outage: Lines about storage that does not answer.
        doing: What slots do.
    """

    trouble = None

    def __init__(self, num_slots, max_calls):
        self.slots = [
            Slot(name=f"host:{number}", max_calls=max_calls) for number in range(num_slots)
        ]
        self.calls, self.killed, self.outage, self.doing = [], [], [], {}
        self.outcomes, self.waited = [], []

    def submit(self, slot, tasks):
        self.calls.append((int(slot.name[-1]), [task.ticket for task in tasks]))

    def wait(self, timeout_s):
        self.waited.append(timeout_s)
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def kill(self, ticket):
        self.killed.append(ticket)

    def states(self):
        return self.doing

    def outages(self):
        return self.outage


class Bench:
    """A supervisor, its pool and the clock."""

    def __init__(self, clock, num_slots, *, max_calls=2, **options):
        self.clock, self.pool = clock, ManualPool(num_slots, max_calls)
        self.supervisor = Supervisor(self.pool, clock=clock, **options)

    def order(self, *give, **orders):
        """Give orders; returns the calls that came of them."""
        before = len(self.pool.calls)
        self.supervisor.accept(Orders(**{"give": give, "wait_s": 1000.0, **orders}))
        return self.pool.calls[before:]

    def end(self, *outcomes, at=None):
        """Let tasks end; returns the calls that came of it."""
        before = len(self.pool.calls)
        if at is not None:
            self.clock.now = at
        self.pool.outcomes = list(outcomes)
        self.supervisor.step(0.0)
        return self.pool.calls[before:]

    def ended(self):
        """What the driver is told: outcome, slot, start and end of each task."""
        return [
            (type(entry.outcome), entry.outcome.ticket, entry.slot, entry.start_s, entry.end_s)
            for entry in self.supervisor.report().ended
        ]

    def learn(self, seconds, *, slots=None, predicted_s=1.0):
        """Let slots do a task each, so that their pace is known; nothing is left of it."""
        slots = range(len(self.pool.slots)) if slots is None else slots
        tasks = [task(900 + slot, predicted_s=predicted_s) for slot in range(len(self.pool.slots))]
        self.order(*tasks)
        self.end(*(done(900 + slot, seconds) for slot in slots))
        self.supervisor.report()


def task(ticket, *, predicted_s=1.0, attempt=1, job=None):
    job = job or make_lease(ticket, predicted_s=predicted_s, attempt=attempt)
    return Task(ticket=Ticket(ticket), job=job)


def tasks(*tickets, **changes):
    return [task(ticket, **changes) for ticket in tickets]


def done(ticket, seconds=1.0):
    return Finished(ticket=Ticket(ticket), result=None, seconds=seconds)


def lost(ticket):
    return Lost(ticket=Ticket(ticket), reason="its actor died")
