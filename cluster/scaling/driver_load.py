"""Load driver and supervisors as a large cluster does, with nothing behind them that scores.

    slots, shards -> [driver_load] -> shards a second, what each costs the driver -> simulation

The driver and the supervisors are the real ones; the workers only let time pass. In this process
that is the time of a clock that jumps (`sleeping_nodes`); with Ray's actors it is real time, and
the cost of messages is in it, too. This module knows nothing of Ray.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from fastformers.cluster.execution.core_split import join_all, measure_at_once
from fastformers.cluster.scaling.cluster_model import Scheduling
from fastformers.cluster.scaling.scale_report import DriverLoad
from fastformers.cluster.scaling.sleeping_nodes import JumpingClock, SleepingNodes
from fastformers.cluster.scheduling.driver import Driver
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.scheduling.node_books import LEASE_S, MAX_LEASED_PER_SLOT
from fastformers.cluster.scheduling.nodes import (
    Node,
    NodeEvent,
    NodeJoined,
    NodeReported,
    Nodes,
    Orders,
    all_slots,
    running,
)
from fastformers.cluster.scheduling.supervisor import REPORT_WITHIN_S
from fastformers.cluster.scheduling.work import CALLS_IN_HAND, MeasureRate
from fastformers.cluster.shards.layout import MAX_SHARD_SECONDS, Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Attempt, Receipt
from fastformers.options import check_option, option

# Shards differ by this much, so that they do not all end at one moment.
_SPREAD = 0.2
_NUM_CALLS = 200
_SHARDS_PER_SLOT, _LEAST_SHARDS = 5, 20_000


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How the driver is loaded."""

    load_slots: tuple[int, ...] = field(
        default=(1_000, 10_000),
        metadata=option("slots in this process that the driver is loaded with", metavar="A,B"),
    )
    load_actors: tuple[int, ...] = field(
        default=(10,),
        metadata=option("idle Ray actors that it is loaded with, too; 0 for none", metavar="A,B"),
    )

    def __post_init__(self) -> None:
        are_slots = bool(self.load_slots) and all(number >= 1 for number in self.load_slots)
        check_option(self, "load_slots", are_slots, "numbers of at least 1, such as 1000,10000")
        are_numbers = all(number >= 0 for number in self.load_actors)
        check_option(self, "load_actors", are_numbers, "numbers of at least 0, such as 10,100")


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

    def add_agreement(self, agreement: Agreement) -> None:
        """Nothing."""

    def add_node(self, use: NodeUse) -> None:
        """Forget a node."""


@dataclass
class _Meter:
    """Nodes that have joined, whose calls are counted.

    Attributes:
        nodes: The nodes.
        joined: Those that have joined, and are said to when they are first waited for.
        num_calls: Orders that they were sent.
    """

    nodes: Nodes
    joined: list[Node]
    num_calls: int = 0
    num_starting: int = 0
    can_grow: bool = False

    def start(self) -> None:
        """They run already."""

    def exchange(self, node: str, orders: Orders) -> None:
        """Send a node its orders."""
        self.num_calls += 1
        self.nodes.exchange(node, orders)

    def wait(self, timeout_s: float) -> list[NodeEvent]:
        """What happened."""
        if self.joined:
            joined, self.joined = self.joined, []
            return [NodeJoined(node=node) for node in joined]
        return self.nodes.wait(timeout_s)

    def release(self, node: str, reason: str | None) -> None:
        """Let a node go."""
        self.nodes.release(node, reason)

    def stop(self) -> None:
        """They go on."""


