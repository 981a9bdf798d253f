"""Small corpora, read back as an actor reads them, and whole runs in this process without Ray."""

from collections import deque
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest

import cluster.execution.run
from cluster.execution.run import ScoreRun
from cluster.execution.worker import Worker
from cluster.settings import ActorSettings
from cluster.shards import preparation
from cluster.shards.shard_queue import Lease


def read_slices(corpus, *, limit=None):
    """Rows of each read of each slice, in the order and chunks in which an actor reads them."""
    reads = []
    for slice_ in corpus.plan_slices(limit=limit):
        for piece in slice_.pieces:
            start = piece.start
            while start is not None:
                rows = corpus.reader.read(
                    piece.path,
                    start=start,
                    stop=piece.stop,
                    max_rows=piece.max_rows,
                    chunk_bytes=preparation.READ_CHUNK_BYTES,
                )
                reads.append(rows)
                start = rows.rest_start
    return reads


def read_corpus(corpus, *, limit=None):
    """First texts, errors by row, and kept columns of a whole corpus."""
    texts, errors, kept = [], {}, []
    for rows in read_slices(corpus, limit=limit):
        errors.update({len(texts) + row: reason for row, reason in rows.errors.items()})
        texts.extend(rows.texts[0])
        kept.append(rows.kept)
    return SimpleNamespace(
        texts=texts, errors=errors, kept=pa.concat_tables(kept).to_pydict() if kept else {}
    )


class LocalDriver:
    """Does what the driver does with one worker in this process."""

    def __init__(self, pool, *, slices, shards, scores, done, **_):
        self._slices, self._scores, self._done = deque(slices), scores, done
        self._worker = Worker(pool.work, None, "local")
        self.slots, self.self_check, self.num_retries = [], [], 0
        self.attempts, self.actor_cores, self.num_idle_cores = [], {}, 0
        self.shards, self.receipts, self.slice_receipts = list(shards), [], []

    def run(self):
        while self._slices:
            receipt = self._worker.prepare(self._slices.popleft())
            self.slice_receipts.append(receipt)
            self.shards.extend(receipt.shards)
            if receipt.rest is not None:
                self._slices.appendleft(receipt.rest)
        for shard in self.shards if self._scores else ():
            if shard.name not in self._done:
                self.receipts.append(self._worker.score(Lease(shard=shard, attempt=1)))


@pytest.fixture
def run_locally(monkeypatch):
    """Runs a ScoreRun with everything but Ray; what it returns is the run's result."""

    def plan_pool(run, actors, say):
        return SimpleNamespace(
            work=run.work(), self_check=[], start=lambda: None, stop=lambda: None
        )

    monkeypatch.setattr(cluster.execution.run, "connect", lambda address: nullcontext())
    monkeypatch.setattr(cluster.execution.run, "Driver", LocalDriver)
    monkeypatch.setattr(ScoreRun, "_plan_pool", plan_pool)
    return lambda run: run.run(ActorSettings(), lambda progress: None, lambda line: None)


@pytest.fixture(scope="session", name="read_corpus")
def read_corpus_fixture():
    """`read_corpus`."""
    return read_corpus


@pytest.fixture(scope="session", name="read_slices")
def read_slices_fixture():
    """`read_slices`."""
    return read_slices


@pytest.fixture(scope="session")
def odd_columns():
    """Four rows of columns of types that are easily lost on the way."""
    day = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
    columns = {
        "time": pa.array([day, None, day, day], pa.timestamp("us", "UTC")),
        "date": pa.array([day.date(), None, day.date(), None]),
        "money": pa.array([Decimal("1.10"), None, Decimal("-2.00"), Decimal("0")]),
        "span": pa.array([1, None, 3, 4], pa.duration("us")),
        "bytes": pa.array([b"\xff", None, b"", b"a"]),
        "wide": pa.array(["a", None, "", "b"], pa.large_string()),
        "kind": pa.array(["x", None, "y", "x"]).dictionary_encode(),
        "small": pa.array([1, None, 255, 0], pa.uint8()),
        "half": pa.array([0.5, None, -1, 0], pa.float16()),
        "flag": pa.array([True, None, False, True]),
        "list": pa.array([[1], None, [], [2, None]]),
        "object": pa.array([{"a": [1], "b": "x"}, None, {"a": None, "b": None}, {"a": []}]),
        "map": pa.array([[("k", 1)], None, [], [("l", None)]], pa.map_(pa.string(), pa.int32())),
        "nothing": pa.nulls(4),
    }
    return pa.table(columns)
