"""The end of a run, where jobs are few: take back what is not begun, and copy what would end late.

    jobs in hand -> [tail] -> jobs to take back, jobs to begin on a second node

A node that dies, hangs or crawls must not hold up the others, which have nothing left to do. Once
in a while, all jobs in hand are looked at, not at each event. Where cores and GPUs score, a core
begins no shard that would end after everything else. This module knows nothing of Ray.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.scheduling.node_books import Leased, NodeBooks
from fastformers.cluster.scheduling.pace import estimate_remaining_s
from fastformers.cluster.scheduling.work import Comparison, Ticket
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.inference.engine import Device

_BALANCE_EVERY_S = 0.5
# A second copy is begun where it ends earlier by this factor, and by at least these seconds.
_COPY_FACTOR, _COPY_SAVES_S = 1.5, 2.0


class Tail:
    """Decides what moves between nodes when nothing waits any more."""

    def __init__(self, books: Mapping[str, NodeBooks], clock: Callable[[], float]) -> None:
        """Watch nodes.

        Args:
            books: The driver's books, as they change.
            clock: Monotonic clock, in seconds.
        """
        self._books, self._clock = books, clock
        self._last = self._rated = clock()
        self._core_s_per_s = 0.0
        self._to_copy: deque[tuple[Leased, Device]] = deque()

    def take_copy(self, node: str) -> Leased | None:
        """A job in another node's hands that this one should begin as well, or None."""
        device = self._books[node].node.device
        for _ in range(len(self._to_copy)):
            leased, fastest = self._to_copy.popleft()
            if leased.task.ticket not in leased.node.leased or leased.twin is not None:
                continue  # it has ended
            if leased.node.node.id != node and fastest == device:
                return leased
            self._to_copy.append((leased, fastest))
        return None

    def ends_late(self, books: NodeBooks, predicted_s: float, left_s: float) -> bool:
        """Whether a shard, given to this node now, would end after all others are done.

        Args:
            books: The node.
            predicted_s: Core-seconds predicted of the shard.
            left_s: Those of all shards that are not finished, this one included.
        """
        now = self._clock()
        if now - self._rated >= _BALANCE_EVERY_S or not self._core_s_per_s:
            self._rated = now
            paces = [(other.num_slots, other.pace.factor) for other in self._books.values()]
            self._core_s_per_s = sum(slots / factor for slots, factor in paces if factor)
        expected_s = books.pace.expect(predicted_s)
        if expected_s is not None:  # where no slot is free, others are before it
            expected_s *= 1 + len(books.leased) // max(1, books.num_slots)
        return expected_s is not None and expected_s * self._core_s_per_s > left_s

    def balance(self, leased: Mapping[Ticket, Leased]) -> None:
        """Move jobs to the nodes that have free slots, if there are any."""
        now = self._clock()
        if now - self._last < _BALANCE_EVERY_S:
            return
        self._last = now
        self._to_copy.clear()
        free = [books for books in self._books.values() if books.num_free_slots]
        num_free = sum(books.num_free_slots for books in free)
        if not num_free:
            return
        for job in leased.values():
            holder = job.node
            is_stuck = job.began is None and not job.is_wanted_back and not holder.num_free_slots
            if is_stuck and any(_gains(books, job) for books in free):
                job.is_wanted_back = True
                holder.take_back.append(job.task.ticket)
                num_free -= 1
                if num_free == 0:
                    return
        self._copy_late(leased, free, num_free, now)

    def _copy_late(
        self, leased: Mapping[Ticket, Leased], free: list[NodeBooks], num_free: int, now: float
    ) -> None:
        """Find the jobs that will end last, where another node would end them much earlier."""
        scorers = [books for books in free if books.node.scores]
        fastest_of: dict[type, list[NodeBooks]] = {
            Lease: _fastest(scorers, lambda books: books.pace.factor),
            Slice: _fastest(free, lambda books: books.slice_pace.seconds),
            Comparison: [],
        }
        late = []
        for job in leased.values():
            if job.twin is not None or (isinstance(job.job, Lease) and job.job.attempt > 1):
                continue
            others = (books for books in fastest_of[type(job.job)] if books is not job.node)
            fastest = next(others, None)
            copy_s = fastest.expect(job.job) if fastest else None
            if fastest is None or copy_s is None:
                continue
            expected_s = job.node.expect(job.job) or copy_s
            if job.began is None:  # at least one other is before it in its slot
                remaining_s = estimate_remaining_s(now - job.given, 2 * expected_s)
            else:
                remaining_s = estimate_remaining_s(now - job.began, expected_s)
            if remaining_s > _COPY_FACTOR * copy_s + _COPY_SAVES_S:
                late.append((remaining_s, job.task.ticket, fastest.node.device))
        late.sort(key=lambda entry: entry[:2], reverse=True)
        self._to_copy.extend((leased[ticket], device) for _, ticket, device in late[:num_free])


def _gains(books: NodeBooks, job: Leased) -> bool:
    """Whether a free node could end a job sooner than its holder, which has another before it."""
    node, holder = books.node, job.node
    if node.device == holder.node.device:
        return True
    if not (isinstance(job.job, Lease) and node.scores):
        return False
    here_s, there_s = books.expect(job.job), holder.expect(job.job)
    return here_s is None or there_s is None or here_s < 2 * there_s


def _fastest(
    books: Iterable[NodeBooks], seconds: Callable[[NodeBooks], float | None]
) -> list[NodeBooks]:
    """The two nodes that take the fewest seconds, of those of which that is known."""
    known = ((number, place, node) for place, node in enumerate(books) if (number := seconds(node)))
    return [node for _, _, node in heapq.nsmallest(2, known)]
