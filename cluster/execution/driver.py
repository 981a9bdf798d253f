"""The loop of a run: hand out slices and shards, wait, commit, and give back what was lost.

    slices, shards -> [driver] -> leases -> actors -> receipts -> report

Actors prepare slices while few shards wait, and score the costliest shard otherwise: the first
shard is scored while the last is still being read. While more waits than there are actors, each has
a second job in hand, which it reads while it computes the first. The driver holds O(shards), moves
no rows, and trusts only files: what is on disk when it starts is not done again.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError

from cluster.corpus.slices import Slice
from cluster.execution.ray_pool import ActorPool, Slot
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt
from cluster.shards.receipts import Attempt, Receipt
from cluster.shards.shard_queue import Lease, ShardQueue
from fastformers.errors import FastformersError, InputError, ScoringError

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_MAX_SLICE_ATTEMPTS = 3
# A lease is lost when it takes far longer than the bundle's profile says on the slowest machine.
_TIMEOUT_FLOOR_S, _TIMEOUT_FACTOR = 300.0, 30.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, for whoever shows it.

    Attributes:
        receipts: Shards finished since the last call.
        num_done, num_known: Shards finished in this run; shards known to this run.
        predicted_left_s: Core-seconds of the known shards that are not finished, and of the slices
            that are not cut yet, taken to be like those that are.
        num_slices_left: Slices still to cut.
    """

    receipts: list[Receipt]
    num_done: int
    num_known: int
    predicted_left_s: float
    num_slices_left: int


@dataclass
class _Task:
    slot: Slot
    actor: Any
    job: Lease | Slice
    allowed_s: float
    started: float
    deadline: float | None = None  # None while the actor computes the job before
    overdue: bool = False

    def begin(self) -> None:
        """Its actor has nothing before it any more."""
        self.started = time.perf_counter()
        self.deadline = time.monotonic() + self.allowed_s


