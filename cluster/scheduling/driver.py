"""The loop of a run: hand out slices and shards, wait, commit, and requeue what was lost.

    slices, shards -> [driver] -> jobs -> pool -> outcomes, receipts -> report

Workers prepare slices while few shards wait, and score the costliest shard otherwise: the first
shard is scored while the last is still being read. While more waits than there are workers, each
has a second job in hand, which it reads while it computes the first. The driver holds a record for
each shard, moves no rows, and trusts only files: what is on disk when it starts is not done again.
It knows neither Ray nor the time of day: the pool and the clock are handed in.
"""

import logging
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Literal

from cluster.corpus.slices import Slice
from cluster.scheduling.journal import Journal, NodeUse
from cluster.scheduling.pool import (
    Failed,
    Finished,
    Lost,
    Outcome,
    Pool,
    Slot,
    Ticket,
    raise_failure,
)
from cluster.scheduling.progress import Progress
from cluster.scheduling.work import JobResult
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt
from cluster.shards.receipts import Attempt, Receipt
from cluster.shards.shard_queue import Lease, ShardQueue
from fastformers.errors import InputError, ScoringError

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_MAX_SLICE_ATTEMPTS = 3
# A lease is lost when it takes far longer than the bundle's profile says on the slowest machine.
_TIMEOUT_FLOOR_S, _TIMEOUT_FACTOR = 300.0, 30.0


@dataclass(frozen=True, kw_only=True)
class DriverResult:
    """When a pool worked.

    Attributes:
        setup_s: Seconds from the run's start until the first job could be handed out.
        work_end_s: Seconds from the run's start until the last job was done.
    """

    setup_s: float
    work_end_s: float


@dataclass
class _Task:
    """A job in hand.

    Attributes:
        slot: Slot that has it.
        job: Shard to score or slice to cut.
        allowed_s: Seconds that it may take.
        started: Clock reading when its turn in the slot came; until then, when it was submitted.
        deadline: Clock reading after which it is overdue; None until its turn comes.
        is_overdue: Whether its worker was ended because it was overdue.
    """

    slot: Slot
    job: Lease | Slice
    allowed_s: float
    started: float
    deadline: float | None = None
    is_overdue: bool = False

    def begin(self, now: float) -> None:
        """Start its time, because no other job of its slot is before it any more."""
        self.started = now
        self.deadline = now + self.allowed_s


