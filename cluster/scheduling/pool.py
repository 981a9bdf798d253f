"""The interface between the driver and its workers: slots that take jobs, and the jobs' outcomes.

    driver -> jobs -> [pool] -> slots -> outcomes -> driver

Two pools implement this: `ray_pool` has a Ray actor in each slot, `local` a worker in this process.
A slot takes jobs and answers for them, so it may as well stand for a whole node whose supervisor
passes its jobs on. That is why everything here is a plain value: jobs and outcomes can travel,
several of them in one message; a slot says how many jobs it holds at once; slots may come and go;
and a pool replaces dead workers itself. This module knows nothing of Ray, models or prices.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NewType, NoReturn, Protocol

from cluster.scheduling.work import Job, JobResult, MeasureRate, TimeEngine
from fastformers.errors import FastformersError, ScoringError

_MEASURE_POLL_S = 1.0

Ticket = NewType("Ticket", int)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where jobs are done.

    Attributes:
        name: Host and cores, as shown in reports.
        host: Identifier of its machine; machines of equal name differ here.
        num_cores: Physical cores that it owns.
        max_jobs: Jobs that it holds at once, the one that computes included.
    """

    name: str
    host: str
    num_cores: int
    max_jobs: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A job was done."""

    ticket: Ticket
    result: JobResult


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The worker that had the job is gone, and how far it got is not known."""

    ticket: Ticket
    reason: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The job raised an error; its worker is alive."""

    ticket: Ticket
    error: Exception


Outcome = Finished | Lost | Failed


class Pool(Protocol):
    """Slots, and the jobs that they have in hand."""

    @property
    def slots(self) -> Sequence[Slot]:
        """Slots that take jobs now; a slot disappears with its machine."""

    @property
    def self_check(self) -> Sequence[str]:
        """Lines that say which workers run on which cores."""

    @property
    def num_idle_cores(self) -> int:
        """Physical cores of the slots' machines that no slot owns."""

    def start(self) -> None:
        """Start a worker in every slot."""

    def submit(self, slot: Slot, job: Job) -> Ticket:
        """Give a slot a job, and return at once."""

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of jobs, as soon as one has ended.

        A worker that died is replaced before its jobs are reported as lost.

        Args:
            timeout_s: Seconds after which to return with nothing.

        Raises:
            InputError: Workers die repeatedly as they start.
        """

    def kill(self, ticket: Ticket) -> None:
        """End the worker that has this job; all of its jobs come back as lost."""

    def stop(self) -> None:
        """End all workers."""


@contextmanager
def running(pool: Pool) -> Iterator[None]:
    """A pool whose workers run until the block ends."""
    try:
        pool.start()
        yield
    finally:
        pool.stop()


def measure_at_once(pool: Pool, jobs: Sequence[TimeEngine | MeasureRate]) -> list[float]:
    """Give each slot of a running pool one measuring job; returns the results in slot order.

    Raises:
        ScoringError: A worker died over its job, or the job raised an unexpected error.
        FastformersError: A job raised it.
    """
    slots = list(pool.slots)
    tickets = [pool.submit(slot, job) for slot, job in zip(slots, jobs, strict=True)]
    place_of = {ticket: slot.name for ticket, slot in zip(tickets, slots, strict=True)}
    measured: dict[Ticket, float] = {}
    while len(measured) < len(tickets):
        for outcome in pool.wait(_MEASURE_POLL_S):
            match outcome:
                case Finished():
                    assert isinstance(outcome.result, float)
                    measured[outcome.ticket] = outcome.result
                case Failed():
                    raise_failure(outcome, place_of[outcome.ticket])
                case Lost():
                    raise ScoringError(f"{place_of[outcome.ticket]}: {outcome.reason}")
    return [measured[ticket] for ticket in tickets]


def raise_failure(failed: Failed, place: str) -> NoReturn:
    """Raise what a job raised: as it is if it was raised on purpose, else with its place.

    Args:
        failed: The job's outcome.
        place: Name of the job for the message, such as "shard 000000-00000, attempt 1".

    Raises:
        FastformersError: The job raised it.
        ScoringError: The job raised any other error; names the place.
    """
    if isinstance(failed.error, FastformersError):
        raise failed.error
    raise ScoringError(f"{place}: {failed.error!r}") from failed.error
