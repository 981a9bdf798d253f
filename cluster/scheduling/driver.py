"""The loop of a run: lease jobs to nodes, take their reports, and requeue what was lost.

    slices, shards -> [driver] -> orders -> nodes -> reports -> journal

A node is leased what it needs for some seconds. At the end of the work, what a node has not begun
is given to those that idle, and what a slow node would end late is begun elsewhere as well
(`tail.py`). What happened is told to a journal and forgotten: the driver holds nothing for a
finished shard, and handles a report in time that depends on the report alone. It moves no rows, and
trusts only files: what is on disk when it starts is not done again. It knows neither Ray nor the
time of day: nodes and clock are handed in.
"""

import logging
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from itertools import count

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.devices.crew import Crew, Wants
from fastformers.cluster.scheduling.backlog import Backlog
from fastformers.cluster.scheduling.journal import Journal, NodeUse, attempt_of
from fastformers.cluster.scheduling.node_books import Leased, NodeBooks
from fastformers.cluster.scheduling.nodes import (
    Ended,
    NodeEvent,
    NodeJoined,
    NodeLeft,
    NodeRefused,
    NodeReport,
    NodeReported,
    Nodes,
    Orders,
)
from fastformers.cluster.scheduling.progress import Before, Counts, DriverResult, Progress
from fastformers.cluster.scheduling.tail import Tail
from fastformers.cluster.scheduling.work import (
    Failed,
    Finished,
    JobResult,
    Lost,
    Returned,
    Task,
    Ticket,
    Work,
)
from fastformers.cluster.scheduling.work import describe_job as describe
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import InputError
from fastformers.formatting import format_count

logger = logging.getLogger(__name__)

_POLL_S, _PROGRESS_EVERY_S = 0.5, 1.0
# A node answers at least this often; often while it has free slots, so that new work reaches it.
_WAIT_S, _TAIL_WAIT_S, _HUNGRY_WAIT_S = 2.0, 0.5, 0.05
# With many nodes each answers less often, so that calls do not take up the driver.
_CALLS_PER_S, _HUNGRY_CALLS_PER_S = 500, 200
# A node that raises this many errors and does nothing else is left out, if there is another.
_MAX_NODE_ERRORS = 3
_NOTHING_TO_PREPARE = "nothing is left to tokenize"
# Without nodes, one is waited for; on a cluster of its own only until it is there again.
_NO_NODES_S, _RESTART_S = 300.0, 15.0


