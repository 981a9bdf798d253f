"""The interface between the driver and the nodes: orders go out, reports come back, in batches.

    driver -> orders -> [nodes] -> supervisor of a node -> reports -> driver

A node has one supervisor, which has at most one exchange with the driver under way: it takes new
tasks, works, and answers when it has something to tell and needs more. Two kinds of nodes implement
this: those of a Ray cluster (`cluster/nodes`) and those in this process (`local_nodes`). Everything
that travels is a plain value; this module knows nothing of Ray, models or prices.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import Outcome, Task, Ticket
from fastformers.inference.cpu import Machine
from fastformers.inference.engine import Device


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that works: the workers of one kind on a machine.

    A machine with GPUs is two nodes, one of those on its GPUs and one of those on its other cores,
    because each kind has its own pace.

    Attributes:
        id: Identifier; nodes of equal name differ here.
        name: Host name.
        instance_type: Name that its cloud gives the type of machine; None where it is not known.
        slots: Its slots when it joined.
        num_cores: Physical cores that it lets the run use.
        self_check: Line that says which workers run on which cores.
        device: What computes for its workers.
        scores: Whether its workers score; they all can prepare.
        machine: Identifier of the machine, which two nodes may share; "" for one of its own.
        machine_seen: What the machine is; None where it was not looked at.
    """

    id: str
    name: str
    instance_type: str | None
    slots: tuple[Slot, ...]
    num_cores: int
    self_check: str
    device: Device = "cpu"
    scores: bool = True
    machine: str = ""
    machine_seen: Machine | None = None

    @property
    def num_idle_cores(self) -> int:
        """Cores that no worker owns."""
        return max(0, self.num_cores - sum(slot.num_cores for slot in self.slots))


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """What the driver tells a node in one exchange.

    Attributes:
        give: New tasks, the most urgent first.
        take_back: Tasks to return, if they are not begun.
        answer_below: Number of tasks in the node's hands below which it answers at once.
        is_plenty: Whether more tasks wait with the driver than all nodes have slots.
        wait_s: Seconds after which it answers in any case.
        now: Reading of the driver's clock.
    """

    give: tuple[Task, ...] = ()
    take_back: tuple[Ticket, ...] = ()
    answer_below: int = 1
    is_plenty: bool = False
    wait_s: float = 2.0
    now: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A task ended.

    Attributes:
        outcome: How.
        slot: Name of the slot that had it; None where none had.
        start_s, end_s: When its turn came and when it ended, by the driver's clock.
    """

    outcome: Outcome
    slot: str | None
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReport:
    """What a node answers.

    Attributes:
        ended: Tasks that ended since the last report.
        begun: Tasks that slots began, with the time by the driver's clock.
        num_slots: Slots that the node has now.
        doing: Number of slots by what they do.
        notices: Lines to show to the user.
        leaving: Why the node will be taken away soon, or None.
        trouble: Why slots have disappeared, in the words of a worker, or None.
    """

    ended: tuple[Ended, ...] = ()
    begun: tuple[tuple[Ticket, float], ...] = ()
    num_slots: int = 0
    doing: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    leaving: str | None = None
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class NodeJoined:
    """A node was checked and is ready to work.

    Attributes:
        node: The node.
        seen: Clock reading when it was first seen with CPUs free; None for the run's start.
    """

    node: Node
    seen: float | None = None


@dataclass(frozen=True, kw_only=True)
class NodeReported:
    """A node has answered; it waits for the next orders."""

    id: str
    report: NodeReport


@dataclass(frozen=True, kw_only=True)
class NodeLeft:
    """A node that had joined is gone, with the tasks in its hands."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class NodeRefused:
    """A node cannot work; the reason is in its own words."""

    name: str
    reason: str


NodeEvent = NodeJoined | NodeReported | NodeLeft | NodeRefused


class Nodes(Protocol):
    """The nodes of a run."""

    @property
    def num_starting(self) -> int:
        """Nodes that are being checked, and may join soon."""

    @property
    def can_grow(self) -> bool:
        """Whether nodes may join that are not there yet."""

    def start(self) -> None:
        """Ask the nodes that are there to join."""

    def exchange(self, node: str, orders: Orders) -> None:
        """Send a node its orders; its report comes out of `wait`. Returns at once."""

    def wait(self, timeout_s: float) -> list[NodeEvent]:
        """What happened, as soon as something did; an empty list after `timeout_s` seconds."""

    def release(self, node: str, reason: str | None) -> None:
        """Let a node go; None for the end of the run, else why it is not used again."""

    def stop(self) -> None:
        """End all workers on all nodes."""


@contextmanager
def running(nodes: Nodes) -> Iterator[Nodes]:
    """Nodes whose workers run until the block ends."""
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


def all_slots(joined: Sequence[Node]) -> list[Slot]:
    """Slots of several nodes."""
    return [slot for node in joined for slot in node.slots]