class Driver:
    """Runs slices and shards through a pool until none is left."""

    def __init__(
        self,
        pool: Pool,
        *,
        slices: Iterable[Slice],
        shards: Iterable[Shard],
        scores: bool,
        journal: Journal,
        clock: Callable[[], float],
        start: float,
        done: Container[str] = frozenset(),
        timeout_s: float | None = None,
        fail_on_bad_row: bool = False,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Set up a run.

        Args:
            pool: Pool that does the work; it is running when `run` is called.
            slices: Slices still to cut, in corpus order.
            shards: Shards already cut.
            scores: Whether shards are to be scored, or only cut.
            journal: Listener that is told everything that happens.
            clock: Monotonic clock, in seconds.
            start: Clock reading at the start of the run, from which the times of attempts count.
            done: Names of shards whose predictions are on disk.
            timeout_s: Seconds that a job may take; None for 300, or 30 times what was predicted of
                a shard if that is more.
            fail_on_bad_row: Whether to stop at the first row that cannot be scored.
            on_progress: Function that is called about once a second.
        """
        self._pool = pool
        self._slices = deque(slices)
        self._slice_attempts: dict[tuple[int, int], int] = {}
        self._queue = ShardQueue()
        self._scores = scores
        self._journal = journal
        self._clock = clock
        self._start = start
        self._done = done
        self._timeout_s = timeout_s
        self._fail_on_bad_row = fail_on_bad_row
        self._on_progress = on_progress
        self._tasks: dict[Ticket, _Task] = {}
        self._num_known = self._num_done = self._num_cut = 0
        self._num_rows = self._num_tokens = self._num_errors = 0
        self._predicted_done_s = self._predicted_left_s = self._predicted_cut_s = 0.0
        for shard in shards:
            self._add(shard)

    def run(self) -> DriverResult:
        """Work until everything is cut, scored and on disk.

        Raises:
            FastformersError: An input, the storage, or a row that may not be skipped is at fault.
        """
        setup_s = self._clock() - self._start
        while True:
            self._hand_out()
            if not self._tasks:
                break
            for outcome in self._pool.wait(_POLL_S):
                self._take(outcome)
            self._kill_overdue()
            self._report()
        if self._slices or len(self._queue):
            raise InputError("every node has left the cluster; add nodes and run the same command")
        self._report()
        work_end_s = self._clock() - self._start
        self._tell_nodes(setup_s, work_end_s)
        return DriverResult(setup_s=setup_s, work_end_s=work_end_s)

    def _tell_nodes(self, setup_s: float, work_end_s: float) -> None:
        hosts = sorted({slot.host for slot in self._pool.slots})
        for number, host in enumerate(hosts):
            own = {slot.name: slot.num_cores for slot in self._pool.slots if slot.host == host}
            num_idle_cores = 0 if number else self._pool.num_idle_cores
            self._journal.add_node(
                NodeUse(
                    node=host,
                    name=host,
                    instance_type=None,
                    joined_s=0.0,
                    ready_s=setup_s,
                    left_s=work_end_s,
                    num_cores=sum(own.values()) + num_idle_cores,
                    num_idle_cores=num_idle_cores,
                    actor_cores=own,
                    self_check="" if number else "; ".join(self._pool.self_check),
                )
            )

    def _hand_out(self) -> None:
        """Give every idle slot a job, then more to those that can hold more."""
        held: dict[Slot, list[_Task]] = {slot: [] for slot in self._pool.slots}
        for task in self._tasks.values():
            held.setdefault(task.slot, []).append(task)
        for slot in self._pool.slots:
            if not held[slot] and (job := self._next_job()):
                held[slot].append(self._submit(slot, job))
                held[slot][0].begin(self._clock())
        for slot in self._pool.slots:
            tasks = held[slot]
            while (
                0 < len(tasks) < slot.max_jobs
                and all(self._is_fresh(task.job) for task in tasks)
                and (job := self._next_job(ahead=True))
            ):
                tasks.append(self._submit(slot, job))

    def _submit(self, slot: Slot, job: Lease | Slice) -> _Task:
        allowed_s = _TIMEOUT_FLOOR_S
        if isinstance(job, Lease):
            allowed_s = max(allowed_s, _TIMEOUT_FACTOR * job.shard.predicted_s)
        task = _Task(slot, job, self._timeout_s or allowed_s, self._clock())
        self._tasks[self._pool.submit(slot, job)] = task
        return task

    def _next_job(self, *, ahead: bool = False) -> Lease | Slice | None:
        """The next job, or None.

        Args:
            ahead: Whether it is for a slot that has a job already. Then it is given only if more
                jobs wait than there are slots, because others might idle while this one holds it;
                and only if it was never tried, because if the worker dies, both of its jobs are
                suspected.
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
        """Whether this is the first attempt at it."""
        if isinstance(job, Lease):
            return job.attempt == 1
        return (job.index, job.first_shard) not in self._slice_attempts

    def _take(self, outcome: Outcome) -> None:
        """Handle the outcome of a job."""
        task = self._tasks.pop(outcome.ticket)
        waits = (t for t in self._tasks.values() if t.slot == task.slot and t.deadline is None)
        if after_it := next(waits, None):
            after_it.begin(self._clock())
        match outcome:
            case Failed():
                raise_failure(outcome, _describe(task.job))
            case Lost():
                self._record_attempt(task, None, is_lost=True)
                self._requeue(task, outcome)
            case Finished():
                self._record_attempt(task, outcome.result, is_lost=False)
                self._commit(task.job, outcome.result)

    def _commit(self, job: Lease | Slice, result: JobResult) -> None:
        if isinstance(job, Slice):
            assert isinstance(result, SliceReceipt)
            self._take_slice(result)
        elif self._queue.complete(job):
            assert isinstance(result, Receipt)
            self._take_receipt(result)

    def _record_attempt(self, task: _Task, result: JobResult, *, is_lost: bool) -> None:
        job = task.job
        kind: Literal["prepare", "score", "search"]
        if isinstance(job, Lease):
            kind = "score" if job.probe is None else "search"
            name, number = job.shard.name, job.attempt
        else:
            kind, name = "prepare", f"slice {job.index}"
            number = self._slice_attempts.get((job.index, job.first_shard), 0) + 1
        self._journal.add_attempt(
            Attempt(
                node=task.slot.host,
                actor=task.slot.name,
                job=kind,
                name=name,
                number=number,
                start_s=task.started - self._start,
                end_s=self._clock() - self._start,
                is_lost=is_lost,
                phase_s=result.phase_s if isinstance(result, SliceReceipt | Receipt) else {},
            )
        )

    def _take_slice(self, receipt: SliceReceipt) -> None:
        if receipt.first_bad is not None and self._fail_on_bad_row:
            raise ScoringError(
                f"{receipt.first_bad}; repair it, or use --on-bad-row dead-letter to go on"
            )
        self._num_cut += 1
        self._journal.add_slice(receipt)
        if receipt.rest is not None:
            self._slices.appendleft(receipt.rest)
        for shard in receipt.shards:
            self._predicted_cut_s += shard.predicted_s
            self._journal.add_shard(shard)
            self._add(shard)

    def _add(self, shard: Shard) -> None:
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
        self._num_rows += receipt.num_rows
        self._num_tokens += receipt.num_tokens
        self._num_errors += receipt.num_errors
        self._predicted_done_s += receipt.predicted_s
        self._journal.add_receipt(receipt)

    def _requeue(self, task: _Task, lost: Lost) -> None:
        """Put a lost job back in its queue."""
        reason = lost.reason
        if task.is_overdue:
            reason = "it took longer than its time limit (--timeout-s)"
        logger.warning("%s: %s; retrying", _describe(task.job), reason)
        if isinstance(task.job, Lease):
            self._queue.fail(task.job, reason)
            return
        key = task.job.index, task.job.first_shard
        self._slice_attempts[key] = self._slice_attempts.get(key, 0) + 1
        if self._slice_attempts[key] >= _MAX_SLICE_ATTEMPTS:
            raise ScoringError(f"{_describe(task.job)}: {reason}, three times in a row")
        self._slices.appendleft(task.job)

    def _kill_overdue(self) -> None:
        for ticket, task in self._tasks.items():
            if task.deadline is None or task.is_overdue:
                continue
            if self._clock() > task.deadline:
                task.is_overdue = True
                self._pool.kill(ticket)

    def _report(self) -> None:
        elapsed_s = self._clock() - self._start
        hosts = {slot.host for slot in self._pool.slots}
        self._on_progress(
            Progress(
                elapsed_s=elapsed_s,
                num_done=self._num_done,
                num_known=self._num_known,
                num_rows=self._num_rows,
                num_tokens=self._num_tokens,
                num_errors=self._num_errors,
                num_retries=self._queue.num_retries,
                predicted_done_s=self._predicted_done_s,
                predicted_left_s=self._predicted_left_s + self._estimate_uncut_s(),
                num_slices_left=len(self._slices),
                node_s={None: elapsed_s * len(hosts)},
                num_nodes=len(hosts),
                num_actors=len(self._pool.slots),
            )
        )

    def _estimate_uncut_s(self) -> float:
        """Core-seconds of the slices that are left, from the average of those cut in this run."""
        if not self._num_cut:
            return 0.0
        return self._predicted_cut_s / self._num_cut * len(self._slices)


def _describe(job: Lease | Slice) -> str:
    if isinstance(job, Lease):
        return f"shard {job.shard.name}, attempt {job.attempt}"
    return f"slice {job.index} ({job.pieces[0].path})"
