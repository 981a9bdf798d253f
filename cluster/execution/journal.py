"""What a run keeps of what happened: sums, nodes, and a log of receipts for the next run.

    earlier work, driver -> [journal] -> receipts log, RunResult -> report

The driver tells and forgets; here it is added up and forgotten, too, but for the log, which is on
disk. `find_earlier_work` is the other end of the log: it learns what is done from few requests.
This module knows nothing of Ray or prices.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from types import TracebackType

from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import EarlierWork
from fastformers.cluster.records.audit import check_so_far
from fastformers.cluster.records.bad_rows import BadRows
from fastformers.cluster.records.receipts_log import (
    CLOSE_AFTER_ERROR_S,
    CLOSE_S,
    LoggedRecords,
    ReceiptsLog,
    load_receipts,
    read_log,
)
from fastformers.cluster.records.slice_table import CutSlices, load_slices
from fastformers.cluster.records.tally import ReceiptSums, RunTally
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Attempt, Receipt
from fastformers.cluster.shards.shard_set import ShardSet
from fastformers.cluster.storage.ahead import side_by_side
from fastformers.errors import ClaimedError


class RunJournal:
    """Listens to the driver of one run; a context that ends with the log written.

    Where another run has taken the output over, the log is that one's and is left alone.

    Attributes:
        tally: Sums of this run and of those before it.
        cut: Slices that are cut.
        with_errors: Shards that have rows without a prediction.
        bad_rows: Rows of this run and of those before it, good and bad.
        nodes: Nodes that have left, or were there at the end.
    """

    def __init__(self, job: ScoreJob) -> None:
        """Set up the journal of a job; nothing is read or written."""
        self.tally = RunTally()
        self.cut = CutSlices()
        self.with_errors = ShardSet()
        self.bad_rows = BadRows()
        self.nodes: list[NodeUse] = []
        self._job = job
        self._receipts: ReceiptsLog | None = None
        self._slices: ReceiptsLog | None = None

    def load_earlier(self, *, is_new: bool = False) -> EarlierWork:
        """Find what earlier runs did, count it, and log what their logs do not have.

        Args:
            is_new: Whether it is known that no earlier run has worked in the output.

        Raises:
            InputError: The shards are of a preparation that was interrupted.
            ScoringError: Too many of the rows that they read are bad.
            AuditError: Far too few of the rows that they audited agree.
        """
        job = self._job
        receipts, slices = _read_logs(job, is_new=is_new)
        if job.receipts_log is not None:
            self._receipts = ReceiptsLog(job.receipts_log, next_number=receipts.next_number)
        if job.corpus is not None:  # prepared shards are another directory's, and logged there
            self._slices = ReceiptsLog(job.slices_log, next_number=slices.next_number)
        earlier = _find(
            job,
            receipts,
            slices,
            is_new=is_new,
            on_unlogged=self._log_receipt,
            on_unlogged_slice=self._log_slice,
        )
        self.cut, self.with_errors = earlier.cut, earlier.with_errors
        self.tally.known, self.tally.earlier = earlier.cut.known, earlier.receipts
        self.tally.skipped_files = earlier.cut.skipped_files
        self.tally.unfit = earlier.cut.unfit
        self.bad_rows = earlier.cut.bad_rows
        self.check_bad_rows()
        self._check_audit()
        return earlier

    def __enter__(self) -> "RunJournal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.tally.close()
        if isinstance(error, ClaimedError):
            return  # the logs are of the run that has taken the output over
        for log in (self._receipts, self._slices):
            if log is not None:
                log.close(timeout_s=CLOSE_S if kind is None else CLOSE_AFTER_ERROR_S)

    def flush_if_due(self) -> None:
        """Write down what waits for long; to be called about once a second."""
        for log in (self._receipts, self._slices):
            if log is not None:
                log.flush_if_due()

    def add_shard(self, shard: Shard) -> None:
        """A shard is known: it was cut in this run."""
        self.tally.known.add(shard)

    def add_slice(self, receipt: SliceReceipt) -> None:
        """A slice was cut, and its receipt is on disk.

        Raises:
            ScoringError: Too many rows are bad.
        """
        self.tally.add_slice(receipt)
        self.cut.table.add(receipt, receipt.key)
        self._log_slice(receipt)
        self.bad_rows.add_slice(receipt)
        self.check_bad_rows()

    def add_receipt(self, receipt: Receipt) -> None:
        """A shard was scored, and its predictions are on disk.

        Raises:
            ScoringError: Too many rows are bad.
            AuditError: Far too few of those audited agree.
        """
        self.tally.add_receipt(receipt)
        if receipt.num_errors:
            self.with_errors.add(receipt.shard)
        self._log_receipt(receipt)
        self.bad_rows.add_receipt(receipt)
        self.check_bad_rows()
        self._check_audit()

    def add_attempt(self, attempt: Attempt) -> None:
        """A job has ended, well or not."""
        self.tally.add_attempt(attempt)

    def add_agreement(self, agreement: Agreement) -> None:
        """Some texts were scored in a second precision."""
        self.tally.agreement += agreement

    def add_node(self, use: NodeUse) -> None:
        """A node has left, or the run is over."""
        self.nodes.append(use)

    def check_bad_rows(self, *, are_all: bool = False, listed_in: str | None = None) -> None:
        """Refuse to go on with too many bad rows; arguments as for `BadRows.check`.

        Raises:
            ScoringError: There are more than the job allows.
        """
        limit = self._job.settings.bad_row_limit
        self.bad_rows.check(limit, are_all=are_all, listed_in=listed_in)

    def _check_audit(self) -> None:
        audit = self._job.audit
        if audit is not None and audit.min_agreement is not None:
            counts = (self.tally.earlier.audit, self.tally.scored.audit)
            check_so_far(counts, self._job.bundle.task, audit.min_agreement, audit)

    def _log_receipt(self, receipt: Receipt) -> None:
        if self._receipts is not None:
            self._receipts.add(vars(receipt))

    def _log_slice(self, receipt: SliceReceipt) -> None:
        if self._slices is not None:
            self._slices.add({"key": receipt.key, **asdict(receipt)})


def find_earlier_work(job: ScoreJob, *, is_new: bool = False) -> EarlierWork:
    """Find what earlier runs of a job left on disk; nothing is changed there.

    Args:
        job: Job whose output is looked at.
        is_new: Whether it is known that no earlier run has worked there.

    Raises:
        InputError: The shards are of a preparation that was interrupted.
    """
    return _find(job, *_read_logs(job, is_new=is_new), is_new=is_new)


def _read_logs(job: ScoreJob, *, is_new: bool) -> Iterator[LoggedRecords]:
    """The log of the receipts of shards, and that of the receipts of slices."""
    own = None if is_new else job.receipts_log
    slices = None if is_new and job.corpus is not None else job.slices_log
    return side_by_side(
        *(partial(read_log, log) if log is not None else LoggedRecords for log in (own, slices))
    )


def _find(
    job: ScoreJob,
    receipts: LoggedRecords,
    slices: LoggedRecords,
    *,
    is_new: bool,
    on_unlogged: Callable[[Receipt], None] = lambda receipt: None,
    on_unlogged_slice: Callable[[SliceReceipt], None] = lambda receipt: None,
) -> EarlierWork:
    done, with_errors, sums = ShardSet(), ShardSet(), ReceiptSums()
    bad_rows = BadRows()
    if job.predictions is not None and not is_new:
        for receipt in load_receipts(job.predictions, receipts, on_unlogged=on_unlogged):
            done.add(receipt.shard)
            sums.add(receipt)
            if receipt.num_errors:
                with_errors.add(receipt.shard)
            bad_rows.add_receipt(receipt)
    planned = None if job.corpus is None else job.corpus.plan_slices(limit=job.settings.limit)
    if planned is not None and is_new:
        cut = CutSlices(slices=planned)
    else:
        cut = load_slices(
            job.shards,
            slices,
            planned,
            done=done,
            scores=job.output is not None,
            bad_rows=bad_rows,
            on_unlogged=on_unlogged_slice,
        )
    return EarlierWork(
        done=done,
        with_errors=with_errors,
        receipts=sums,
        cut=cut,
        num_slices=0 if planned is None else len(planned),
    )
