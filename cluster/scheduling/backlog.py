"""The jobs that wait for a node: slices to cut, shards to score, and those that raised an error.

    slices, shards -> [backlog] -> jobs -> driver

A pure state machine. Slices come first while few shards wait, and the costliest shard otherwise.
This module knows nothing of nodes but their names, and nothing of Ray or files.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.scheduling.work import describe_job, raise_failure
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.shard_queue import Lease, ShardQueue
from fastformers.errors import BundleError, InputError, ScoringError

_MAX_SLICE_ATTEMPTS = 3
# A job that raises is tried this many times, each time on another node where there is one.
_MAX_ERRORS = 3


@dataclass
class _Errors:
    """Errors that a job raised.

    Attributes:
        nodes: Nodes where it did.
        count: How many times.
    """

    nodes: set[str]
    count: int = 0


class Backlog:
    """Slices and shards that are not in the hands of a node."""

    def __init__(self, slices: Iterable[Slice], *, scores: bool) -> None:
        """Begin with slices to cut.

        Args:
            slices: Slices in corpus order.
            scores: Whether shards are to be scored, or only cut.
        """
        self._slices = deque(slices)
        self._num_slices_left = len(self._slices)
        self._scores = scores
        self._queue = ShardQueue()
        self._deaths: dict[tuple[int, int], int] = {}  # of slices
        self._errors: dict[tuple[int, int] | str, _Errors] = {}
        self._after_error: list[Slice | Lease] = []

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._slices) + len(self._queue) + len(self._after_error)

    @property
    def num_slices_left(self) -> int:
        """Slices that are not cut yet, those in the hands of a node included."""
        return self._num_slices_left

    @property
    def num_retries(self) -> int:
        """Leases that were lost with their worker."""
        return self._queue.num_retries

    def add_shard(self, shard: Shard) -> None:
        """Add a shard that is ready to be scored."""
        if self._scores:
            self._queue.add(shard)

    def add_rest(self, rest: Slice) -> None:
        """Add what is left of a slice, which is read before the slices after it."""
        self._slices.appendleft(rest)
        self._num_slices_left += 1

    def next(self, node: str, *, num_slots: int, nodes: Collection[str]) -> Slice | Lease | None:
        """The next job for a node, or None if none waits for it.

        Args:
            node: Name of the node; a job that raised an error there goes to another, unless it has
                raised one on all of them.
            num_slots: Slots of all nodes; while fewer shards wait, slices come first.
            nodes: Names of all nodes.
        """
        for place, job in enumerate(self._after_error):
            tried = self._errors[_key(job)].nodes
            if node not in tried or tried.issuperset(nodes):
                return self._after_error.pop(place)
        if self._slices and len(self._queue) < num_slots:
            return self._slices.popleft()
        return self._queue.lease()

    def complete(self, job: Slice | Lease) -> bool:
        """Record that a job was done; returns whether its slice or shard is done with it.

        Raises:
            ScoringError: A shard kills its workers, but no text of it does alone.
        """
        self._errors.pop(_key(job), None)
        if isinstance(job, Lease):
            return self._queue.complete(job)
        self._deaths.pop((job.index, job.first_shard), None)
        self._num_slices_left -= 1
        return True

    def give_back(self, job: Slice | Lease) -> None:
        """Put a job back that is not to blame for coming back."""
        if isinstance(job, Lease):
            self._queue.give_back(job)
        else:
            self._slices.appendleft(job)

    def fail(self, job: Slice | Lease, reason: str) -> None:
        """Record that a worker died over a job or took too long, and put it back.

        Raises:
            ScoringError: It was tried too many times.
        """
        if isinstance(job, Lease):
            self._queue.fail(job, reason)
            return
        key = job.index, job.first_shard
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= _MAX_SLICE_ATTEMPTS:
            raise ScoringError(f"{describe_job(job)}: {reason}, three times in a row")
        self._slices.appendleft(job)

    def fail_with(
        self, job: Slice | Lease, error: Exception, node: str, *, may_pass: bool = False
    ) -> None:
        """Record that a job raised an error on a node, and put it back for another node.

        Args:
            job: The job.
            error: What it raised.
            node: Name of the node.
            may_pass: Whether it may work the next time, whatever kind of error it is.

        Raises:
            FastformersError: The input is at fault, or it raised an error too many times.
        """
        errors = self._errors.setdefault(_key(job), _Errors(set()))
        errors.nodes.add(node)
        errors.count += 1
        at_fault = isinstance(error, InputError | ScoringError | BundleError)
        if (at_fault and not may_pass) or errors.count >= _MAX_ERRORS:
            raise_failure(error, describe_job(job))
        self._after_error.append(job)

    def attempts_of(self, job: Slice | Lease) -> int:
        """How many times a job was tried, this time included."""
        if isinstance(job, Lease):
            return job.attempt
        return self._deaths.get((job.index, job.first_shard), 0) + 1


def _key(job: Slice | Lease) -> tuple[int, int] | str:
    return job.shard.name if isinstance(job, Lease) else (job.index, job.first_shard)
