"""Shards, jobs, receipts and nodes as the tests of scheduling need them: small, and told apart."""

from fastformers.cluster.corpus.slices import Piece, Slice
from fastformers.cluster.scheduling.nodes import Node
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_queue import Lease


def make_shard(number, *, index=0, predicted_s=1.0):
    return Shard(
        name=f"{index:06d}-{number:05d}",
        num_rows=1,
        num_unique=1,
        num_tokens=1,
        num_unique_tokens=1,
        predicted_s=predicted_s,
        spans=(("a.csv", 1),),
    )


def make_lease(number, *, attempt=1, predicted_s=1.0):
    return Lease(shard=make_shard(number, predicted_s=predicted_s), attempt=attempt)


def make_slice(index, *, first_shard=0):
    piece = Piece(path="a.csv", start=0, stop=1)
    return Slice(index=index, pieces=(piece,), first_shard=first_shard)


def make_receipt(lease, **changes):
    """What an actor answers for a lease: one row that it scored."""
    fields = {
        "shard": lease.shard.name,
        "actor": "",
        "attempt": lease.attempt,
        "num_rows": 1,
        "num_unique": 1,
        "num_errors": 0,
        "num_tokens": 1,
        "num_scored_tokens": 1,
        "num_computed_tokens": 1,
        "num_batches": 1,
        "started_at": 0.0,
        "finished_at": 1.0,
        "predicted_s": 1.0,
        "rss_bytes": 1,
        "peak_rss_bytes": 1,
    }
    return Receipt(**{**fields, **changes})


def make_slice_receipt(slice_, *shards, **changes):
    """What an actor answers for a slice: it was cut into the shards, and nothing is left."""
    fields = {
        "index": slice_.index,
        "first_shard": slice_.first_shard,
        "shards": shards,
        "rest": None,
        "phase_s": {"read": 1.0},
    }
    return SliceReceipt(**{**fields, **changes})


def result_of(job):
    """What a worker answers for a job that it has done; each slice becomes one shard."""
    if isinstance(job, Lease):
        return make_receipt(job) if job.probe is None else None
    return make_slice_receipt(job, make_shard(job.index))


def make_node(number, slots=(), *, instance_type=None, num_cores=None):
    """A node; `slots` are those of its pool, or how many it has."""
    if isinstance(slots, int):
        slots = [Slot(name=f"host{number}:{slot}") for slot in range(slots)]
    return Node(
        id=f"node{number}",
        name=f"host{number}",
        instance_type=instance_type,
        slots=tuple(slots),
        num_cores=len(slots) + 1 if num_cores is None else num_cores,
        self_check="scripted",
    )
