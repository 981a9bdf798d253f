"""Show a run as it goes: rate, time left and money spent, on stderr.

driver -> [progress] -> a bar in a terminal, a line every ten seconds elsewhere
"""

import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cluster.execution.driver import Progress as RunProgress

_LINE_EVERY_S = 10.0
_RECENT_S = 60.0


class ProgressDisplay:
    """Turns the driver's reports into what a person watches."""

    def __init__(self, console: Console, *, unit: str, usd_per_hour: float | None) -> None:
        """Prepare a display.

        Args:
            console: Of stderr.
            unit: What the run does to a shard: "scored" or "prepared".
            usd_per_hour: Price of all machines together, or None.
        """
        self._console = console
        self._unit = unit
        self._usd_per_hour = usd_per_hour
        self._start = self._last_line = time.perf_counter()
        self._rows = 0
        self._predicted_done_s = 0.0
        self._recent: deque[tuple[float, int]] = deque()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(unit, total=1.0, text="")

    def __enter__(self) -> "ProgressDisplay":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        """Take the driver's report."""
        now = time.perf_counter()
        for receipt in progress.receipts:
            self._rows += receipt.num_rows
            self._predicted_done_s += receipt.predicted_s
            self._recent.append((now, receipt.num_rows))
        while self._recent and now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()
        text, share = self._describe(progress, now)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=share, text=text)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self._console.print(f"{100 * share:.0f}% {text}", highlight=False)

    def _describe(self, progress: RunProgress, now: float) -> tuple[str, float]:
        elapsed_s = now - self._start
        known_s = self._predicted_done_s + progress.predicted_left_s
        share = self._predicted_done_s / known_s if known_s else 0.0
        recent_s = min(elapsed_s, _RECENT_S)
        recent = sum(rows for _, rows in self._recent) / recent_s if recent_s else 0.0
        parts = [
            f"{progress.num_done}/{progress.num_known} shards {self._unit}"
            + (f", {progress.num_slices_left} slices to read" if progress.num_slices_left else ""),
            f"{self._rows:,} rows",
            f"{recent:,.0f} rows/s now, {self._rows / elapsed_s:,.0f} overall",
        ]
        if share > 0:
            parts.append(f"ETA {_clock(elapsed_s * (1 - share) / share)}")
        if self._usd_per_hour is not None:
            parts.append(f"{self._usd_per_hour * elapsed_s / 3600:.4f} USD so far")
        return ", ".join(parts), share


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