class Driver:
    """Runs slices and shards through nodes until none is left."""

    def __init__(
        self,
        nodes: Nodes,
        *,
        slices: Iterable[Slice],
        shards: Iterable[Shard],
        scores: bool,
        journal: Journal,
        clock: Callable[[], float],
        start: float,
        done: Container[str] = frozenset(),
        before: Before | None = None,
        crew: Crew | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set up a run.

        Args:
            nodes: Nodes that do the work; they are running when `run` is called.
            slices: Slices still to cut, in corpus order.
            shards: Shards already cut and not scored.
            scores: Whether shards are to be scored, or only cut.
            journal: Where everything that happens is told.
            clock: Monotonic clock, in seconds.
            start: Clock reading at the start of the run, from which all times count.
            done: Names of shards whose predictions are on disk.
            before: What earlier sessions have done; None for nothing.
            crew: Which kinds of nodes score; those on cores by default.
            on_progress: Function that is called about once a second.
            log: Function that shows a line for each node that joins.
        """
        self._log = log
        self._nodes, self._journal = nodes, journal
        self._scores, self._done = scores, done
        self._clock, self._start, self._on_progress = clock, start, on_progress
        self._crew = crew or Crew()
        self._backlog = Backlog(slices, scores=scores, gpu_shard_s=self._crew.gpu_shard_s)
        self._books: dict[str, NodeBooks] = {}
        self._num_stays: dict[str, int] = {}
        self._leased: dict[Ticket, Leased] = {}
        self._tail = Tail(self._books, clock)
        self._tickets = count()
        self._is_waiting = False
        self._refused: dict[str, str] = {}
        self._setup_s: float | None = None
        self._without_nodes_since = self._last_progress = clock()
        self._counts = Counts(scores=scores, before=before)
        for shard in shards:
            self._add(shard)

    def run(self) -> DriverResult:
        """Work until everything is cut, scored and on disk.

        Raises:
            FastformersError: An input or the storage is at fault, or there is no node to work on;
                or the journal raised it.
        """
        try:
            while len(self._backlog) or self._leased:
                for event in self._nodes.wait(_POLL_S):
                    self._handle(event)
                self._check_nodes()
                if not len(self._backlog):
                    self._tail.balance(self._leased)
                self._report()
        finally:
            now = self._clock()
            for books in list(self._books.values()):
                self._forget(books, None)
        self._report(is_last=True)
        return DriverResult(setup_s=self._setup_s or 0.0, work_end_s=now - self._start)

    def uses(self) -> list[NodeUse]:
        """The nodes that work, and how long they have been used."""
        now = self._clock()
        return [books.use(now, self._start, None) for books in self._books.values()]

    def _handle(self, event: NodeEvent) -> None:
        match event:
            case NodeJoined():
                self._welcome(event)
            case NodeReported() if event.id in self._books:
                self._take(self._books[event.id], event.report)
            case NodeLeft() if event.id in self._books:
                self._lose(self._books[event.id], event.reason)
            case NodeRefused():
                self._refuse(event.name, event.reason)

    def _welcome(self, event: NodeJoined) -> None:
        """Begin to use a node."""
        node, now = event.node, self._clock()
        since = self._start if event.seen is None else event.seen
        self._num_stays[node.id] = number = self._num_stays.get(node.id, 0) + 1
        stay = node.id if number == 1 else f"{node.id}/{number}"
        books = NodeBooks(node, stay, since, now, len(node.slots))
        self._books[node.id] = books
        self._crew.set(node.id, node.device, books.num_slots)
        self._counts.add_node(books)
        self._log(node.self_check)
        if self._setup_s is None:
            self._setup_s = now - self._start
        self._exchange(books)

    def _take(self, books: NodeBooks, report: NodeReport) -> None:
        """Handle a node's report, and send it new orders."""
        if 0 < report.num_slots < books.num_slots:
            left = format_count(report.num_slots, "actor")
            logger.warning("node %s goes on with %s: %s", books.node.name, left, report.trouble)
        self._crew.set(books.node.id, books.node.device, report.num_slots)
        books.num_slots, books.doing = report.num_slots, report.doing
        books.notices = report.notices
        for ticket, began in report.begun:
            if (leased := self._leased.get(ticket)) is not None:
                leased.began = began
        for ended in report.ended:
            self._end(books, ended)
        if report.leaving and not books.leaving:
            logger.warning("node %s: %s; it gets no more work", books.node.name, report.leaving)
            books.take_back += [t for t, leased in books.leased.items() if leased.began is None]
        books.leaving = report.leaving
        others = len(self._books) > 1
        if report.num_slots == 0:
            self._drop(books, report.trouble or "it has no workers left")
        elif books.num_errors >= _MAX_NODE_ERRORS and others:
            self._drop(books, books.last_error)
        elif books.leaving and not books.leased:
            self._nodes.release(books.node.id, books.leaving)
            self._lose(books, books.leaving)
        elif not (books.node.scores or books.leased or self._backlog.num_slices_left):
            self._nodes.release(books.node.id, _NOTHING_TO_PREPARE)
            self._forget(books, _NOTHING_TO_PREPARE)
        else:
            self._exchange(books)

    def _exchange(self, books: NodeBooks) -> None:
        """Send a node what it should do next; it answers when it needs more."""
        wants = self._wants(books)
        is_plenty = self._backlog.num_for(wants) > wants.num_slots
        wanted = books.num_wanted if is_plenty else books.num_slots
        give: list[Task] = []
        if not books.leaving:
            while len(books.leased) < wanted and (leased := self._lease_to(books)):
                give.append(leased.task)
        wait_s = max(_WAIT_S if is_plenty else _TAIL_WAIT_S, len(self._books) / _CALLS_PER_S)
        if books.num_free_slots:
            wait_s = max(_HUNGRY_WAIT_S, len(self._books) / _HUNGRY_CALLS_PER_S)
        take_back, books.take_back = books.take_back, []
        orders = Orders(
            give=tuple(give),
            take_back=tuple(take_back),
            answer_below=books.answer_below(wanted),
            is_plenty=is_plenty,
            wait_s=wait_s,
            now=self._clock(),
        )
        self._nodes.exchange(books.node.id, orders)

    def _wants(self, books: NodeBooks) -> Wants:
        return self._crew.wants(books.node.device, may_grow=self._nodes.num_starting > 0)

    def _lease_to(self, books: NodeBooks) -> Leased | None:
        """Put the next job into a node's hands."""
        node, wants = books.node.id, self._wants(books)
        backlog, left_s = self._backlog, self._counts.left_s
        if wants.shortest and not backlog.num_slices_left:
            is_late = self._tail.ends_late(books, backlog.shortest_s, left_s)
            wants = replace(wants, scores=not is_late)
        job = backlog.next(node, wants)
        twin = None
        if job is None:
            twin = self._tail.take_copy(node)
            if twin is None:
                return None
            job = twin.job
        task = Task(ticket=Ticket(next(self._tickets)), job=job)
        leased = Leased(task, job, books, self._clock(), twin=twin)
        if twin is not None:
            twin.twin = leased
        self._leased[task.ticket] = books.leased[task.ticket] = leased
        return leased

    def _end(self, books: NodeBooks, ended: Ended) -> None:
        """Handle the end of a job."""
        outcome = ended.outcome
        leased = self._leased.pop(outcome.ticket, None)
        if leased is None:  # another node was faster
            return
        del books.leased[outcome.ticket]
        twin, job = leased.twin, leased.job
        if twin is not None:
            twin.twin = None
        if ended.slot is not None:
            number = self._backlog.attempts_of(job)
            self._journal.add_attempt(
                attempt_of(job, ended, node=books.stay, number=number, start=self._start)
            )
        match outcome:
            case Finished():
                books.num_errors = 0
                books.add_pace(job, outcome.seconds)
                self._crew.learn(books.node.device, books.pace.factor)
                self._counts.add_finished(books, ended)
                if twin is not None:  # if its node has begun it, it goes on in vain
                    del self._leased[twin.task.ticket], twin.node.leased[twin.task.ticket]
                    twin.node.take_back.append(twin.task.ticket)
                self._commit(job, outcome.result)
            case Failed():
                books.num_errors += 1
                books.last_error = f"{describe(job)}: {outcome.error}"
                logger.warning("node %s: %s", books.node.name, books.last_error)
                if twin is None:
                    self._backlog.fail_with(
                        job, outcome.error, books.node.id, may_pass=outcome.may_pass
                    )
            case Lost() if twin is None:
                logger.warning("%s: %s; retrying", describe(job), outcome.reason)
                if outcome.is_charged:
                    self._backlog.fail(job, outcome.reason)
                else:
                    self._backlog.give_back(job)
            case Returned() if twin is None:
                self._backlog.give_back(job)

    def _commit(self, job: Work, result: JobResult) -> None:
        if not self._backlog.complete(job):
            return
        match result:
            case SliceReceipt():
                self._take_slice(result)
            case Receipt():
                assert isinstance(job, Lease)
                self._take_receipt(job.shard, result)
            case Agreement():
                self._journal.add_agreement(result)

    def _take_slice(self, receipt: SliceReceipt) -> None:
        self._journal.add_slice(receipt)
        self._counts.add_slice(receipt)
        if receipt.rest is not None:
            self._backlog.add_rest(receipt.rest)
        for shard in receipt.shards:
            self._journal.add_shard(shard)
            if shard.name not in self._done:
                self._add(shard)

    def _add(self, shard: Shard) -> None:
        self._counts.add_known(shard)
        self._backlog.add_shard(shard)

    def _take_receipt(self, shard: Shard, receipt: Receipt) -> None:
        if self._crew.compares and receipt.device == "cuda":
            self._backlog.compare_some(shard)
        self._counts.add_receipt(receipt)
        self._journal.add_receipt(receipt)

    def _drop(self, books: NodeBooks, reason: str) -> None:
        """Use a node no more, because it cannot work."""
        self._nodes.release(books.node.id, reason)
        self._refuse(books.node.name, reason)
        self._lose(books, reason, is_said=True)

    def _refuse(self, name: str, reason: str) -> None:
        if self._refused.get(name) != reason:
            logger.warning("node %s is left out: %s", name, reason)
        self._refused[name] = reason

    def _lose(self, books: NodeBooks, reason: str, *, is_said: bool = False) -> None:
        """Give the jobs of a node that is gone to the others; none of them is to blame."""
        if not is_said:
            again = f"; the others do its {format_count(len(books.leased), 'job')} again"
            logger.warning(
                "node %s has left: %s%s", books.node.name, reason, again if books.leased else ""
            )
        lost_work = any(leased.began is not None for leased in books.leased.values())
        for ticket, leased in books.leased.items():
            del self._leased[ticket]
            if leased.twin is not None:
                leased.twin.twin = None
            else:
                self._backlog.give_back(leased.job)
        books.leased.clear()
        self._forget(books, reason, lost_work=lost_work)

    def _forget(self, books: NodeBooks, reason: str | None, *, lost_work: bool = False) -> None:
        """Tell the journal how long a node was used, and hold nothing of it."""
        now = self._clock()
        del self._books[books.node.id]
        self._crew.remove(books.node.id, books.node.device)
        self._counts.remove_node(books, now)
        self._without_nodes_since = now
        self._journal.add_node(books.use(now, self._start, reason, lost_work=lost_work))

    def _check_nodes(self) -> None:
        """Refuse to wait for nodes that will not come.

        Raises:
            InputError: There is none to work on.
        """
        if not self._crew.has("cpu"):
            self._backlog.drop_comparisons()
        if self._crew.has_scorers or self._leased or self._nodes.num_starting:
            self._without_nodes_since, self._is_waiting = self._clock(), False
            return
        patience_s = _NO_NODES_S if self._nodes.can_grow else _RESTART_S
        hopeless = self._refused and not self._nodes.can_grow
        if not hopeless and self._clock() - self._without_nodes_since < patience_s:
            if not self._is_waiting:
                kind = self._crew.named
                logger.warning("no %s works; waiting %.0f s for one to join", kind, patience_s)
            self._is_waiting = True
            return
        raise InputError(self._crew.explain_absence(self._refused))

    def _report(self, *, is_last: bool = False) -> None:
        now = self._clock()
        if not is_last and now - self._last_progress < _PROGRESS_EVERY_S:
            return
        self._last_progress = now
        progress = self._counts.at(
            now,
            self._start,
            self._books.values(),
            num_slices_left=self._backlog.num_slices_left,
            num_retries=self._backlog.num_retries,
        )
        self._on_progress(progress)