class Driver:
    """Runs slices and shards through a pool of actors until none is left."""

    def __init__(
        self,
        pool: ActorPool,
        *,
        slices: Iterable[Slice],
        shards: Iterable[Shard],
        scores: bool,
        done: frozenset[str] = frozenset(),
        timeout_s: float | None = None,
        fail_on_bad_row: bool = False,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        start: float = 0.0,
    ) -> None:
        """Set up a run.

        Args:
            pool: Started actors.
            slices: Still to cut, in corpus order.
            shards: Already cut.
            scores: Whether shards are to be scored, or only cut.
            done: Names of shards whose predictions are on disk.
            timeout_s: Seconds a shard may take; by default 30 times what was predicted.
            fail_on_bad_row: Stop at the first row that cannot be scored.
            on_progress: Called about once a second.
            start: `time.perf_counter()` at the start of the run, which attempts count from.
        """
        self._pool = pool
        self._slices = deque(slices)
        self._slice_attempts: dict[tuple[int, int], int] = {}
        self._queue = ShardQueue()
        self._scores = scores
        self._done = done
        self._timeout_s = timeout_s
        self._fail_on_bad_row = fail_on_bad_row
        self._on_progress = on_progress
        self._start = start
        self.actor_cores = {slot.name: slot.core_set.num_threads for slot in pool.slots}
        self._tasks: dict[Any, _Task] = {}
        self._fresh: list[Receipt] = []
        self._num_known = self._num_done = 0
        self._predicted_left_s = self._predicted_cut_s = 0.0
        self.shards: list[Shard] = []
        self.receipts: list[Receipt] = []
        self.slice_receipts: list[SliceReceipt] = []
        self.attempts: list[Attempt] = []
        for shard in shards:
            self._add(shard)

    @property
    def slots(self) -> list[Slot]:
        """Where actors run."""
        return self._pool.slots

    @property
    def self_check(self) -> list[str]:
        """Which actors run on which cores."""
        return self._pool.self_check

    @property
    def num_idle_cores(self) -> int:
        """Cores of the actors' nodes that no actor owns."""
        return self._pool.num_idle_cores

    @property
    def num_retries(self) -> int:
        """Leases that were lost with their actor."""
        return self._queue.num_retries

    def run(self) -> None:
        """WorkerSpec until everything is cut, scored and on disk.

        Raises:
            FastformersError: An input, the storage, or a row that may not be skipped is at fault.
        """
        while True:
            self._hand_out()
            if not self._tasks:
                break
            ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=_POLL_S)
            for reference in ready:
                self._finish(reference, self._tasks.pop(reference))
            self._kill_overdue()
            self._report()
        if self._slices or len(self._queue):
            raise InputError("every node has left the cluster; add nodes and run the same command")
        self._report()

    def _hand_out(self) -> None:
        """Give every idle actor a job, then a second one to those that have one."""
        held: dict[int, list[_Task]] = {id(slot): [] for slot in self._pool.slots}
        for task in self._tasks.values():
            held.setdefault(id(task.slot), []).append(task)
        for slot in self._pool.slots:
            if not held[id(slot)] and (job := self._next_job()):
                held[id(slot)].append(self._submit(slot, job))
                held[id(slot)][0].begin()
        for slot in self._pool.slots:
            jobs = [task.job for task in held[id(slot)]]
            if len(jobs) == 1 and self._is_fresh(jobs[0]) and (job := self._next_job(ahead=True)):
                self._submit(slot, job)

    def _submit(self, slot: Slot, job: Lease | Slice) -> _Task:
        if isinstance(job, Lease):
            reference = slot.actor.score.remote(job)
            allowed_s = max(_TIMEOUT_FLOOR_S, _TIMEOUT_FACTOR * job.shard.predicted_s)
        else:
            reference = slot.actor.prepare.remote(job)
            allowed_s = _TIMEOUT_FLOOR_S
        self._tasks[reference] = _Task(
            slot, slot.actor, job, self._timeout_s or allowed_s, time.perf_counter()
        )
        return self._tasks[reference]

    def _next_job(self, *, ahead: bool = False) -> Lease | Slice | None:
        """What comes next, or None.

        Args:
            ahead: For an actor that has a job: then only if more waits than there are actors, or
                others might have to wait for what this one hoards; and only if it was never tried,
                for if the actor dies, both of its jobs are suspected.
        """
        if ahead and len(self._queue) + len(self._slices) <= len(self._pool.slots):
            return None
        can_cut = bool(self._slices) and not (ahead and not self._is_fresh(self._slices[0]))
        enough_waits = self._scores and len(self._queue) >= len(self._pool.slots)
        if can_cut and not enough_waits:
            return self._slices.popleft()
        if self._scores and (lease := self._queue.lease(fresh_only=ahead)):
            return lease
        return self._slices.popleft() if can_cut else None

    def _is_fresh(self, job: Lease | Slice) -> bool:
        """Whether no actor has died over it."""
        if isinstance(job, Lease):
            return job.attempt == 1
        return (job.index, job.first_shard) not in self._slice_attempts

    def _finish(self, reference: Any, task: _Task) -> None:
        for other in self._tasks.values():
            if other.slot is task.slot and other.deadline is None:
                other.begin()
        try:
            result = ray.get(reference)
        except RayActorError as error:
            self._record_attempt(task, None, is_lost=True)
            self._requeue(task, error)
            return
        except RayTaskError as error:
            if isinstance(error.cause, FastformersError):
                raise error.cause from error
            raise ScoringError(f"{_describe(task.job)}: {error.cause!r}") from error
        task.slot.failed_starts = 0
        self._record_attempt(task, result, is_lost=False)
        if isinstance(task.job, Slice):
            self._take_slice(result)
        elif self._queue.complete(task.job):
            self._take_receipt(result)

    def _record_attempt(
        self, task: _Task, result: SliceReceipt | Receipt | None, *, is_lost: bool
    ) -> None:
        job = task.job
        kind: Literal["prepare", "score", "search"]
        if isinstance(job, Lease):
            kind = "score" if job.probe is None else "search"
            name, number = job.shard.name, job.attempt
        else:
            kind, name = "prepare", f"slice {job.index}"
            number = self._slice_attempts.get((job.index, job.first_shard), 0) + 1
        self.attempts.append(
            Attempt(
                actor=task.slot.name,
                job=kind,
                name=name,
                number=number,
                start_s=task.started - self._start,
                end_s=time.perf_counter() - self._start,
                is_lost=is_lost,
                phase_s=result.phase_s if result is not None else {},
            )
        )

    def _take_slice(self, receipt: SliceReceipt) -> None:
        if receipt.first_bad is not None and self._fail_on_bad_row:
            raise ScoringError(
                f"{receipt.first_bad}; repair it, or use --on-bad-row dead-letter to go on"
            )
        self.slice_receipts.append(receipt)
        if receipt.rest is not None:
            self._slices.appendleft(receipt.rest)
        for shard in receipt.shards:
            self._predicted_cut_s += shard.predicted_s
            self._add(shard)

    def _add(self, shard: Shard) -> None:
        self.shards.append(shard)
        if shard.name in self._done:
            return
        self._num_known += 1
        self._predicted_left_s += shard.predicted_s
        if self._scores:
            self._queue.add(shard)

    def _take_receipt(self, receipt: Receipt) -> None:
        if receipt.num_errors and self._fail_on_bad_row:
            raise ScoringError(
                f"shard {receipt.shard}: {receipt.num_errors} rows could not be scored; see the "
                "error column of its predictions, or use --on-bad-row dead-letter to go on"
            )
        self._num_done += 1
        self._predicted_left_s -= receipt.predicted_s
        self.receipts.append(receipt)
        self._fresh.append(receipt)

    def _requeue(self, task: _Task, error: RayActorError) -> None:
        """Give back what a dead actor had, and put another actor in its place."""
        reason = _reason(task, error)
        logger.warning("%s: %s; retrying", _describe(task.job), reason)
        if isinstance(task.job, Lease):
            self._queue.fail(task.job, reason)
        else:
            key = task.job.index, task.job.first_shard
            self._slice_attempts[key] = self._slice_attempts.get(key, 0) + 1
            if self._slice_attempts[key] >= _MAX_SLICE_ATTEMPTS:
                raise ScoringError(f"{_describe(task.job)}: {reason}, three times in a row")
            self._slices.appendleft(task.job)
        if task.actor is task.slot.actor:  # not yet for its other job
            self._pool.replace(task.slot, as_it_started=error.actor_init_failed)

    def _kill_overdue(self) -> None:
        for task in self._tasks.values():
            if task.deadline is None or task.overdue:
                continue
            if time.monotonic() > task.deadline:
                task.overdue = True
                ray.kill(task.actor)

    def _report(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._on_progress(
            Progress(
                receipts=fresh,
                num_done=self._num_done,
                num_known=self._num_known,
                predicted_left_s=self._predicted_left_s + self._estimate_uncut_s(),
                num_slices_left=len(self._slices),
            )
        )

    def _estimate_uncut_s(self) -> float:
        """Core-seconds of the slices that are left, from the average of those cut in this run."""
        if not self.slice_receipts:
            return 0.0
        return self._predicted_cut_s / len(self.slice_receipts) * len(self._slices)


def _describe(job: Lease | Slice) -> str:
    if isinstance(job, Lease):
        return f"shard {job.shard.name}, attempt {job.attempt}"
    return f"slice {job.index} ({job.pieces[0].path})"


def _reason(task: _Task, error: RayActorError) -> str:
    if task.overdue:
        return "it took longer than its time limit (--timeout-s)"
    return f"its actor died ({type(error).__name__})"
