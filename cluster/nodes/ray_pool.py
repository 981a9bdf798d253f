"""The pool of one node: a pinned Ray actor in each slot.

    supervisor -> calls -> [ray_pool] -> scoring actors -> outcomes -> supervisor

It lives in the node's supervisor. A dead actor is replaced on the same cores. Where actors cannot
start, or the node has too little memory for all of them, their slots disappear. Outcomes come by
callback, so the cost of one does not grow with the number of slots.
"""

import os
import queue
import re
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import (
    ActorUnschedulableError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastformers.cluster.devices.cards import (
    VISIBLE_CARDS,
    find_own_card,
    number_cards_by_address,
)
from fastformers.cluster.execution.topology import CardCores, CoreSet, apply_core_set
from fastformers.cluster.execution.worker import Worker, WorkerSpec
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import (
    CALLS_IN_HAND,
    Failed,
    Finished,
    Lost,
    Outcome,
    Task,
    Ticket,
    describe_job,
)
from fastformers.cluster.shards.receipts import PHASES
from fastformers.cluster.storage import outages
from fastformers.cluster.storage.outages import Outage

_MAX_FAILED_STARTS = 2
# Actors are asked what they do once in this time, and less often where there are many of them.
_ASK_EVERY_S, _ASKS_PER_S = 2.0, 50
WAIT, STORE = "wait", "store"
# What Ray says of an actor that died before it ran, as one does whose node is taken away while
# it is created, and of one whose node went: no job is to blame for either. Only its text tells.
_NEVER_RAN, _NODE_DIED = "The actor never ran", "its node has died"
_MEMORY = re.compile(r"(?P<used>[\d.]+)GB used / (?P<limit>[\d.]+)GB limit")


@dataclass(frozen=True)
class ActorState:
    """What an actor does.

    Attributes:
        phase: One of `PHASES`, or "wait".
        outage: What it waits for longest of storage that does not answer, or None.
    """

    phase: str
    outage: Outage | None = None


@ray.remote
class ScoringActor(Worker):
    """A worker that owns the cores it runs on."""

    def __init__(
        self, spec: WorkerSpec, core_set: CoreSet, name: str, cards: tuple[CardCores, ...] = ()
    ) -> None:
        """Pin this process before anything starts threads, then open the bundle.

        Where there are cards, Ray lets this process see one of them, and its cores are used.
        """
        card = None
        if cards:
            number_cards_by_address()
            card = find_own_card(os.environ.get(VISIBLE_CARDS), [plan.card for plan in cards])
            core_set = next((plan.core_set for plan in cards if plan.card == card), core_set)
        apply_core_set(core_set)
        pa.set_cpu_count(core_set.num_threads)
        pa.set_io_thread_count(1)
        self._actor_name = name
        super().__init__(
            spec,
            name,
            num_threads=core_set.num_threads,
            device="cuda" if cards else "cpu",
            card=card,
        )

    def __repr__(self) -> str:
        """Name in Ray's dashboard and logs, also where it was never given one."""
        return f"ScoringActor({getattr(self, '_actor_name', None)})"

    def describe(self) -> ActorState:
        """What it does at the moment."""
        return ActorState(phase=self.state(), outage=next(iter(outages.current()), None))


@dataclass(frozen=True, kw_only=True)
class GpuShare:
    """The GPUs of a pool, and how many of its actors share one.

    Attributes:
        cards: GPUs of the node with their cores; Ray decides which of them an actor sees.
        actors_per_gpu: Actors on each.
    """

    cards: tuple[CardCores, ...]
    actors_per_gpu: int

    @property
    def per_actor(self) -> float:
        """GPUs that an actor asks Ray for, never too many of them."""
        return _round_cpus(1 / self.actors_per_gpu)


@dataclass
class _Seat:
    """A slot with its actor.

    Attributes:
        slot: The slot.
        core_set: Cores of its actor.
        actor: The actor that it has now.
        failed_starts: How many actors in a row died in it as they started.
        is_asked: Whether the actor was asked what it does, and has not answered.
        state: What it answered last.
    """

    slot: Slot
    core_set: CoreSet
    actor: Any = None
    failed_starts: int = 0
    is_asked: bool = False
    state: ActorState | None = None


@dataclass
class _Call:
    """Tasks that an actor was given; the seat may have another actor by now."""

    seat: _Seat
    actor: Any
    tasks: Sequence[Task]
    future: "Future[list[Finished | Failed]] | None" = field(default=None, repr=False)


class RayPool:
    """Slots with running actors, on the node of this process."""

    def __init__(
        self,
        spec: Any,
        core_set_of: dict[Slot, CoreSet],
        *,
        node: str,
        cpu_share: float = 1.0,
        gpus: GpuShare | None = None,
        actor: Any = ScoringActor,
    ) -> None:
        """Plan actors.

        Args:
            spec: Description of the work that all actors share.
            core_set_of: Cores of each slot's actor.
            node: Ray's identifier of the node.
            cpu_share: CPUs that an actor asks Ray for, over its cores; less than 1 where actors
                share cores, so that all find room.
            gpus: The GPUs that the actors are on, or None.
            actor: Class of the actors, which are made from the description.
        """
        self._spec, self._node, self._actor_class = spec, node, actor
        self._cpu_share, self._gpus = cpu_share, gpus
        self._seats = {slot: _Seat(slot, core_set) for slot, core_set in core_set_of.items()}
        self._calls: dict[Ticket, _Call] = {}
        self._ended: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._last_asked = time.monotonic()
        self.trouble: str | None = None

    @property
    def slots(self) -> list[Slot]:
        """Slots where actors run."""
        return list(self._seats)

    def start(self) -> None:
        """Start an actor in every slot."""
        for seat in self._seats.values():
            self._start(seat)

    def submit(self, slot: Slot, tasks: Sequence[Task]) -> None:
        """Send tasks to the slot's actor."""
        seat = self._seats[slot]
        call = _Call(seat, seat.actor, tasks)
        self._calls.update((task.ticket, call) for task in tasks)
        # Shown in Ray's dashboard, and as the title of the actor's process.
        more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
        name = f"ScoringActor: {describe_job(tasks[0].job)}{more}"
        reference = seat.actor.run.options(name=name).remote(tasks)
        call.future = reference.future()
        call.future.add_done_callback(lambda future: self._ended.put(call))

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of tasks, as soon as some have ended; an empty list after `timeout_s`."""
        self._ask_for_states()
        outcomes: list[Outcome] = []
        try:
            call = self._ended.get(timeout=timeout_s) if timeout_s > 0 else self._ended.get_nowait()
            while True:
                outcomes += self._conclude(call)
                call = self._ended.get_nowait()
        except queue.Empty:
            return outcomes

    def kill(self, ticket: Ticket) -> None:
        """End the actor that has this task."""
        if (call := self._calls.get(ticket)) is not None:
            ray.kill(call.actor)

    def states(self) -> dict[Slot, str]:
        """What the actors do, as they said last."""
        busy = self._busy_slots()
        found = {}
        for slot, seat in self._seats.items():
            if slot not in busy:
                found[slot] = WAIT
            elif seat.state is not None:
                found[slot] = STORE if seat.state.outage else seat.state.phase
        return found

    def outages(self) -> list[str]:
        """A line about the longest wait of an actor for storage, if one waits."""
        seats = [seat for seat in self._seats.values() if seat.state and seat.state.outage]
        busy = self._busy_slots() if seats else set()
        said = [seat.state.outage for seat in seats if seat.state and seat.slot in busy]
        longest = max(filter(None, said), key=lambda outage: outage.since_s, default=None)
        return [] if longest is None else [str(longest)]

    def stop(self) -> None:
        """End all actors."""
        for seat in self._seats.values():
            if seat.actor is not None:
                ray.kill(seat.actor)

    def _busy_slots(self) -> set[Slot]:
        return {call.seat.slot for call in self._calls.values()}

    def _conclude(self, call: _Call) -> list[Outcome]:
        """Outcomes of a call that has ended, after replacing its actor if that is dead."""
        assert call.future is not None
        for task in call.tasks:
            del self._calls[task.ticket]
        error = call.future.exception()
        if error is None:
            call.seat.failed_starts = 0
            if call.seat.state is not None and call.seat.state.outage is not None:
                call.seat.state = None  # the storage has answered
            return list(call.future.result())
        as_it_started = isinstance(error, RayActorError) and (
            error.actor_init_failed or _NEVER_RAN in str(error)
        )
        is_unwanted = _is_taken_away(error)
        # Where it was not the only one, the node has too little memory for so many actors.
        had_others = len(self._seats) > 1 or call.seat.slot not in self._seats
        is_crowded = isinstance(error, OutOfMemoryError) and had_others
        reason = say_error(error)
        is_charged = not (as_it_started or is_unwanted or is_crowded)
        if call.actor is call.seat.actor:  # not yet replaced for its other call
            self._replace(
                call.seat,
                reason,
                as_it_started=as_it_started,
                is_for_good=is_unwanted or is_crowded,
            )
        return [
            Lost(ticket=task.ticket, reason=reason, is_charged=is_charged) for task in call.tasks
        ]

    def _replace(self, seat: _Seat, reason: str, *, as_it_started: bool, is_for_good: bool) -> None:
        """Start a new actor where one died; drop the slot where none can run."""
        ray.kill(seat.actor)
        seat.state, seat.is_asked = None, False
        seat.failed_starts = seat.failed_starts + 1 if as_it_started else 0
        if is_for_good or seat.failed_starts >= _MAX_FAILED_STARTS:
            self.trouble = reason
            del self._seats[seat.slot]
            seat.actor = None
            return
        self._start(seat)

    def _start(self, seat: _Seat) -> None:
        cards = (self._gpus.cards,) if self._gpus else ()
        # The name of one that is being ended is still taken, so each has a number of its own.
        name = f"scoring actor {seat.slot.name} {uuid.uuid4().hex[:6]}"
        seat.actor = self._actor_class.options(
            name=name,
            num_cpus=_round_cpus(seat.core_set.num_threads * self._cpu_share),
            num_gpus=self._gpus.per_actor if self._gpus else 0,
            max_concurrency=CALLS_IN_HAND + 1,  # and one that says what it does
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=False),
        ).remote(self._spec, seat.core_set, seat.slot.name, *cards)

    def _ask_for_states(self) -> None:
        """Ask the busy actors what they do, once in a while."""
        now = time.monotonic()
        if now - self._last_asked < max(_ASK_EVERY_S, len(self._seats) / _ASKS_PER_S):
            return
        self._last_asked = now
        for seat in {id(call.seat): call.seat for call in self._calls.values()}.values():
            if not seat.is_asked and seat.actor is not None:
                seat.is_asked = True
                future = seat.actor.describe.remote().future()
                future.add_done_callback(lambda done, seat=seat: _take_state(seat, done))


def _take_state(seat: _Seat, future: "Future[ActorState]") -> None:
    seat.is_asked = False
    if future.exception() is None:
        seat.state = future.result()
        assert seat.state.phase in (*PHASES, WAIT)


def _round_cpus(num_cpus: float) -> float:
    """CPUs as Ray counts them: whole ones, or a part of one to four digits, never too many."""
    return int(num_cpus) if num_cpus >= 1 else int(num_cpus * 10_000) / 10_000


def _is_taken_away(error: BaseException) -> bool:
    """Whether Ray is taking the node away, or has taken it."""
    return isinstance(error, ActorUnschedulableError) or (
        isinstance(error, RayActorError) and _NODE_DIED in str(error)
    )


def _free(error: OutOfMemoryError) -> str:
    """How much memory was free, where Ray says how much was used."""
    found = _MEMORY.search(str(error))
    if found is None:
        return ""
    used, limit = float(found["used"]), float(found["limit"])
    return f": {limit - used:.1f} GB of {limit:.1f} GB were free"


def say_error(error: BaseException) -> str:
    """What an error of Ray says, in one line: the last of the cause's own message where it has one.

    Ray wraps what a constructor raised in a text of many lines.
    """
    if isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    if _is_taken_away(error):
        return "Ray starts no more actors there, because it is taking the node away"
    if isinstance(error, OutOfMemoryError):
        return f"Ray's memory monitor ended it, because the node is short of memory{_free(error)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RayActorError):
        if error.actor_init_failed and lines:
            return lines[-1]
        return f"its actor died ({type(error).__name__})"
    return lines[-1] if lines else type(error).__name__
