"""The slots of one node: places with a worker each, which take calls and answer for them.

    supervisor -> calls of one or more tasks -> [pool] -> slots -> outcomes -> supervisor

Two pools implement this: `nodes/ray_pool` has a pinned Ray actor in each slot, `execution/local` a
worker in this process. This module knows nothing of Ray, models or prices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastformers.cluster.scheduling.work import CALLS_IN_HAND, Outcome, Task, Ticket


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where jobs are done.

    Attributes:
        name: Host and cores, as shown in reports.
        num_cores: Physical cores that it owns.
        max_calls: Calls that it holds at once, the one that computes included.
    """

    name: str
    num_cores: int = 1
    max_calls: int = CALLS_IN_HAND


class Pool(Protocol):
    """Slots, and the calls that they have in hand."""

    @property
    def slots(self) -> Sequence[Slot]:
        """Slots that take calls now; one whose workers cannot start disappears."""

    @property
    def trouble(self) -> str | None:
        """Why slots have disappeared, in the words of the worker; None if none has."""

    def start(self) -> None:
        """Start a worker in every slot."""

    def submit(self, slot: Slot, tasks: Sequence[Task]) -> None:
        """Give a slot a call, and return at once; its tasks are done one after another."""

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of tasks, as soon as there are some; an empty list after `timeout_s` seconds.

        A worker that died is replaced before its tasks are reported as lost.
        """

    def kill(self, ticket: Ticket) -> None:
        """End the worker that has this task; all of its tasks come back as lost."""

    def states(self) -> Mapping[Slot, str]:
        """What slots do, as far as it is known: a phase of `receipts.PHASES`, "store" or "wait"."""

    def outages(self) -> Sequence[str]:
        """Lines about storage that does not answer the workers at the moment."""

    def stop(self) -> None:
        """End all workers."""
