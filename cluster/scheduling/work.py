"""The jobs that workers do, and what becomes of them.

    driver -> tasks -> supervisor -> worker -> outcomes -> supervisor -> driver

A task is a job with a ticket, by which all levels speak of it. Everything here is a plain value
that can travel, several of them in one message; this module knows nothing of Ray or of how a job is
done.
"""

from dataclasses import dataclass
from typing import NewType, NoReturn

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import FastformersError, ScoringError

# One call that computes, one that is read or written.
CALLS_IN_HAND = 2

Ticket = NewType("Ticket", int)


@dataclass(frozen=True, kw_only=True)
class TimeEngine:
    """A job: run the shards' batches, already in memory, through the engine and nothing else."""

    shards: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True)
class MeasureRate:
    """A job: score texts of several lengths for about `seconds`, to learn the tokens per second."""

    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A job: score some texts of a shard that is on disk, and compare.

    It tells how much two precisions agree where both score, so it is done by an actor of another
    kind than the one that scored the shard.
    """

    shard: Shard


# The jobs of a worker, and their results: the receipt of a slice, that of a shard (None for a
# probe), how much predictions agree, seconds of the engine, tokens per second.
Job = Slice | Lease | Comparison | TimeEngine | MeasureRate
JobResult = SliceReceipt | Receipt | Agreement | float | None
# Those that a driver hands out; the others only measure.
Work = Slice | Lease | Comparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A job and the number by which it is known."""

    ticket: Ticket
    job: Job

    @property
    def predicted_s(self) -> float | None:
        """Core-seconds predicted for it; None where nothing is predicted."""
        return self.job.shard.predicted_s if isinstance(self.job, Lease) else None

    @property
    def is_fresh(self) -> bool:
        """Whether no worker has died over it yet."""
        return not isinstance(self.job, Lease) or self.job.attempt == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A job was done.

    Attributes:
        ticket: Ticket of its task.
        result: What the worker answered.
        seconds: Seconds from when the worker began it until it had its result.
    """

    ticket: Ticket
    result: JobResult
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The job raised an error; its worker is alive.

    Attributes:
        ticket: Ticket of its task.
        error: What it raised.
        may_pass: Whether a disk or a service failed under it, so that it may work the next time,
            whatever input the error names.
    """

    ticket: Ticket
    error: Exception
    may_pass: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The worker that had the job is gone, and how far it got is not known.

    Attributes:
        ticket: Ticket of its task.
        reason: How the worker ended.
        is_charged: Whether the job may be to blame; False where the machine is, or where the worker
            never began it.
    """

    ticket: Ticket
    reason: str
    is_charged: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """The job was not begun, and is given back."""

    ticket: Ticket


Outcome = Finished | Failed | Lost | Returned


def describe_job(job: Job) -> str:
    """Name of a job for a message."""
    match job:
        case Lease():
            return f"shard {job.shard.name}, attempt {job.attempt}"
        case Slice():
            return f"slice {job.index} ({job.pieces[0].path})"
        case Comparison():
            return f"comparison of precisions in shard {job.shard.name}"
        case TimeEngine():
            return "timing of the engine"
        case MeasureRate():
            return "measuring of the rate"


def raise_failure(error: Exception, place: str) -> NoReturn:
    """Raise what a job raised: as it is if it was raised on purpose, else with its place.

    Args:
        error: What the job raised.
        place: Name of the job for the message, such as "shard 000000-00000, attempt 1".

    Raises:
        FastformersError: The job raised it.
        ScoringError: The job raised any other error; names the place.
    """
    if isinstance(error, FastformersError):
        raise error
    raise ScoringError(f"{place}: {error!r}") from error