def load_in_process(
    num_slots: int,
    *,
    slots_per_node: int = 16,
    num_shards: int | None = None,
    shard_s: float = MAX_SHARD_SECONDS,
) -> DriverLoad:
    """Run driver and supervisors over slots in this process.

    Args:
        num_slots: Slots over all nodes.
        slots_per_node: Slots of each node.
        num_shards: Shards; None for five a slot, or twenty thousand if that is more.
        shard_s: Predicted seconds of a shard, which it also takes, give or take a fifth.

    Returns:
        What was measured; its shards a second are those of the driver and all supervisors
        together, in CPU time of this process.
    """
    clock = JumpingClock()
    nodes = SleepingNodes(num_slots, slots_per_node, clock)
    num_shards = num_shards or max(_LEAST_SHARDS, num_slots * _SHARDS_PER_SLOT)
    with running(nodes):
        meter = _Meter(nodes, join_all(nodes))
        supervisor_s = -nodes.supervisor_s
        driver_s = _drive(meter, num_shards, shard_s, clock)
        supervisor_s += nodes.supervisor_s
    driver_s -= supervisor_s
    return DriverLoad(
        slots=num_slots,
        nodes=-(-num_slots // slots_per_node),
        are_actors=False,
        shard_s=shard_s,
        shards=num_shards,
        calls=meter.num_calls,
        shards_per_second=num_shards / (driver_s + supervisor_s),
        us_per_shard=1e6 * driver_s / num_shards,
        ms_per_lease=1e3 * driver_s / meter.num_calls,
        ms_per_empty_lease=None,
        supervisor_us_per_shard=1e6 * supervisor_s / num_shards,
    )


@dataclass(frozen=True, kw_only=True)
class CallCost:
    """What a call to a node costs that has nothing in it.

    Attributes:
        driver_s: CPU seconds of the driver's process.
        round_trip_s: Seconds until the answer is there.
    """

    driver_s: float
    round_trip_s: float


def load_actors(nodes: Nodes, *, num_shards: int = _LEAST_SHARDS) -> tuple[DriverLoad, CallCost]:
    """Run the driver over running nodes whose actors do nothing; see `nodes.idle_actors`.

    Args:
        nodes: The nodes, whose actors may still be starting.
        num_shards: Shards that go through.

    Returns:
        What was measured, by the clock on the wall, and in CPU time of the driver's process; and
        what an empty call costs.
    """
    joined = join_all(nodes)
    num_slots = len(all_slots(joined))
    measure_at_once(nodes, joined, [MeasureRate(seconds=0.0)] * num_slots)  # until all work
    call = _measure_calls(nodes, joined[0].id)
    meter = _Meter(nodes, list(joined))
    start = time.perf_counter()
    driver_s = _drive(meter, num_shards, 0.0, time.perf_counter)
    wall_s = time.perf_counter() - start
    load = DriverLoad(
        slots=num_slots,
        nodes=len(joined),
        are_actors=True,
        shard_s=0.0,
        shards=num_shards,
        calls=meter.num_calls,
        shards_per_second=num_shards / wall_s,
        us_per_shard=1e6 * driver_s / num_shards,
        ms_per_lease=1e3 * driver_s / meter.num_calls,
        ms_per_empty_lease=1e3 * call.driver_s,
        supervisor_us_per_shard=1e6 * wall_s * len(joined) / num_shards,
    )
    return load, call


def cost_scheduling(
    in_process: DriverLoad, actors: DriverLoad | None, call: CallCost | None
) -> Scheduling:
    """What driver and supervisors cost in a simulation.

    Args:
        in_process: Load with shards of the planner's length, so that a call carries few of them.
        actors: Load of Ray's actors, which has the cost of messages in it; None without.
        call: Cost of an empty call to a Ray node; None without.
    """
    habits = Scheduling(
        report_within_s=REPORT_WITHIN_S,
        wait_s=2.0,
        ahead_s=LEASE_S,
        max_leased=MAX_LEASED_PER_SLOT,
        jobs_in_hand=CALLS_IN_HAND,
        late_factor=2.0,
    )
    books_s = 1e-6 * in_process.us_per_shard
    if actors is None or call is None:
        return replace(
            habits,
            shard_s=books_s,
            supervisor_shard_s=1e-6 * in_process.supervisor_us_per_shard,
        )
    per_call = actors.shards / actors.calls
    messages_s = max(0.0, 1e-3 * actors.ms_per_lease - call.driver_s) / per_call
    return replace(
        habits,
        lease_s=call.driver_s,
        shard_s=messages_s,
        supervisor_shard_s=1e-6 * actors.supervisor_us_per_shard,
        latency_s=call.round_trip_s / 2,
    )


def _measure_calls(nodes: Nodes, node: str) -> CallCost:
    """Send a node orders that it answers at once, one after another."""
    orders = Orders(wait_s=0.0)
    start, used = time.perf_counter(), time.process_time()
    for _ in range(_NUM_CALLS):
        nodes.exchange(node, orders)
        while not any(isinstance(event, NodeReported) for event in nodes.wait(1.0)):
            pass
    return CallCost(
        driver_s=(time.process_time() - used) / _NUM_CALLS,
        round_trip_s=(time.perf_counter() - start) / _NUM_CALLS,
    )


def _drive(meter: _Meter, num_shards: int, shard_s: float, clock: Callable[[], float]) -> float:
    """Run a driver until all shards are done; returns the CPU seconds of this process."""
    journal = NoJournal()
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
