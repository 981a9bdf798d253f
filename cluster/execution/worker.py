"""The worker: opens a bundle once, prepares slices and scores shards.

    driver -> jobs -> [worker] -> predictions on disk, receipts back

A worker knows nothing of other workers, of the queue, of prices or of who runs it: a Ray actor on
cores of its own, or this process. It returns receipts, never predictions: what it made is on disk
when its call returns.

It may have several jobs in hand, each in a thread. One at a time computes, on all threads that the
worker has; the others wait for storage, to read what comes next and to write what is done. Seconds
of computing are wall time, those of reading and writing are CPU time of the job's thread: waiting
costs nothing while another job computes.
"""

import pickle
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.delivery.audit_bundle import PinnedAudit
from fastformers.cluster.delivery.bundle_delivery import PinnedBundle
from fastformers.cluster.devices.auditor import Auditor
from fastformers.cluster.devices.card_use import CardUse
from fastformers.cluster.devices.cards import Card
from fastformers.cluster.devices.scoring import Scoring
from fastformers.cluster.execution.turns import Turns
from fastformers.cluster.scheduling.work import (
    Comparison,
    Failed,
    Finished,
    Job,
    JobResult,
    MeasureRate,
    Task,
    TimeEngine,
)
from fastformers.cluster.shards.label_counts import count_labels
from fastformers.cluster.shards.layout import TOKENS, Shard, read_shard_table
from fastformers.cluster.shards.predictions import (
    Agreement,
    build_predictions,
    compare_predictions,
    write_predictions,
)
from fastformers.cluster.shards.preparation import Preparation, SliceReceipt
from fastformers.cluster.shards.receipts import Receipt, count_lengths, count_reasons
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import ScoringError
from fastformers.inference.description.further_graph import choose_graph
from fastformers.inference.engine import Device, Engine, run_batches
from fastformers.inference.outputs.columns import choose_columns
from fastformers.inference.scorer import open_scorer
from fastformers.inference.tokenizer import TokenizedRows

