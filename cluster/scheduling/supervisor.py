"""The loop of one node: hand its tasks to its slots, watch them, and answer the driver in batches.

    driver -> orders -> [supervisor] -> calls -> pool -> outcomes -> [supervisor] -> report

Each idle slot is given a call. While more waits than there are slots, each has a second call in
hand, which its worker reads while it computes the first. Short tasks travel several in one call. A
task that takes too long is ended with its worker; at the end of the work, a task in a slow slot is
begun in an idle one as well, and the first result counts. This module knows nothing of Ray or of
the time of day: the pool and the clock are handed in.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.scheduling.nodes import Ended, NodeReport, Orders
from fastformers.cluster.scheduling.pace import Pace, estimate_remaining_s
from fastformers.cluster.scheduling.pool import Pool, Slot
from fastformers.cluster.scheduling.work import Finished, Lost, Outcome, Returned, Task, Ticket
from fastformers.cluster.shards.shard_queue import Lease

# A call of several tasks is about this long, so that calls cost little and none waits long.
CALL_S, MAX_TASKS_IN_CALL = 0.25, 32
# Outcomes wait for one another this long before they are reported.
REPORT_WITHIN_S = 0.25
# A task is lost when it takes far longer than the bundle's profile says on the slowest machine.
_TIMEOUT_FLOOR_S, _TIMEOUT_FACTOR = 300.0, 30.0
# A second copy is begun where it saves at least this.
_COPY_SAVES_S, _COPY_FACTOR = 1.0, 1.5
_WATCH_EVERY_S = 0.2
OVERDUE = "it took longer than its time limit (--timeout-s)"


@dataclass
class _Call:
    """Tasks that a slot does one after another.

    Attributes:
        slot: Slot that has them.
        tasks: Those that have not ended, in their order.
        began: Clock reading when its turn came; None while another call is before it.
        deadline: Clock reading after which it is overdue; infinite until its turn comes.
        is_overdue: Whether its worker was ended because it was overdue.
    """

    slot: Slot
    tasks: dict[Ticket, Task]
    began: float | None = None
    deadline: float = float("inf")
    is_overdue: bool = False


@dataclass
class _Race:
    """A task that two slots do; the first result counts.

    Attributes:
        original: Ticket by which the driver knows the task.
        num_running: Slots that have not ended it.
        is_told: Whether the driver was told of its end.
    """

    original: Ticket
    num_running: int = 2
    is_told: bool = False


@dataclass
class _SlotBooks:
    """What a slot has in hand, and how fast it is."""

    calls: list[_Call] = field(default_factory=list)
    paces: dict[type, Pace] = field(default_factory=lambda: {Lease: Pace(), Slice: Pace()})

    @property
    def is_fresh(self) -> bool:
        """Whether no worker has died over any of its tasks."""
        return all(task.is_fresh for call in self.calls for task in call.tasks.values())


class Supervisor:
    """Tasks of a node, waiting or in its slots."""

    def __init__(
        self,
        pool: Pool,
        *,
        clock: Callable[[], float],
        timeout_s: float | None = None,
        extra: float = 0.0,
        leaving: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Set up an idle node.

        Args:
            pool: Its slots, running.
            clock: Monotonic clock, in seconds.
            timeout_s: Seconds that a task may take; None for 300, or 30 times what was predicted of
                a shard if that is more.
            extra: Core-seconds that a shard takes over those that were predicted of it, as a share
                of these: for its audit, or with another bundle than it was cut for.
            leaving: Function that says why the node will be taken away soon, or None.
        """
        self._pool, self._clock, self._timeout_s, self._leaving = pool, clock, timeout_s, leaving
        self._timeout_factor = _TIMEOUT_FACTOR * (1 + extra)
        self._waiting: deque[Task] = deque()
        self._books = {slot: _SlotBooks() for slot in pool.slots}
        self._idle = dict.fromkeys(pool.slots)  # in the order in which they became so
        self._single: dict[Slot, None] = {}  # slots with one call that could hold more
        self._calls: dict[Ticket, _Call] = {}
        self._races: dict[Ticket, _Race] = {}
        self._copy_numbers = count(1)
        self.num_in_hand = 0
        self._paces = {Lease: Pace(), Slice: Pace()}
        self._ended: list[Ended] = []
        self._begun: list[tuple[Ticket, float]] = []
        self._oldest = self._last_watch = clock()
        self._orders = Orders()
        self._received = clock()
        self._offset: float | None = None
        self._told_leaving: str | None = None

    def serve(self, orders: Orders) -> NodeReport:
        """Take orders, work, and answer when there is something to tell."""
        self.accept(orders)
        while not self.is_due():
            self.step(self.time_left())
        return self.report()

    def accept(self, orders: Orders) -> None:
        """Take orders; they hold until the next ones."""
        now = self._clock()
        self._orders, self._received = orders, now
        # A message takes time, so the largest difference is the truest.
        offset = orders.now - now
        self._offset = offset if self._offset is None else max(self._offset, offset)
        unwanted = set(orders.take_back)
        if unwanted:
            returned = [task for task in self._waiting if task.ticket in unwanted]
            self._waiting = deque(task for task in self._waiting if task.ticket not in unwanted)
            for task in returned:
                self._tell(Returned(ticket=task.ticket), None, now, now)
        self._waiting.extend(orders.give)
        self.num_in_hand += len(orders.give)
        self._fill()

    def step(self, timeout_s: float) -> None:
        """Wait for outcomes for at most `timeout_s` seconds, and handle them."""
        for outcome in self._pool.wait(timeout_s):
            self._take(outcome)
        if len(self._pool.slots) != len(self._books):
            self._follow_slots()
        self._fill()
        self._watch()

    def is_due(self) -> bool:
        """Whether a report should go out now."""
        now = self._clock()
        if now - self._received >= self._orders.wait_s:
            return True
        if not self._books and not self._calls:
            return True
        if (self._leaving() is None) != (self._told_leaving is None):
            return True
        if not self._ended:
            return False
        return self.num_in_hand < self._orders.answer_below or now - self._oldest >= REPORT_WITHIN_S

    def time_left(self) -> float:
        """Seconds until a report is due if nothing happens, and at most until the next watch."""
        now = self._clock()
        left_s = self._received + self._orders.wait_s - now
        if self._ended:
            left_s = min(left_s, self._oldest + REPORT_WITHIN_S - now)
        return min(max(left_s, 0.001), _WATCH_EVERY_S)

    def report(self) -> NodeReport:
        """What happened since the last report."""
        if not self._books and not self._calls:  # nobody is left to do what waits
            waiting, self._waiting = self._waiting, deque()
            for task in waiting:
                self._tell(Returned(ticket=task.ticket), None, self._clock(), self._clock())
        ended, self._ended = self._ended, []
        begun, self._begun = self._begun, []
        self._told_leaving = self._leaving()
        return NodeReport(
            ended=tuple(ended),
            begun=tuple(begun),
            num_slots=len(self._books),
            doing=dict(Counter(self._pool.states().values())),
            notices=tuple(self._pool.outages()),
            leaving=self._told_leaving,
            trouble=self._pool.trouble,
        )

    def _fill(self) -> None:
        """Give every idle slot a call, then more to those that can hold more."""
        while self._waiting and self._idle:
            self._submit(next(iter(self._idle)), self._next_call())
        while (
            self._waiting
            and self._single
            and self._waiting[0].is_fresh
            and (self._orders.is_plenty or len(self._waiting) > len(self._books))
        ):
            slot = next(iter(self._single))
            if self._books[slot].is_fresh:
                self._submit(slot, self._next_call())
            else:  # if its worker dies, both of its calls would be suspected
                del self._single[slot]

    def _next_call(self) -> list[Task]:
        """The next task, and those after it that fit into one short call with it."""
        tasks = [self._waiting.popleft()]
        pace = self._paces.get(type(tasks[0].job))
        expected_s = pace.expect(tasks[0].predicted_s) if pace else None
        if expected_s is None or not tasks[0].is_fresh:
            return tasks
        share = -(-len(self._waiting) // len(self._books))  # leave some for the others
        while (
            len(tasks) < min(MAX_TASKS_IN_CALL, share)
            and type(self._waiting[0].job) is type(tasks[0].job)
            and self._waiting[0].is_fresh
        ):
            assert pace is not None
            expected_s += pace.expect(self._waiting[0].predicted_s) or CALL_S
            if expected_s > CALL_S:
                break
            tasks.append(self._waiting.popleft())
        return tasks

    def _submit(self, slot: Slot, tasks: list[Task]) -> None:
        call = _Call(slot, {task.ticket: task for task in tasks})
        self._calls.update(dict.fromkeys(call.tasks, call))
        books = self._books[slot]
        books.calls.append(call)
        self._pool.submit(slot, tasks)
        if len(books.calls) == 1:
            self._begin(call)
        self._idle.pop(slot, None)
        self._single.pop(slot, None)
        if len(books.calls) < slot.max_calls:
            self._single[slot] = None

    def _begin(self, call: _Call) -> None:
        """Start a call's time, because no other call of its slot is before it any more."""
        call.began = self._clock()
        call.deadline = call.began + sum(map(self._allowed_s, call.tasks.values()))
        begun = call.began + (self._offset or 0.0)
        self._begun.extend((ticket, begun) for ticket in call.tasks if ticket >= 0)

    def _allowed_s(self, task: Task) -> float:
        if self._timeout_s is not None:
            return self._timeout_s
        return max(_TIMEOUT_FLOOR_S, self._timeout_factor * (task.predicted_s or 0.0))

    def _take(self, outcome: Outcome) -> None:
        """Handle the end of a task, and of its call if it was the last."""
        call = self._calls.pop(outcome.ticket)
        task = call.tasks.pop(outcome.ticket)
        now = self._clock()
        books = self._books.get(call.slot)
        if isinstance(outcome, Finished) and call.began is None and books is not None:
            _put_first(call, books.calls)
        start = now if call.began is None else call.began
        if isinstance(outcome, Finished):
            end = min(now, start + outcome.seconds)
            call.began = end  # of the next task of the call
            for paces in (self._paces, books.paces if books else {}):
                if type(task.job) in paces:
                    paces[type(task.job)].add(max(outcome.seconds, 1e-6), task.predicted_s)
            self._conclude(outcome, call, start, end)
        else:
            if isinstance(outcome, Lost) and call.is_overdue:
                outcome = Lost(ticket=outcome.ticket, reason=OVERDUE)
            self._conclude(outcome, call, start, now)
        if call.tasks or books is None:
            return
        books.calls.remove(call)
        if books.calls and books.calls[0].began is None:
            self._begin(books.calls[0])
        self._single.pop(call.slot, None)
        (self._single if books.calls else self._idle)[call.slot] = None

    def _conclude(self, outcome: Outcome, call: _Call, start: float, end: float) -> None:
        """Tell an outcome, unless another slot has done the task or may still do it."""
        race = self._races.pop(outcome.ticket, None)
        if race is None:
            self._tell(outcome, call.slot, start, end)
            return
        race.num_running -= 1
        if race.is_told or not (isinstance(outcome, Finished) or race.num_running == 0):
            return
        race.is_told = True
        self._tell(replace(outcome, ticket=race.original), call.slot, start, end)

    def _tell(self, outcome: Outcome, slot: Slot | None, start: float, end: float) -> None:
        if not self._ended:
            self._oldest = self._clock()
        self.num_in_hand -= 1
        offset = self._offset or 0.0
        self._ended.append(
            Ended(
                outcome=outcome,
                slot=slot.name if slot else None,
                start_s=start + offset,
                end_s=end + offset,
            )
        )

    def _follow_slots(self) -> None:
        """Forget slots that have disappeared; what they had comes back from the pool as lost."""
        gone = self._books.keys() - set(self._pool.slots)
        for slot in gone:
            del self._books[slot]
            self._idle.pop(slot, None)
            self._single.pop(slot, None)

    def _watch(self) -> None:
        """End what takes too long, but for what waits for storage; copy what is late at the end."""
        now = self._clock()
        passed_s = now - self._last_watch
        if passed_s < _WATCH_EVERY_S:
            return
        self._last_watch = now
        heads = [books.calls[0] for books in self._books.values() if books.calls]
        if self._pool.outages():
            for call in heads:
                call.deadline += passed_s
        for call in heads:
            if now > call.deadline and not call.is_overdue:
                call.is_overdue = True
                self._pool.kill(next(iter(call.tasks)))
        self._copy_late_tasks(heads, now)

    def _copy_late_tasks(self, heads: Iterable[_Call], now: float) -> None:
        """Begin the tasks that will end last in idle slots as well, where that is faster."""
        if self._waiting or self._orders.is_plenty or not self._idle:
            return
        late = sorted(self._estimate_ends(heads, now), key=lambda entry: -entry[0])
        for remaining_s, task in late:
            if not self._idle:
                return
            slot = next(iter(self._idle))
            copy_s = self._expect(slot, task)
            if copy_s is None or remaining_s < _COPY_FACTOR * copy_s + _COPY_SAVES_S:
                continue
            copy = Task(ticket=Ticket(-next(self._copy_numbers)), job=task.job)
            self._races[task.ticket] = self._races[copy.ticket] = _Race(task.ticket)
            self._submit(slot, [copy])

    def _estimate_ends(self, heads: Iterable[_Call], now: float) -> Iterator[tuple[float, Task]]:
        """Seconds until each task that could be copied will end, and the task."""
        for head in heads:
            before_s = 0.0
            elapsed_s = 0.0 if head.began is None else now - head.began
            for call in self._books[head.slot].calls:
                for task in call.tasks.values():
                    expected_s = self._expect(head.slot, task)
                    if expected_s is None:
                        break
                    before_s += estimate_remaining_s(elapsed_s, expected_s)
                    elapsed_s = 0.0
                    if task.is_fresh and task.ticket >= 0 and task.ticket not in self._races:
                        yield before_s, task

    def _expect(self, slot: Slot, task: Task) -> float | None:
        """Seconds that a task takes in a slot; None where no such task has ended yet."""
        kind = type(task.job)
        if kind not in self._paces:
            return None
        return self._books[slot].paces[kind].expect(task.predicted_s, otherwise=self._paces[kind])


def _put_first(call: _Call, calls: list[_Call]) -> None:
    """Give a call the turn of the first one: its worker has read both, and did this one first."""
    first = calls[0]
    call.began, call.deadline = first.began, first.deadline
    first.began, first.deadline = None, float("inf")
    calls.remove(call)
    calls.insert(0, call)
