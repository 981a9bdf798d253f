"""Show how far a long job is, on stderr: a live bar in a terminal, elsewhere a line now and then.

    library -> what is done, how much of it -> [progress] -> bar or line, with the time left

The library reports every batch; this module decides what of it is shown, and estimates the time
that is left from the share done since the first report. It knows nothing of what is done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from fastformers.cluster.formatting import format_clock
from fastformers.jobs.console.output import console

# A long text takes several lines of a narrow terminal: what is slow stands at its end.
_BAR_WIDTH = 20
_WRAPPED = Column(ratio=1, overflow="fold")


class ProgressDisplay:
    """A live bar in a terminal, elsewhere a line every `line_every_s` seconds at most."""

    def __init__(self, *, line_every_s: float, is_live: bool = True) -> None:
        """Prepare a display.

        Args:
            line_every_s: Least seconds between two lines, and before the first line of each task.
            is_live: Whether a terminal gets a bar; without it lines alone, so that nothing that
                refreshes itself runs beside a clock.
        """
        self._line_every_s = line_every_s
        self._bar: Progress | None = None
        if is_live and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(_BAR_WIDTH),
                TextColumn("{task.fields[text]}", markup=False, table_column=_WRAPPED),
                console=console,
                transient=True,
                expand=True,
            )
        self._task: TaskID | None = None
        self._what: str | None = None
        self._start = self._last_line = 0.0
        self._first_share = 0.0

    def __enter__(self) -> "ProgressDisplay":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, what: str, share: float, describe: Callable[[], str]) -> None:
        """Take a report, and show it where it is time to.

        Args:
            what: What is being done; where it changes, the time left is estimated anew.
            share: How much of it is done, 0-1.
            describe: Says more; called only where something is shown.
        """
        now = time.monotonic()
        if what != self._what:
            self._what, self._first_share = what, share
            self._start = self._last_line = now
        if self._bar is not None:
            self._move_bar(self._bar, what, share, self._text(share, now, describe))
        elif now - self._last_line >= self._line_every_s:
            self._last_line = now
            console.print(f"{what}: {self._text(share, now, describe)}")

    def _text(self, share: float, now: float, describe: Callable[[], str]) -> str:
        gained = share - self._first_share
        if gained <= 0:
            return f"{100 * share:.0f}%, {describe()}"
        left = format_clock((now - self._start) * (1 - share) / gained)
        return f"{100 * share:.0f}%, ETA {left}, {describe()}"

    def _move_bar(self, bar: Progress, what: str, share: float, text: str) -> None:
        """Move the one bar there is; a bar that is full is taken away."""
        if self._task is None:
            self._task = bar.add_task(what, total=1.0, text=text)
        bar.update(self._task, description=what, completed=share, text=text)
        if share >= 1:
            bar.remove_task(self._task)
            self._task = None


@contextmanager
def show_progress(
    *, line_every_s: float = 60.0, is_live: bool = True
) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that takes what is being done, how much of it is, and how much there is."""
    with ProgressDisplay(line_every_s=line_every_s, is_live=is_live) as display:

        def update(what: str, done: int, total: int) -> None:
            display.update(what, done / total, lambda: f"{done:,} of {total:,}")

        yield update
