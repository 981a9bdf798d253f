"""What the driver knows of each node: the jobs in its hands, how fast it is, and how it fares.

    reports -> [node_books] -> orders of the driver

Plain records; this module knows nothing of Ray or files.
"""

import math
from dataclasses import dataclass, field

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.scheduling.forecast.time_left import SlotKind
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.scheduling.nodes import Ended, Node
from fastformers.cluster.scheduling.pace import Pace
from fastformers.cluster.scheduling.work import Finished, Task, Ticket, Work
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_queue import Lease

# A node is leased jobs for this many seconds, and at most this many for each of its slots.
LEASE_S, MAX_LEASED_PER_SLOT = 4.0, 64


@dataclass(slots=True)
class Leased:
    """A job in the hands of a node.

    Attributes:
        task: The job with its ticket.
        job: The job, which is never one that only times an engine.
        node: The node.
        given: Clock reading when the node was given it.
        began: Clock reading when a slot began it; None while it waits there.
        is_wanted_back: Whether the node was told to return it.
        twin: The same job in the hands of another node, or None.
    """

    task: Task
    job: Work
    node: "NodeBooks"
    given: float
    began: float | None = None
    is_wanted_back: bool = False
    twin: "Leased | None" = None


@dataclass
class NodeBooks:
    """A node that works.

    Attributes:
        node: The node.
        stay: Identifier of its stay; a node that left and came back has another.
        since: Clock reading from which it costs.
        ready: Clock reading when it joined.
        num_slots: Slots that it has now.
        leased: Jobs in its hands.
        take_back: Jobs to take back with the next orders.
        pace, slice_pace: Seconds that shards take in a slot of it, and slices.
        num_errors: Jobs that raised an error since one was last done.
        last_error: The last of them, in one line.
        leaving: Why it will be taken away soon, or None.
        doing: Number of its slots by what they do.
        notices: Lines that it wants shown.
        slot_ends: When the last job of each slot ended, by the driver's clock.
    """

    node: Node
    stay: str
    since: float
    ready: float
    num_slots: int
    leased: dict[Ticket, Leased] = field(default_factory=dict)
    take_back: list[Ticket] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    slice_pace: Pace = field(default_factory=Pace)
    num_errors: int = 0
    last_error: str = ""
    leaving: str | None = None
    doing: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    slot_ends: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> SlotKind:
        """What its slots have in common with those that are as fast."""
        seen = self.node.machine_seen
        processor = "" if seen is None else seen.processor.model
        return SlotKind(self.node.device, self.node.instance_type or processor)

    @property
    def machine(self) -> str:
        """Identifier of its machine."""
        return self.node.machine or self.stay

    @property
    def num_free_slots(self) -> int:
        """Slots without a job; none where the node will be taken away."""
        return 0 if self.leaving else max(0, self.num_slots - len(self.leased))

    @property
    def num_wanted(self) -> int:
        """Jobs that it should have in its hands while plenty wait: two calls a slot, and more."""
        if self.leaving:
            return 0
        two_each = 2 * self.num_slots + max(1, self.num_slots // 4)
        if not self.pace.seconds:
            return two_each
        enough = round(self.num_slots * LEASE_S / self.pace.seconds)
        return min(max(two_each, enough), self.num_slots * MAX_LEASED_PER_SLOT)

    def add_pace(self, job: Work, seconds: float) -> None:
        """Take what a job took in a slot of it."""
        if isinstance(job, Lease):
            self.pace.add(seconds, job.shard.predicted_s)
        elif isinstance(job, Slice):
            self.slice_pace.add(seconds, None)

    def take_slot_time(self, ended: Ended) -> float:
        """Seconds that a finished job took of its slot: from the end of the job before it on.

        The first one of a slot waits for the model, so it counts as what it measured of itself.
        """
        assert ended.slot is not None and isinstance(ended.outcome, Finished)
        before, self.slot_ends[ended.slot] = self.slot_ends.get(ended.slot), ended.end_s
        if before is not None:
            return max(0.0, ended.end_s - before)
        result = ended.outcome.result
        phase_s = result.phase_s if isinstance(result, Receipt | SliceReceipt) else {}
        return math.fsum(phase_s.values()) or ended.outcome.seconds

    def expect(self, job: Work) -> float | None:
        """Seconds that a job takes in a slot of it; None where that is not known."""
        if isinstance(job, Lease):
            return self.pace.expect(job.shard.predicted_s)
        return self.slice_pace.expect(None) if isinstance(job, Slice) else None

    def answer_below(self, num_wanted: int) -> int:
        """Jobs in its hands below which it should answer at once: half of a long lease, two calls a
        slot of a short one, and one a slot where no more than that is leased."""
        return max(self.num_slots, num_wanted // 2, min(2 * self.num_slots + 1, num_wanted))

    def use(
        self, now: float, start: float, reason: str | None, *, lost_work: bool = False
    ) -> NodeUse:
        """How long it was used, if it leaves now.

        Args:
            now, start: Clock readings of the moment and of the start of the run.
            reason: Why it leaves before the end, or None.
            lost_work: Whether jobs are lost with it.
        """
        return NodeUse(
            node=self.stay,
            name=self.node.name,
            instance_type=self.node.instance_type,
            joined_s=self.since - start,
            ready_s=self.ready - start,
            left_s=now - start,
            num_cores=self.node.num_cores,
            num_idle_cores=self.node.num_idle_cores,
            actor_cores={slot.name: slot.num_cores for slot in self.node.slots},
            self_check=self.node.self_check,
            reason=reason,
            lost_work=lost_work,
            device=self.node.device,
            machine=self.machine,
            machine_seen=self.node.machine_seen,
        )