# Texts of a shard that are scored in a second precision, to compare: a second of one core or so.
_COMPARED_TEXTS = 256


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What all workers of a run share.

    Attributes:
        bundle: Bundle of the run, and where it is on the worker's host.
        shards: Directory of the prepared shards.
        preparation: How to make the shards, or None if they are all there.
        predictions: Directory of the predictions, or None if this run only prepares.
        keep_columns: Columns to pass through.
        scorings: How workers of each kind score; a worker of any other kind only prepares.
        columns: Columns of predictions, see `choose_columns`.
        label_column: Column of the shards that predictions are compared with, or None.
        audit: Second bundle that scores some of the rows, too, or None.
        slowness: See `ScoreJob.slowness`.
    """

    bundle: PinnedBundle
    shards: Directory
    preparation: Preparation | None
    predictions: Directory | None
    keep_columns: tuple[str, ...]
    scorings: Mapping[Device, Scoring]
    columns: tuple[str, ...] = ()
    label_column: str | None = None
    audit: PinnedAudit | None = None
    slowness: float = 1.0

    @property
    def extra(self) -> float:
        """Core-seconds of a shard and its audit over those predicted of it, by cost profiles."""
        return self.slowness * (1 + (0.0 if self.audit is None else self.audit.extra)) - 1

    def scores_on(self, device: Device) -> bool:
        """Whether workers of a kind score in this run."""
        return self.predictions is not None and device in self.scorings


class Worker:
    """Does the jobs of a run, on one machine."""

    def __init__(
        self,
        spec: WorkerSpec,
        name: str,
        *,
        num_threads: int = 1,
        device: Device = "cpu",
        card: Card | None = None,
    ) -> None:
        """Open the bundle, and warm up the engine if such a worker scores.

        Args:
            spec: Description of the work that all workers of the run share.
            name: Name of the worker in receipts.
            num_threads: Threads that compute one batch, or that serve its GPU.
            device: What computes for it.
            card: Its GPU, whose use is counted; None where that is not known.

        Raises:
            BundleError: The bundle is missing, damaged, or not the run's.
        """
        pa.set_memory_pool(pa.system_memory_pool())  # gives back the memory of a large shard
        self._spec = spec
        self._name = name
        self._turns = Turns()
        bundle = spec.bundle.open()
        self._use = None
        if not spec.scores_on(device):  # preparing needs no session
            self._tokenizer = bundle.load_tokenizer()
        else:
            self._scoring = scoring = spec.scorings[device]
            bundle = choose_graph(bundle, scoring.precision)
            self._use = CardUse.open(card)
            self._scorer = open_scorer(bundle, scoring.engine, num_threads=num_threads)
            self._tokenizer = self._scorer.tokenizer
            self._columns = choose_columns(spec.columns, bundle.task, bundle.labels)
            self._auditor = None
            if spec.audit is not None:
                self._auditor = Auditor(
                    spec.audit.bundle.open,
                    bundle,
                    share=spec.audit.share,
                    label_column=spec.label_column,
                    num_threads=num_threads,
                )
            self._warm_up()

    def run(self, tasks: Sequence[Task]) -> list[Finished | Failed]:
        """Do tasks one after another; one that raises does not keep the others from being done."""
        return [self._run(task) for task in tasks]

    def _run(self, task: Task) -> Finished | Failed:
        try:
            with self._turns.measured() as work:
                result = self.do(task.job)
        except Exception as error:  # whatever it is, the driver decides what becomes of the run
            return Failed(
                ticket=task.ticket, error=_portable(error), may_pass=_is_of_storage(error)
            )
        return Finished(ticket=task.ticket, result=result, seconds=work.seconds)

    def state(self) -> str:
        """What it does at the moment: a phase of `PHASES`, or "wait"."""
        return self._turns.state()

    def do(self, job: Job) -> JobResult:
        """Do a job, whatever its kind."""
        match job:
            case Slice():
                return self.prepare(job)
            case Lease():
                return self.score(job)
            case Comparison():
                return self.compare(job.shard)
            case TimeEngine():
                return self.time_engine(job.shards)
            case MeasureRate():
                return self.measure_tokens_per_second(job.seconds)
            case _:
                assert_never(job)

    def prepare(self, slice_: Slice) -> SliceReceipt:
        """Cut a slice into shards on disk."""
        assert self._spec.preparation is not None
        return self._spec.preparation.prepare(
            slice_,
            self._tokenizer,
            self._turns.computing("tokenize"),
            on_phase=self._turns.enter,
        )

    def score(self, lease: Lease) -> Receipt | None:
        """Score a shard and commit its predictions; a probe scores a part and commits nothing."""
        shard, start = lease.shard, time.thread_time()
        self._turns.enter("read")
        table = self._read(shard)
        rows = read_shard_table(table)
        wanted = range(len(rows)) if lease.probe is None else lease.probe
        rows_U = np.setdiff1d(np.arange(wanted.start, wanted.stop), list(lease.skip))
        read_s = time.thread_time() - start
        with self._turns.computing("infer"):
            started_at, start = time.time(), time.perf_counter()
            scored = self._scorer.score_tokens(
                rows, rows_U=rows_U, max_batch_tokens=self._scoring.max_batch_tokens
            )
            infer_s = time.perf_counter() - start
        if lease.probe is not None:
            return None
        logits_UC = np.full((len(rows), scored.logits_UC.shape[1]), np.nan, np.float32)
        logits_UC[rows_U] = scored.logits_UC
        failed = {int(rows_U[row]): reason for row, reason in scored.errors.items()}
        errors_U = {**lease.skip, **failed}
        audit, audit_s = self._audit(lease, table, rows, logits_UC)
        self._turns.enter("write")
        start = time.thread_time()
        bundle = self._scorer.bundle
        predictions = build_predictions(
            table, logits_UC, self._columns, bundle.labels, errors_U, self._spec.keep_columns
        )
        phase_s = {"read": read_s, "infer": infer_s, **audit_s, "write": time.thread_time() - start}
        rss_bytes, peak_rss_bytes = measure_memory()
        lengths_U = rows.lengths_N[rows_U]
        numbers_N = table["unique"].drop_null().to_pylist() if errors_U else []
        receipt = Receipt(
            shard=shard.name,
            actor=self._name,
            attempt=lease.attempt,
            num_rows=shard.num_rows,
            num_unique=shard.num_unique,
            num_errors=predictions["error"].length() - predictions["error"].null_count,
            num_tokens=shard.num_tokens,
            num_scored_tokens=int(lengths_U.sum()),
            num_computed_tokens=sum(scored.computed_tokens),
            num_batches=len(scored.batches),
            started_at=started_at,
            finished_at=started_at + sum(phase_s.values()),
            predicted_s=shard.predicted_s,
            rss_bytes=rss_bytes,
            peak_rss_bytes=peak_rss_bytes,
            phase_s=phase_s,
            lengths=count_lengths(lengths_U, scored.batches, scored.computed_tokens),
            failures=count_reasons(errors_U[text] for text in numbers_N if text in errors_U),
            device=self._scoring.device,
            precision=self._scoring.precision,
            gpu_busy=self._use.take() if self._use else None,
            labels=self._count_labels(table, logits_UC, errors_U),
            audit=audit,
            second_texts=sum(map(len, scored.second_batches)),
            second_s=scored.second_s,
            expected_s=bundle.cost_profile.estimate_total_seconds(lengths_U),
        )
        assert self._spec.predictions is not None
        return write_predictions(self._spec.predictions, shard.file_name, predictions, receipt)

    def compare(self, shard: Shard) -> Agreement:
        """Score texts of all lengths of a shard that is on disk, and compare the predictions."""
        assert self._spec.predictions is not None
        self._turns.enter("read")
        table = self._read(shard)
        rows = read_shard_table(table)
        stored = self._spec.predictions.read_table(shard.file_name)
        places_U = table.filter(table["input_ids"].is_valid())["place"].to_numpy()
        rows_S = np.linspace(0, len(rows) - 1, min(len(rows), _COMPARED_TEXTS)).astype(np.intp)
        with self._turns.computing("infer"):
            scored = self._scorer.score_tokens(
                rows, rows_U=rows_S, max_batch_tokens=self._scoring.max_batch_tokens
            )
        bundle = self._scorer.bundle
        return compare_predictions(
            stored.take(pa.array(places_U[rows_S])), scored.logits_UC, self._columns, bundle.labels
        )

    def time_engine(self, shards: Iterable[Shard]) -> float:
        """Seconds that the engine alone takes for the shards, their batches already in memory.

        Of a cascade, the seconds of both engines, each on the rows that it scores.
        """
        batches: dict[Engine, list[tuple[np.ndarray, np.ndarray]]] = {}
        for shard in shards:
            for engine, batch in self._batches(shard):
                batches.setdefault(engine, []).append(batch)
        start = time.perf_counter()
        for engine, own in batches.items():
            run_batches(engine, partial(_run_batch, engine), own)
        return time.perf_counter() - start

    def measure_tokens_per_second(self, seconds: float) -> float:
        """Tokens per second over batches of several lengths, for about `seconds`."""
        rows = _synthetic_rows(self._scorer.bundle.max_length)
        tokens = 0
        self._turns.enter("infer")
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            self._scorer.score_tokens(rows, max_batch_tokens=self._scoring.max_batch_tokens)
            tokens += len(rows.ids)
        return tokens / elapsed

    def _audit(
        self, lease: Lease, table: pa.Table, rows: TokenizedRows, logits_UC: NDArray[np.float32]
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Audit a shard: counts as plain values, and seconds by phase; both empty without one."""
        if self._auditor is None:
            return {}, {}
        with self._turns.computing("audit"):
            start = time.perf_counter()
            counts = self._auditor.audit(
                lease.shard.name, table, rows, logits_UC, may_score=lease.audits
            )
            return asdict(counts), {"audit": time.perf_counter() - start}

    def _count_labels(
        self, table: pa.Table, logits_UC: NDArray[np.float32], errors_U: Mapping[int, str]
    ) -> dict[str, Any]:
        """The predictions of a shard against its labels, as plain values; empty without labels."""
        column = self._spec.label_column
        if column is None:
            return {}
        bundle = self._scorer.bundle
        texts_N = [None if text in errors_U else text for text in table["unique"].to_pylist()]
        values_N = table[f"keep.{column}"].to_pylist()
        return asdict(count_labels(values_N, texts_N, logits_UC, bundle.task, bundle.labels))

    def _read(self, shard: Shard) -> pa.Table:
        return self._spec.shards.child(TOKENS).read_table(shard.file_name)

    def _batches(self, shard: Shard) -> Iterator[tuple[Engine, tuple[np.ndarray, np.ndarray]]]:
        """The batches of a shard, each with the engine that runs it."""
        rows = read_shard_table(self._read(shard))
        for engine, rows_B in self._scorer.plan(
            rows, max_batch_tokens=self._scoring.max_batch_tokens
        ):
            yield (
                engine,
                (
                    rows.batch_ids(rows_B).astype(rows.ids.dtype),
                    rows.batch_types(rows_B).astype(np.uint8),
                ),
            )

    def _warm_up(self) -> None:
        self._scorer.warm_up(_synthetic_rows(self._scorer.bundle.max_length))


def _run_batch(engine: Engine, batch: tuple[np.ndarray, np.ndarray]) -> None:
    ids_BT, types_BT = batch
    engine.run(ids_BT.astype(np.int64), types_BT.astype(np.int64))


def measure_memory() -> tuple[int, int]:
    """Resident memory of this process in bytes, now and at its peak."""
    rss_bytes = psutil.Process().memory_info().rss
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return rss_bytes, int(line.split()[1]) * 1024
    return rss_bytes, rss_bytes


def _is_of_storage(error: BaseException | None) -> bool:
    """Whether a disk or a service failed, as far down as causes are known; they do not travel."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None


def _portable(error: Exception) -> Exception:
    """The error, or what it says where it cannot travel to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ScoringError(repr(error))
    return error


def _synthetic_rows(max_length: int) -> TokenizedRows:
    lengths = [length for length in (16, 32, 64, 128, 256, 512) if length <= max_length]
    lengths = [length for length in lengths for _ in range(max(1, 256 // length))]
    return TokenizedRows(
        ids=np.full(sum(lengths), 5, np.uint16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        second_lengths_N=np.zeros(len(lengths), np.uint16),
    )
