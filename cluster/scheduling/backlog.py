"""The jobs that wait for a node: slices to cut, shards to score, and those that raised an error.

    slices, shards -> [backlog] -> jobs -> driver

A pure state machine. Slices come first while few shards wait, and the costliest shard otherwise.
Where GPUs and cores score, slices are cut into large shards for the ones and small ones for the
others, whichever run out first, and some texts of shards that GPUs have scored are scored on cores
as well.
This module knows nothing of nodes but their names, and nothing of Ray or files.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.devices.crew import Wants
from fastformers.cluster.scheduling.work import Comparison, Work, describe_job, raise_failure
from fastformers.cluster.shards.layout import MIN_SHARD_SECONDS, Shard
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

    def __init__(
        self, slices: Iterable[Slice], *, scores: bool, gpu_shard_s: float | None = None
    ) -> None:
        """Begin with slices to cut.

        Args:
            slices: Slices in corpus order.
            scores: Whether shards are to be scored, or only cut.
            gpu_shard_s: Core-seconds of a shard that is cut for GPUs, where two kinds of nodes
                score; else None.
        """
        self._slices = deque(slices)
        self._num_slices_left = len(self._slices)
        self._scores = scores
        self._queue = ShardQueue(large_s=None if gpu_shard_s is None else gpu_shard_s / 2)
        self._small_s = min(MIN_SHARD_SECONDS, (gpu_shard_s or math.inf) / 4)
        self._cut_large: set[tuple[int, int]] = set()  # slices in the hands of a node
        self._comparisons: deque[Comparison] = deque()
        self._num_compared = 0
        self._deaths: dict[tuple[int, int], int] = {}  # of slices
        self._errors: dict[tuple[int, int] | str, _Errors] = {}
        self._after_error: list[Slice | Lease] = []

    def __len__(self) -> int:
        """Jobs that wait."""
        return (
            len(self._slices) + len(self._queue) + len(self._after_error) + len(self._comparisons)
        )

    def num_for(self, wants: Wants) -> int:
        """Jobs that wait and that a node may be given."""
        own = len(self._slices) * wants.prepares + len(self._queue) * wants.scores
        return own + len(self._after_error)

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

    @property
    def shortest_s(self) -> float:
        """Core-seconds predicted of the shortest shard that waits; 0 if none does."""
        shard = self._queue.peek_shortest()
        return 0.0 if shard is None else shard.predicted_s

    def next(self, node: str, wants: Wants) -> Work | None:
        """The next job for a node, or None if none waits for it.

        Args:
            node: Name of the node; a job that raised an error there goes to another, unless it has
                raised one on all of them.
            wants: What the node may be given.
        """
        for place, job in enumerate(self._after_error):
            is_slice, tried = isinstance(job, Slice), self._errors[_key(job)].nodes
            able = wants.preparers if is_slice else wants.scorers
            suits = wants.prepares if is_slice else wants.scores
            if suits and (node not in tried or tried.issuperset(able)):
                return self._after_error.pop(place)
        if wants.shortest and self._comparisons:
            return self._comparisons.popleft()
        if wants.prepares and (slice_ := self._next_slice(wants)) is not None:
            return slice_
        return self._queue.lease(shortest=wants.shortest) if wants.scores else None

    def _next_slice(self, wants: Wants) -> Slice | None:
        """The next slice, if it should be cut before a shard is scored."""
        if not self._slices:
            return None
        if wants.shortest:
            num_large = self._queue.num_large + len(self._cut_large)
            if num_large < wants.num_gpu_shards:
                slice_ = replace(self._slices.popleft(), shard_seconds=None)
                self._cut_large.add(_place_of(slice_))
                return slice_
            if len(self._queue) - self._queue.num_large >= wants.num_slots:
                return None
            return replace(self._slices.popleft(), shard_seconds=self._small_s)
        if wants.scores and len(self._queue) >= wants.num_slots:
            return None
        return self._slices.popleft()

    def compare_some(self, shard: Shard) -> None:
        """Let texts of a shard that a GPU has scored be scored on cores: of the 1st, 2nd, 4th."""
        self._num_compared += 1
        if self._num_compared.bit_count() == 1:
            self._comparisons.append(Comparison(shard=shard))

    def drop_comparisons(self) -> None:
        """Give up what only tells how much precisions agree, because no node on cores is left."""
        self._comparisons.clear()

    def complete(self, job: Work) -> bool:
        """Record that a job was done; returns whether its slice or shard is done with it.

        Raises:
            ScoringError: A shard kills its workers, but no text of it does alone.
        """
        if isinstance(job, Comparison):
            return True
        self._errors.pop(_key(job), None)
        if isinstance(job, Lease):
            return self._queue.complete(job)
        self._cut_large.discard(_place_of(job))
        self._deaths.pop(_place_of(job), None)
        self._num_slices_left -= 1
        return True

    def give_back(self, job: Work) -> None:
        """Put a job back that is not to blame for coming back."""
        match job:
            case Lease():
                self._queue.give_back(job)
            case Comparison():
                self._comparisons.append(job)
            case Slice():
                self._put_back(job)

    def fail(self, job: Work, reason: str) -> None:
        """Record that a worker died over a job or took too long, and put it back.

        A comparison is not worth a second worker, and is dropped.

        Raises:
            ScoringError: It was tried too many times.
        """
        if isinstance(job, Lease):
            self._queue.fail(job, reason)
            return
        if isinstance(job, Comparison):
            return
        key = _place_of(job)
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= _MAX_SLICE_ATTEMPTS:
            raise ScoringError(f"{describe_job(job)}: {reason}, three times in a row")
        self._put_back(job)

    def fail_with(self, job: Work, error: Exception, node: str, *, may_pass: bool = False) -> None:
        """Record that a job raised an error on a node, and put it back for another node.

        A comparison is dropped.

        Args:
            job: The job.
            error: What it raised.
            node: Name of the node.
            may_pass: Whether it may work the next time, whatever kind of error it is.

        Raises:
            FastformersError: The input is at fault, or it raised an error too many times.
        """
        if isinstance(job, Comparison):
            return
        errors = self._errors.setdefault(_key(job), _Errors(set()))
        errors.nodes.add(node)
        errors.count += 1
        at_fault = isinstance(error, InputError | ScoringError | BundleError)
        if (at_fault and not may_pass) or errors.count >= _MAX_ERRORS:
            raise_failure(error, describe_job(job))
        if isinstance(job, Slice):
            self._cut_large.discard(_place_of(job))
        self._after_error.append(job)

    def _put_back(self, slice_: Slice) -> None:
        self._cut_large.discard(_place_of(slice_))
        self._slices.appendleft(slice_)

    def attempts_of(self, job: Work) -> int:
        """How many times a job was tried, this time included."""
        if isinstance(job, Lease):
            return job.attempt
        if isinstance(job, Comparison):
            return 1
        return self._deaths.get(_place_of(job), 0) + 1


def _key(job: Slice | Lease) -> tuple[int, int] | str:
    return job.shard.name if isinstance(job, Lease) else _place_of(job)


def _place_of(slice_: Slice) -> tuple[int, int]:
    return slice_.index, slice_.first_shard
