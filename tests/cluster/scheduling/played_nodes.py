"""Nodes that do what a test says, and how their reports are written down."""

from dataclasses import replace

from fastformers.cluster.scheduling.nodes import Ended, NodeJoined, NodeReport, NodeReported
from fastformers.cluster.scheduling.work import Failed, Finished, Lost, Returned
from fastformers.cluster.shards.shard_queue import Lease
from tests.cluster.scheduling.jobs import make_node, make_shard, result_of


class PlayedNodes:
    """Nodes that do what a generator says: each list that it yields is what happened.

    Attributes:
        orders: Orders that each node was sent, the newest last.
        released: Nodes that were let go, with the reason.
        waited: Seconds that the driver would have waited for each list.
    """

    def __init__(self, play, *, can_grow=False):
        self._events = play(self)
        self.can_grow, self.num_starting = can_grow, 0
        self.orders, self.released, self.waited = {}, [], []

    def wait(self, timeout_s):
        self.waited.append(timeout_s)
        return next(self._events)

    def exchange(self, node, orders):
        self.orders.setdefault(node, []).append(orders)

    def release(self, node, reason):
        self.released.append((node, reason))

    def last(self, number=0):
        """The newest orders of a node."""
        return self.orders[f"node{number}"][-1]

    def given(self, number=0):
        """Names of the shards and slices in its newest orders."""
        return [name_of(task.job) for task in self.last(number).give]


def name_of(job):
    return int(job.shard.name[-5:]) if isinstance(job, Lease) else f"slice {job.index}"


def joined(number, num_slots=1, **changes):
    return NodeJoined(node=make_node(number, num_slots), **changes)


def reported(number, *ended, num_slots=1, **changes):
    return NodeReported(
        id=f"node{number}", report=NodeReport(ended=ended, num_slots=num_slots, **changes)
    )


def ended(outcome, *, slot="slot", start_s=0.0, end_s=1.0):
    return Ended(outcome=outcome, slot=slot, start_s=start_s, end_s=end_s)


def done(task, seconds=1.0, **result):
    answer = replace(result_of(task.job), **result)
    return ended(Finished(ticket=task.ticket, result=answer, seconds=seconds))


def failed(task, error="no such device"):
    return ended(Failed(ticket=task.ticket, error=OSError(error)))


def lost(task, **changes):
    return ended(Lost(ticket=task.ticket, reason="its actor died", **changes))


def returned(task):
    return ended(Returned(ticket=task.ticket), slot=None)


def do_all(nodes, *numbers):
    """Events of nodes that do all that they are given, until nothing is left."""
    while tasks := {number: nodes.last(number).give for number in numbers}:
        yield [reported(number, *map(done, given)) for number, given in tasks.items()]


def scored(journal):
    return [receipt.shard for receipt in journal.receipts]


def names(*numbers):
    return [make_shard(number).name for number in numbers]
