"""What this process waits for because a service of buckets does not answer.

    retries -> [outages] -> status lines of this process, time limits of its jobs

Any thread may ask at any time. In the process that a user looks at, a line says so after some
seconds, again every half minute, and once more when the service answers. This module knows nothing
of requests.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)
FIRST_LINE_S, NEXT_LINE_S = 5.0, 30.0


@dataclass(frozen=True, kw_only=True)
class Outage:
    """An operation that waits.

    Attributes:
        path: What it is about, as a URI.
        since_s: Seconds for which there was no answer.
        error: The last error, in one line and without secrets.
    """

    path: str
    since_s: float
    error: str

    def __str__(self) -> str:
        return f"storage does not answer since {self.since_s:.0f} s: {self.path} ({self.error})"


@dataclass(frozen=True)
class _Wait:
    """An operation that waits: for what, what it is about, since when, why."""

    service: str
    path: str
    start: float
    error: str


class OutageRecord:
    """The operations of a process that wait, by a clock of its own."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = logger.warning,
    ) -> None:
        """Start with none.

        Args:
            clock: Monotonic clock, in seconds.
            log: Function that shows a line to the user.
        """
        self._clock, self._log = clock, log
        self._lock = threading.Lock()
        self._waits: dict[object, _Wait] = {}
        self._told: dict[str, tuple[float, float]] = {}  # start and last line, by service

    def current(self) -> list[Outage]:
        """The operations that wait now, the one that waits longest first."""
        with self._lock:
            waits, now = list(self._waits.values()), self._clock()
        outages = [Outage(path=w.path, since_s=now - w.start, error=w.error) for w in waits]
        return sorted(outages, key=lambda outage: -outage.since_s)

    def wait(self, key: object, service: str, path: str, start: float, error: str) -> None:
        """Note that an operation waits; it may be called again for the same one.

        Args:
            key: The operation.
            service: Name of the service, which is told of once whatever waits for it; "" for
                none, where nobody looks at this process.
            path: What the operation is about, as a URI.
            start: Its beginning, by the clock.
            error: Why it waits.
        """
        with self._lock:
            self._waits[key] = _Wait(service, path, start, error)
            now = self._clock()
            first, last_line = self._told.get(service, (start, None))
            is_due = (
                now - first >= FIRST_LINE_S
                if last_line is None
                else (now - last_line >= NEXT_LINE_S)
            )
            if not service or not is_due:
                return
            self._told[service] = (first, now)
        self._log(f"{service} does not answer since {now - first:.0f} s ({error}); waiting for it")

    def end(self, key: object, service: str, *, has_answered: bool) -> None:
        """Note that an operation does not wait any more."""
        with self._lock:
            self._waits.pop(key, None)
            is_over = has_answered or all(w.service != service for w in self._waits.values())
            told = self._told.pop(service, None) if is_over else None
            waited_s = 0.0 if told is None else self._clock() - told[0]
        if told is not None and has_answered:
            self._log(f"{service} answers again after {waited_s:.0f} s")


_RECORD = OutageRecord()


def record() -> OutageRecord:
    """The record of this process."""
    return _RECORD


def current() -> list[Outage]:
    """What this process waits for now, the longest wait first; empty if all is well."""
    return _RECORD.current()
