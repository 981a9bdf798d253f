"""What a driver tells and then forgets: shards, slices, receipts, attempts, and nodes that worked.

    driver -> [journal] -> receipts log, tally, bill

The driver's memory must not grow with what is finished, so whoever wants to add something up
listens here. Everything is a plain value; this module knows nothing of files, Ray or prices.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.scheduling.nodes import Ended
from fastformers.cluster.scheduling.work import Comparison, Finished, Work
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Attempt, Receipt
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.inference.cpu import Machine
from fastformers.inference.engine import Device


@dataclass(frozen=True, kw_only=True)
class NodeUse:
    """A node that worked for a run, from when it joined until it left.

    Attributes:
        node: Identifier of its stay; a node that left and came back has another.
        name: Host name, with a number where several nodes have the same.
        instance_type: Name that its cloud gives the type of machine; None where it is not known.
        joined_s, left_s: When it began to cost and when it left, in seconds from the run's start;
            one that stayed to the end costs until everything is done.
        ready_s: When it could take its first job; None for `joined_s`.
        num_cores: Physical cores that it lets the run use; 0 where that was not asked.
        num_idle_cores: Those of them that no actor owned.
        actor_cores: Cores of each of its actors, by the actor's name.
        self_check: Line that says which actors ran on which cores.
        reason: Why it left before the end; None if it stayed.
        lost_work: Whether jobs were under way when it left, which others did again.
        device: What computes for its actors.
        machine: Identifier of the machine, which two nodes may share; "" for one of its own.
        machine_seen: What the machine is; None where it was not looked at.
    """

    node: str
    name: str
    instance_type: str | None
    joined_s: float
    left_s: float
    num_cores: int
    num_idle_cores: int
    actor_cores: dict[str, int]
    self_check: str
    ready_s: float | None = None
    reason: str | None = None
    lost_work: bool = False
    device: Device = "cpu"
    machine: str = ""
    machine_seen: Machine | None = None


class Journal(Protocol):
    """Listens to a driver; what it raises ends the run."""

    def add_shard(self, shard: Shard) -> None:
        """A shard is known: it was cut in this run."""

    def add_slice(self, receipt: SliceReceipt) -> None:
        """A slice was cut, and its receipt is on disk."""

    def add_receipt(self, receipt: Receipt) -> None:
        """A shard was scored, and its predictions are on disk; its attempt was told before."""

    def add_attempt(self, attempt: Attempt) -> None:
        """A job has ended, well or not; attempts of an actor come in the order of their ends."""

    def add_agreement(self, agreement: Agreement) -> None:
        """Some texts were scored in a second precision."""

    def add_node(self, use: NodeUse) -> None:
        """A node has left, or the run is over."""


def attempt_of(job: Work, ended: Ended, *, node: str, number: int, start: float) -> Attempt:
    """The record of a job that ended in a slot.

    Args:
        job: The job.
        ended: How it ended, and when by the driver's clock.
        node: Identifier of the node's stay.
        number: How many times the job was tried, this time included.
        start: Reading of the driver's clock at the start of the run.
    """
    kind: Literal["prepare", "score", "search", "compare"]
    match job:
        case Lease():
            kind, name = "score" if job.probe is None else "search", job.shard.name
        case Comparison():
            kind, name = "compare", job.shard.name
        case Slice():
            kind, name = "prepare", f"slice {job.index}"
    result = ended.outcome.result if isinstance(ended.outcome, Finished) else None
    assert ended.slot is not None
    return Attempt(
        node=node,
        actor=ended.slot,
        job=kind,
        name=name,
        number=number,
        start_s=ended.start_s - start,
        end_s=ended.end_s - start,
        is_lost=not isinstance(ended.outcome, Finished),
        phase_s=result.phase_s if isinstance(result, SliceReceipt | Receipt) else {},
    )
