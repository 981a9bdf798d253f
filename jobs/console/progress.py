"""Show how far a long job is: a bar with the time left, or a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jobs.console.output import console

LOG_SECONDS = 60


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that is told what is being done, how much of it, and of how much."""
    if not console.is_terminal:
        yield _Log()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)
            if done >= total:  # the next step of the same name starts anew
                progress.remove_task(bars.pop(what))

        yield update


class _Log:
    """A line with the time left, at most once a minute."""

    def __init__(self) -> None:
        self._what = ""
        self._start = self._last = time.monotonic()
        self._first = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._start, self._last, self._first = what, now, now, done
        if now - self._last < LOG_SECONDS or done == self._first:
            return
        self._last = now
        left = (now - self._start) / (done - self._first) * (total - done)
        console.print(f"{what}: {done:,} of {total:,}, {left / 60:.0f} min left")
