"""What the driver asks of those who do the work: slots that take jobs, and what became of the jobs.

    driver -> jobs -> [pool] -> slots -> outcomes -> driver

Two pools fulfil this: `ray_pool` has a Ray actor in each slot, `local` one worker in this process.
A slot is whoever takes jobs and answers for them, so it may as well stand for a whole node whose
supervisor hands its jobs on. That is why everything here is a plain value: jobs and outcomes can
travel, several of them in one message; a slot says how many jobs it holds at once; slots may come
and go; and a pool itself puts another worker in the place of a dead one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NewType, NoReturn, Protocol

from cluster.execution.worker import Job, JobResult, MeasureRate, TimeEngine, WorkerSpec
from fastformers.errors import FastformersError, ScoringError

_MEASURE_POLL_S = 1.0

Ticket = NewType("Ticket", int)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where jobs are done.

    Attributes:
        name: Host and cores, as shown in reports.
        host: Which machine it is on; machines of equal name differ here.
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
    """Whoever had the job is gone, and nobody knows how far it came."""

    ticket: Ticket
    reason: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The job raised an error; whoever had it lives."""

    ticket: Ticket
    error: Exception


Outcome = Finished | Lost | Failed


class Pool(Protocol):
    """Slots, and the jobs that they have in hand."""

    @property
    def slots(self) -> Sequence[Slot]:
        """Where jobs can be done now; a slot is gone when its machine is."""

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
        """What became of jobs, as soon as one has ended.

        A worker that died is replaced before its jobs are reported as lost.

        Args:
            timeout_s: Seconds after which to return with nothing.

        Raises:
            InputError: Workers die as they start, time and again.
        """

    def kill(self, ticket: Ticket) -> None:
        """End whoever has this job; all jobs that it had come back as lost."""

    def stop(self) -> None:
        """End all workers."""


class PlanPool(Protocol):
    """Plans a pool on the machines that one is connected to, and starts nothing."""

    def __call__(
        self,
        spec: WorkerSpec,
        *,
        num_actors: int | None,
        cores_per_actor: int,
        oversubscribe: bool,
    ) -> Pool:
        """Plan workers and the cores that they own.

        Args:
            spec: What all workers share.
            num_actors: How many over all machines; by default as many as fit.
            cores_per_actor: Physical cores of each.
            oversubscribe: Allow workers to share cores.

        Raises:
            InputError: The machines do not have that many cores, or they are busy.
        """


# Opens the machines at an address, or this one, for as long as the block runs.
Connect = Callable[[str | None], AbstractContextManager[PlanPool]]


@contextmanager
def running(pool: Pool) -> Iterator[None]:
    """A pool whose workers run until the block ends."""
    try:
        pool.start()
        yield
    finally:
        pool.stop()


def measure_at_once(pool: Pool, jobs: Sequence[TimeEngine | MeasureRate]) -> list[float]:
    """Give one job that measures to each slot of a running pool; what they say, in slot order.

    Raises:
        ScoringError: A worker died over it.
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
        place: What the job was, such as "shard 000000-00000, attempt 1".
    """
    if isinstance(failed.error, FastformersError):
        raise failed.error
    raise ScoringError(f"{place}: {failed.error!r}") from failed.error
