"""The end of a run, where jobs are few: take back what is not begun, and copy what would end late.

    jobs in hand -> [tail] -> jobs to take back, jobs to begin on a second node

A node that dies, hangs or crawls must not hold up the others, which have nothing left to do. Once
in a while, all jobs in hand are looked at, not at each event. This module knows nothing of Ray.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.scheduling.node_books import Leased, NodeBooks
from fastformers.cluster.scheduling.pace import estimate_remaining_s
from fastformers.cluster.scheduling.work import Ticket
from fastformers.cluster.shards.shard_queue import Lease

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
        self._last = clock()
        self._to_copy: deque[Leased] = deque()

    def take_copy(self, node: str) -> Leased | None:
        """A job in another node's hands that this one should begin as well, or None."""
        for _ in range(len(self._to_copy)):
            leased = self._to_copy.popleft()
            if leased.task.ticket not in leased.node.leased or leased.twin is not None:
                continue  # it has ended
            if leased.node.node.id != node:
                return leased
            self._to_copy.append(leased)
        return None

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
            if job.began is None and not job.is_wanted_back and not holder.num_free_slots:
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
        fastest_of = {
            Lease: _fastest(free, lambda books: books.pace.factor),
            Slice: _fastest(free, lambda books: books.slice_pace.seconds),
        }
        late = []
        for job in leased.values():
            if job.twin is not None or (isinstance(job.job, Lease) and job.job.attempt > 1):
                continue
            others = (books for books in fastest_of[type(job.job)] if books is not job.node)
            fastest = next(others, None)
            copy_s = fastest.expect(job.job) if fastest else None
            if copy_s is None:
                continue
            expected_s = job.node.expect(job.job) or copy_s
            if job.began is None:  # at least one other is before it in its slot
                remaining_s = estimate_remaining_s(now - job.given, 2 * expected_s)
            else:
                remaining_s = estimate_remaining_s(now - job.began, expected_s)
            if remaining_s > _COPY_FACTOR * copy_s + _COPY_SAVES_S:
                late.append((remaining_s, job.task.ticket))
        late.sort(reverse=True)
        self._to_copy.extend(leased[ticket] for _, ticket in late[:num_free])


def _fastest(
    books: Iterable[NodeBooks], seconds: Callable[[NodeBooks], float | None]
) -> list[NodeBooks]:
    """The two nodes that take the fewest seconds, of those of which that is known."""
    known = ((number, place, node) for place, node in enumerate(books) if (number := seconds(node)))
    return [node for _, _, node in heapq.nsmallest(2, known)]
