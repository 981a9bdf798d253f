"""Sum up where a run stands while it goes: rows, rate, money spent.

    driver -> [progress] -> share done, one line -> console of the command

This module knows nothing of terminals or of the time left.
"""

import time
from collections import deque

from cluster.scheduling.progress import Progress

_RECENT_S = 60.0


class RunProgress:
    """Adds up the driver's reports."""

    def __init__(self, *, usd_per_hour: float) -> None:
        """Start the clock of the run.

        Args:
            usd_per_hour: Price of all machines together.
        """
        self._usd_per_hour = usd_per_hour
        self._start = time.perf_counter()
        self._num_rows = 0
        self._predicted_done_s = 0.0
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, progress: Progress) -> float:
        """Take a report; returns the share of the run that is done, 0-1."""
        now = time.perf_counter()
        for receipt in progress.receipts:
            self._num_rows += receipt.num_rows
            self._predicted_done_s += receipt.predicted_s
            self._recent.append((now, receipt.num_rows))
        while self._recent and now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()
        known_s = self._predicted_done_s + progress.predicted_left_s
        return self._predicted_done_s / known_s if known_s else 0.0

    def describe(self, progress: Progress) -> str:
        """One line: shards, rows, rows per second over the last minute and over all, USD so far."""
        elapsed_s = time.perf_counter() - self._start
        recent_s = min(elapsed_s, _RECENT_S)
        recent = sum(num_rows for _, num_rows in self._recent) / recent_s
        parts = [f"{progress.num_done}/{progress.num_known} shards"]
        if progress.num_slices_left:
            parts.append(f"{progress.num_slices_left} slices to read")
        parts += [
            f"{self._num_rows:,} rows",
            f"{recent:,.0f} rows/s now, {self._num_rows / elapsed_s:,.0f} overall",
            f"{self._usd_per_hour * elapsed_s / 3600:.4f} USD so far",
        ]
        return ", ".join(parts)
