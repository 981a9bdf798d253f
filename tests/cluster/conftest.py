"""Small corpora, read back as an actor reads them, and whole runs in this process without Ray."""

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest

from cluster.execution.local import connect_here
from cluster.execution.run import run_job
from cluster.settings import ActorSettings
from cluster.shards import preparation


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


@pytest.fixture
def run_locally():
    """Runs a job in this process, without Ray, and returns the run's result."""
    pool = pa.default_memory_pool()  # a worker sets another one for its process
    yield lambda job: run_job(job, ActorSettings(), connect_here)
    pa.set_memory_pool(pool)


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
