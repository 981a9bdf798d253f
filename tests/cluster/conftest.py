"""Small corpora, read back as an actor reads them, and whole runs in this process without Ray."""

from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Literal

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.cluster.corpus.reading import read_all
from fastformers.cluster.execution.journal import RunJournal
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import Failed, Finished, Lost, Task, Ticket
from fastformers.cluster.settings import ActorSettings
from fastformers.cluster.shards import preparation
from fastformers.cluster.storage.directory import Directory


def read_slices(corpus, *, limit=None):
    """Rows of each read of each slice, in the order and chunks in which an actor reads them."""
    return [
        rows
        for slice_ in corpus.plan_slices(limit=limit)
        for rows in read_all(corpus.reader, slice_.pieces, chunk_bytes=preparation.READ_CHUNK_BYTES)
    ]


def read_corpus(corpus, *, limit=None):
    """First texts, errors by row, and kept columns of a whole corpus."""
    texts, errors, kept, unfit = [], {}, [], Counter()
    for rows in read_slices(corpus, limit=limit):
        errors.update({len(texts) + row: reason for row, reason in rows.errors.items()})
        texts.extend(rows.texts[0])
        kept.append(rows.kept)
        unfit.update(rows.unfit)
    return SimpleNamespace(
        texts=texts,
        errors=errors,
        kept=pa.concat_tables(kept).to_pydict() if kept else {},
        unfit=dict(unfit),
    )


@pytest.fixture
def told(monkeypatch):
    """What journals were told since it was last cleared: lists of shards, receipts, attempts."""
    lists = SimpleNamespace(shards=[], receipts=[], attempts=[])
    for method, heard in (
        ("add_shard", lists.shards),
        ("add_receipt", lists.receipts),
        ("add_attempt", lists.attempts),
    ):
        monkeypatch.setattr(RunJournal, method, _listen(getattr(RunJournal, method), heard))
    return lists


def _listen(add, heard):
    """A method that remembers what it is called with."""

    def method(journal, value):
        heard.append(value)
        add(journal, value)

    return method


@pytest.fixture
def run_locally(told):
    """Runs a job in this process, without Ray, and returns the run's result; clears `told`."""

    def run(job):
        for heard in vars(told).values():
            heard.clear()
        return run_job(job, ActorSettings(), connect_here)

    return run


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


class Clock:
    """A clock that shows the time it was set to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@dataclass
class ScriptedWorker:
    """The worker that a slot has at the moment, and its tasks."""

    tasks: dict[Ticket, Task] = field(default_factory=dict)
    is_killed: bool = False

    @property
    def jobs(self):
        return [task.job for task in self.tasks.values()]


Fate = Literal["done", "dies", "fails", "works"]


class ScriptedPool:
    """A pool in which one task ends each second: the first whose fate is not to go on working.

    Attributes:
        decide: Function that gives the fate of a worker's job; it is called again while it works.
        result_of: Function that gives the result of a job that is done.
        hands: Jobs that a worker held, each time it was given some.
        num_replaced: How many times a dead worker was replaced.
        has_left: Slots that disappear when their worker dies.
        outage: Lines about storage that does not answer.
    """

    def __init__(self, num_slots: int, result_of: Callable[[object], object], clock: Clock):
        self.slots = [Slot(name=f"host:{number}") for number in range(num_slots)]
        self.decide = lambda worker, job: "done"
        self.error = lambda job: OSError("no such device")
        self.result_of, self.clock = result_of, clock
        self.workers, self.hands, self.calls, self.num_replaced, self.killed = {}, [], [], 0, []
        self.has_left, self.num_starts, self.num_stops = set(), 0, 0
        self.trouble, self.outage, self.seconds = None, [], lambda job: 1.0
        self._place_of = {}

    def start(self):
        self.num_starts += 1
        self.workers = self.workers or {slot: ScriptedWorker() for slot in self.slots}

    def submit(self, slot, tasks):
        worker = self.workers[slot]
        for task in tasks:
            worker.tasks[task.ticket] = task
            self._place_of[task.ticket] = (slot, worker)
        self.calls.append([task.job for task in tasks])
        self.hands.append(worker.jobs)

    def wait(self, timeout_s):
        for ticket, (slot, worker) in self._place_of.items():
            job = worker.tasks[ticket].job
            fate = "dies" if worker.is_killed else self.decide(worker, job)
            if fate == "works":
                continue
            self.clock.now += 1.0
            del self._place_of[ticket], worker.tasks[ticket]
            if fate == "done":
                result = self.result_of(job)
                return [Finished(ticket=ticket, result=result, seconds=self.seconds(job))]
            if fate == "fails":
                return [Failed(ticket=ticket, error=self.error(job))]
            worker.is_killed = True
            if self.workers.get(slot) is worker:
                self._replace(slot)
            return [Lost(ticket=ticket, reason="its actor died (Scripted)")]
        self.clock.now += timeout_s
        return []

    def kill(self, ticket):
        _, worker = self._place_of[ticket]
        self.killed.append(worker.tasks[ticket].job)
        worker.is_killed = True

    def states(self):
        return {slot: "infer" if worker.tasks else "wait" for slot, worker in self.workers.items()}

    def outages(self):
        return self.outage

    def stop(self):
        self.num_stops += 1

    def _replace(self, slot):
        if slot in self.has_left:
            self.slots.remove(slot)
            del self.workers[slot]
            self.trouble = "its worker cannot start"
            return
        self.num_replaced += 1
        self.workers[slot] = ScriptedWorker()

    @property
    def most_in_hand(self):
        return max(map(len, self.hands))


@pytest.fixture
def clock():
    """A clock that stands still until a pool waits."""
    return Clock()


@pytest.fixture
def scripted_pool(clock):
    """Makes a running pool: `scripted_pool(num_slots, result_of)`."""

    def make(num_slots, result_of=lambda job: None):
        pool = ScriptedPool(num_slots, result_of, clock)
        pool.start()
        return pool

    return make


class ListJournal:
    """Keeps everything that a driver tells."""

    def __init__(self):
        self.shards, self.slices, self.receipts, self.attempts, self.nodes = [], [], [], [], []
        self.agreements = []

    def add_shard(self, shard):
        self.shards.append(shard)

    def add_slice(self, receipt):
        self.slices.append(receipt)

    def add_receipt(self, receipt):
        self.receipts.append(receipt)

    def add_attempt(self, attempt):
        self.attempts.append(attempt)

    def add_node(self, use):
        self.nodes.append(use)

    def add_agreement(self, agreement):
        self.agreements.append(agreement)


@pytest.fixture
def journal():
    """A journal that keeps everything."""
    return ListJournal()


@pytest.fixture
def killed_after(monkeypatch):
    """Block that is killed as it is about to write a file, after so many were written."""

    @contextmanager
    def run(num_writes):
        write, left = Directory.write, iter(range(num_writes))

        def dying_write(self, name):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return write(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(Directory, "write", dying_write)
            with pytest.raises(KeyboardInterrupt):
                yield

    return run
