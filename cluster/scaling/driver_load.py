"""Load driver and supervisors as a large cluster does, with nothing behind them that scores.

    slots, shards -> [driver_load] -> shards a second, what each costs the driver -> simulation

The driver and the supervisors are the real ones; the workers only let time pass. In this process
that is the time of a clock that jumps to what happens next, so that ten thousand slots with shards
of 20 seconds take as long as the bookkeeping does. With Ray's actors it is real time, and the cost
of messages is in it, too. This module knows nothing of Ray.
"""

import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cluster.scaling.scale_report import DriverLoad
from cluster.scheduling.driver import Driver
from cluster.scheduling.journal import NodeUse
from cluster.scheduling.nodes import (
    Node,
    NodeEvent,
    NodeJoined,
    NodeReported,
    Nodes,
    Orders,
    running,
)
from cluster.scheduling.pool import Slot
from cluster.scheduling.supervisor import Supervisor
from cluster.scheduling.work import Finished, Outcome, Task, Ticket
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt
from cluster.shards.receipts import Attempt, Receipt
from cluster.shards.shard_queue import Lease

# A supervisor that has nothing to tell looks again after this time of the jumping clock.
_LOOK_AGAIN_S = 0.5
# Shards differ by this much, so that they do not all end at one moment.
_SPREAD = 0.2


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


class NoJournal:
    """Listens and keeps no more than the number of shards that are done."""

    def __init__(self) -> None:
        self.num_done = 0

    def add_shard(self, shard: Shard) -> None:
        """Forget a shard."""

    def add_slice(self, receipt: SliceReceipt) -> None:
        """Forget a slice."""

    def add_receipt(self, receipt: Receipt) -> None:
        """Count a shard that is done."""
        self.num_done += 1

    def add_attempt(self, attempt: Attempt) -> None:
        """Forget an attempt."""

    def add_node(self, use: NodeUse) -> None:
        """Forget a node."""


@dataclass
class _Meter:
    """Nodes whose calls are counted.

    Attributes:
        nodes: The nodes.
        num_calls: Orders that they were sent.
        begun, ended: Clock readings when the last of them joined, and when all was done.
    """

    nodes: Nodes
    clock: Callable[[], float]
    num_calls: int = 0
    begun: float = 0.0
    ended: float = 0.0

    @property
    def num_starting(self) -> int:
        return self.nodes.num_starting

    @property
    def can_grow(self) -> bool:
        return self.nodes.can_grow

    def start(self) -> None:
        self.nodes.start()

    def exchange(self, node: str, orders: Orders) -> None:
        self.num_calls += 1
        self.nodes.exchange(node, orders)

    def wait(self, timeout_s: float) -> list[NodeEvent]:
        events = self.nodes.wait(timeout_s)
        if any(isinstance(event, NodeJoined) for event in events):
            self.begun = self.clock()
        return events

    def release(self, node: str, reason: str | None) -> None:
        self.nodes.release(node, reason)

    def stop(self) -> None:
        self.nodes.stop()


def load_in_process(
    *, num_slots: int, slots_per_node: int, shards_per_slot: int, shard_s: float
) -> DriverLoad:
    """Run driver and supervisors over slots in this process.

    Args:
        num_slots: Slots over all nodes.
        slots_per_node: Slots of each node.
        shards_per_slot: Shards for each slot.
        shard_s: Predicted seconds of a shard, which it also takes, give or take a fifth.

    Returns:
        What was measured; its shards a second are those of the driver and all supervisors
        together, in CPU time of this process.
    """
    clock = JumpingClock()
    nodes = SleepingNodes(num_slots, slots_per_node, clock)
    num_shards = num_slots * shards_per_slot
    meter = _Meter(nodes, clock)
    driver_s = _drive(meter, num_shards, shard_s, clock) - nodes.supervisor_s
    return DriverLoad(
        slots=num_slots,
        nodes=-(-num_slots // slots_per_node),
        are_actors=False,
        shard_s=shard_s,
        shards=num_shards,
        shards_per_second=num_shards / (driver_s + nodes.supervisor_s),
        us_per_shard=1e6 * driver_s / num_shards,
        ms_per_lease=1e3 * driver_s / meter.num_calls,
        supervisor_us_per_shard=1e6 * nodes.supervisor_s / num_shards,
    )


def load_actors(nodes: Nodes, *, num_slots: int, num_nodes: int, num_shards: int) -> DriverLoad:
    """Run the driver over nodes whose actors do nothing; see `nodes.idle_actors`.

    Args:
        nodes: The nodes; they are not started yet.
        num_slots, num_nodes: How many actors and nodes that is.
        num_shards: Shards that go through.

    Returns:
        What was measured; its shards a second are by the clock on the wall, from when the last
        node had joined, and the driver's time is CPU time of its process.
    """
    meter = _Meter(nodes, time.perf_counter)
    driver_s = _drive(meter, num_shards, 0.0, time.perf_counter)
    wall_s = meter.ended - meter.begun
    return DriverLoad(
        slots=num_slots,
        nodes=num_nodes,
        are_actors=True,
        shard_s=0.0,
        shards=num_shards,
        shards_per_second=num_shards / wall_s,
        us_per_shard=1e6 * driver_s / num_shards,
        ms_per_lease=1e3 * driver_s / meter.num_calls,
        supervisor_us_per_shard=1e6 * wall_s * num_nodes / num_shards,
    )


def _drive(meter: _Meter, num_shards: int, shard_s: float, clock: Callable[[], float]) -> float:
    """Run a driver until all shards are done; returns the CPU seconds of this process."""
    journal = NoJournal()
    with running(meter):
        driver = Driver(
            meter,
            slices=[],
            shards=make_shards(num_shards, shard_s),
            scores=True,
            journal=journal,
            clock=clock,
            start=clock(),
        )
        start = time.process_time()
        driver.run()
        meter.ended = clock()
        used_s = time.process_time() - start
    assert journal.num_done == num_shards
    return used_s


def make_shards(num_shards: int, shard_s: float) -> Iterator[Shard]:
    """Shards that are not on disk, of about so many predicted seconds each."""
    for number in range(num_shards):
        relative = 1 + _SPREAD * (2 * ((number * 0.618034) % 1) - 1)
        yield Shard(
            name=f"{number // 1000:06d}-{number % 1000:05d}",
            num_rows=1000,
            num_unique=1000,
            num_tokens=50_000,
            num_unique_tokens=50_000,
            predicted_s=max(1e-6, shard_s * relative),
            spans=(("corpus.parquet", 1000),),
        )


def finish(task: Task, slot: str) -> Finished:
    """The outcome of a shard that nobody scores: its receipt, after the time that was predicted."""
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
