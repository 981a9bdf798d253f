"""The jobs that workers do, and what they answer.

    driver -> jobs -> supervisor -> worker -> results

Everything here is a plain value that can travel; this module knows nothing of Ray or of how a job
is done.
"""

from dataclasses import dataclass

from cluster.corpus.slices import Slice
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt
from cluster.shards.receipts import Receipt
from cluster.shards.shard_queue import Lease

# One job that computes, one that is read or written.
JOBS_IN_HAND = 2


@dataclass(frozen=True, kw_only=True)
class TimeEngine:
    """A job: run the shards' batches, already in memory, through the engine and nothing else."""

    shards: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True)
class MeasureRate:
    """A job: score texts of several lengths for about `seconds`, to learn the tokens per second."""

    seconds: float


# The jobs of a worker, and their results: the receipt of a slice, that of a shard (None for a
# probe), seconds of the engine, tokens per second.
Job = Slice | Lease | TimeEngine | MeasureRate
JobResult = SliceReceipt | Receipt | float | None
