"""Nodes in this process whose workers only let time pass, by a clock that jumps.

    driver -> orders -> [sleeping_nodes] -> supervisors here -> reports -> driver

Ten thousand slots with shards of 20 seconds take as long as the bookkeeping of their supervisors
does, which are the real ones. This module knows nothing of Ray.
"""

import heapq
import math
import time
from collections.abc import Sequence

from fastformers.cluster.scheduling.nodes import Node, NodeEvent, NodeJoined, NodeReported, Orders
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.supervisor import Supervisor
from fastformers.cluster.scheduling.work import Finished, MeasureRate, Outcome, Task, Ticket
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_queue import Lease

# A supervisor that has nothing to tell looks again after this time of the jumping clock.
_LOOK_AGAIN_S = 0.5


class JumpingClock:
    """Seconds that pass only when something is waited for."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class SleepingPool:
    """Slots of a node in which a shard takes its predicted time, and leaves nothing."""

    trouble = None

    def __init__(self, slots: Sequence[Slot], clock: JumpingClock) -> None:
        """Plan slots.

        Args:
            slots: The slots.
            clock: Clock by which time passes in them.
        """
        self.slots = list(slots)
        self._clock = clock
        self._free_at = dict.fromkeys(self.slots, 0.0)
        self._ends: list[tuple[float, Ticket, Finished]] = []

    @property
    def next_end(self) -> float:
        """Moment at which the next task ends; infinite where there is none."""
        return self._ends[0][0] if self._ends else math.inf

    def start(self) -> None:
        """Nothing has to start."""

    def submit(self, slot: Slot, tasks: Sequence[Task]) -> None:
        """Let tasks take their time, one after another."""
        end = max(self._clock.now, self._free_at[slot])
        for task in tasks:
            outcome = finish(task, slot.name)
            end += outcome.seconds
            heapq.heappush(self._ends, (end, task.ticket, outcome))
        self._free_at[slot] = end

    def wait(self, timeout_s: float) -> list[Outcome]:
        """What has ended by now; nothing is waited for."""
        ended: list[Outcome] = []
        while self._ends and self._ends[0][0] <= self._clock.now:
            ended.append(heapq.heappop(self._ends)[2])
        return ended

    def kill(self, ticket: Ticket) -> None:
        """No task takes too long here."""
        raise AssertionError("a sleeping task was ended")

    def states(self) -> dict[Slot, str]:
        """Nothing."""
        return {}

    def outages(self) -> list[str]:
        """Nothing."""
        return []

    def stop(self) -> None:
        """Nothing has to end."""


class SleepingNodes:
    """Supervisors in this process, which take turns in the order in which they have work.

    Attributes:
        supervisor_s: CPU seconds that they took.
    """

    num_starting = 0
    can_grow = False

    def __init__(self, num_slots: int, slots_per_node: int, clock: JumpingClock) -> None:
        """Plan nodes.

        Args:
            num_slots: Slots over all nodes.
            slots_per_node: Slots of a node; the last node may have fewer.
            clock: Clock by which time passes.
        """
        self.supervisor_s = 0.0
        self._clock = clock
        self._nodes = [
            _make_node(number, min(slots_per_node, num_slots - first))
            for number, first in enumerate(range(0, num_slots, slots_per_node))
        ]
        self._pools = {node.id: SleepingPool(node.slots, clock) for node in self._nodes}
        self._supervisors: dict[str, Supervisor] = {}
        self._turns: list[tuple[float, str]] = []
        self._events: list[NodeEvent] = []

    def start(self) -> None:
        """All nodes join."""
        for node in self._nodes:
            self._supervisors[node.id] = Supervisor(self._pools[node.id], clock=self._clock)
            self._events.append(NodeJoined(node=node))

    def exchange(self, node: str, orders: Orders) -> None:
        """Hand a node its orders."""
        start = time.process_time()
        self._supervisors[node].accept(orders)
        self._plan_turn(node)
        self.supervisor_s += time.process_time() - start

    def wait(self, timeout_s: float) -> list[NodeEvent]:
        """Let time pass until a node has something to tell."""
        start = time.process_time()
        deadline = self._clock.now + timeout_s
        while not self._events and self._turns and self._turns[0][0] <= deadline:
            when, node = heapq.heappop(self._turns)
            self._clock.now = max(self._clock.now, when)
            supervisor = self._supervisors[node]
            supervisor.step(0.0)
            if supervisor.is_due():
                self._events.append(NodeReported(id=node, report=supervisor.report()))
            else:
                self._plan_turn(node)
        if not self._events:
            self._clock.now = deadline
        events, self._events = self._events, []
        self.supervisor_s += time.process_time() - start
        return events

    def release(self, node: str, reason: str | None) -> None:
        """No node is left out here."""
        raise AssertionError(f"node {node} was let go: {reason}")

    def stop(self) -> None:
        """Nothing has to end."""

    def _plan_turn(self, node: str) -> None:
        """A node's turn comes when a task of it ends, or when it may have to answer."""
        left_s = max(self._supervisors[node].time_left(), 1e-6)
        when = min(self._pools[node].next_end, self._clock.now + max(left_s, _LOOK_AGAIN_S))
        if left_s < _LOOK_AGAIN_S:
            when = min(when, self._clock.now + left_s)
        heapq.heappush(self._turns, (when, node))


def finish(task: Task, slot: str) -> Finished:
    """The outcome of a shard that nobody scores: its receipt, after the time that was predicted."""
    if isinstance(task.job, MeasureRate):
        return Finished(ticket=task.ticket, result=task.job.seconds, seconds=0.0)
    assert isinstance(task.job, Lease)
    shard = task.job.shard
    receipt = Receipt(
        shard=shard.name,
        actor=slot,
        attempt=task.job.attempt,
        num_rows=shard.num_rows,
        num_unique=shard.num_unique,
        num_errors=0,
        num_tokens=shard.num_tokens,
        num_scored_tokens=shard.num_unique_tokens,
        num_computed_tokens=shard.num_unique_tokens,
        num_batches=100,
        started_at=0.0,
        finished_at=shard.predicted_s,
        predicted_s=shard.predicted_s,
        rss_bytes=0,
        peak_rss_bytes=0,
        phase_s={"read": 0.0, "infer": shard.predicted_s, "write": 0.0},
        lengths={str(edge): [60, 3000, 3000] for edge in (8, 16, 24, 32, 48, 64, 96, 128)},
    )
    return Finished(ticket=task.ticket, result=receipt, seconds=shard.predicted_s)


def _make_node(number: int, num_slots: int) -> Node:
    return Node(
        id=f"node-{number}",
        name=f"node-{number}",
        instance_type=None,
        slots=tuple(Slot(name=f"node-{number}:{core}") for core in range(num_slots)),
        num_cores=num_slots,
        self_check="",
    )
