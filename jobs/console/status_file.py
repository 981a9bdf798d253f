"""Keep what a run writes of itself up to date, from when its output is claimed until it ends.

    driver -> Progress -> [status_file] -> RunStatus -> console
                                                     -> status.json in the output
    summary -> Session -> [status_file] -> sessions/RUN.json in the output
    quoting -> Quotes  -> [status_file] -> quotes.json in the output

A thread of its own writes the file every few seconds, so that a storage that does not answer holds
up no run; one that fails ends none. This module knows nothing of what the numbers mean.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from fastformers.cluster.execution.claim import Claim
from fastformers.cluster.records.quotes import Quotes, write_quotes
from fastformers.cluster.records.sessions import Session, write_session
from fastformers.cluster.report.forecasts.quoting import Quoter
from fastformers.cluster.report.status import RunStatus, StatusTally, Unit
from fastformers.cluster.scheduling.progress import Progress
from fastformers.cluster.shards.identity import STATUS_FILE
from fastformers.cluster.storage.directory import Directory
from fastformers.cluster.storage.options import hide_credentials
from fastformers.errors import ClaimedError

logger = logging.getLogger(__name__)

_EVERY_S = 10.0
_END_WITHIN_S = 2.0


class StatusFile:
    """status.json and the session's record, while a block runs; its end is their last state."""

    def __init__(
        self,
        output: Directory,
        unit: Unit,
        usd_so_far: Callable[[Progress], float],
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        """Prepare the file; it is not written before the output is claimed.

        Args:
            output: Directory that the run claims.
            unit: What is done with shards.
            usd_so_far: What all machines have cost by a report.
            every_s: Seconds from one write to the next.
        """
        self._output = output
        self._unit = unit
        self._usd_so_far = usd_so_far
        self._every_s = every_s
        self._tally: StatusTally | None = None
        self._claim: Claim | None = None
        self._status: RunStatus | None = None
        self._session: Session | None = None
        self._written: Session | None = None
        self._quoter: Quoter | None = None
        self._written_quotes: Quotes | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="status", daemon=True)

    @property
    def run(self) -> str:
        """Identifier of the run; empty before its output is claimed."""
        return "" if self._claim is None else self._claim.record.run

    @property
    def quotes(self) -> Quotes:
        """What the run has said of its bill."""
        assert self._quoter is not None, "a run quotes itself after its output is claimed"
        return self._quoter.quotes

    def begin(self, claim: Claim, quoter: Quoter) -> None:
        """Begin to write, because the output is claimed."""
        self._claim, self._quoter = claim, quoter
        self._tally = StatusTally(claim.record, self._unit, self._usd_so_far, quoter.quote)
        self._status = self._tally.begin()
        self._thread.start()

    def add(self, progress: Progress) -> RunStatus:
        """Take a report of the driver; returns the status that follows from it."""
        assert self._tally is not None, "a run reports after its output is claimed"
        self._status = self._tally.add(progress)
        return self._status

    def keep(self, session: Session) -> None:
        """Take what the session has done so far, or did in all."""
        self._session = session

    def __enter__(self) -> "StatusFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is None or isinstance(error, ClaimedError):
            self._status = None  # the output, and so the file, is another run's
        else:
            reason = None
            if isinstance(error, Exception):
                reason = hide_credentials(" ".join((str(error) or repr(error)).split()))
            state = "failed" if reason is not None else "interrupted" if error else "finished"
            left_s = self._status.left_s if error else 0.0
            self._status = replace(self._status, state=state, reason=reason, left_s=left_s)
            if self._session is not None:
                self._session = replace(self._session, state=state)
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_END_WITHIN_S)

    def _keep_writing(self) -> None:
        while not self._ended.is_set():
            self._write()
            self._ended.wait(self._every_s)
        self._write()

    def _write(self) -> None:
        status, claim = self._status, self._claim
        if status is None or claim is None:
            return
        try:
            if not self._ended.is_set():
                claim.check()
            self._output.write_json(STATUS_FILE, status.to_json())
            session = self._session
            if session is not None and session is not self._written:
                write_session(self._output, session)
                self._written = session
            quotes = self.quotes
            if (quotes.history or quotes.early) and quotes is not self._written_quotes:
                write_quotes(self._output, quotes)
                self._written_quotes = quotes
        except Exception as error:  # whatever the storage raises, the run goes on
            logger.info("%s/%s: %s", self._output, STATUS_FILE, error)
