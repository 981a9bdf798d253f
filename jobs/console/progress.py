"""Show on stderr what a command does: what it waits for, with the clock, and how far long work is.

    command, library -> what is waited for, what is done, how much -> [progress] -> live line or log

In a terminal one line is drawn over and over. Elsewhere, in a pipe, in CI, in a notebook or on a
dumb terminal, a line comes now and then. The time that is left is estimated from the share done
since the first report. This module knows nothing of what is done.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from fastformers.cluster.formatting import format_clock
from fastformers.jobs.console.output import console
from fastformers.jobs.console.terminal.live_line import ProgressLine, WaitingLine

_REFRESHES_PER_S = 4.0
_LINE_EVERY_S = 10.0
# A wait that is over sooner needs no line in a log.
_SAY_AFTER_S, _LOOK_EVERY_S = 0.5, 0.25
# A kernel of Jupyter sets it for all that is started from a notebook, whose page shows what a
# terminal would draw over line after line.
_NOTEBOOK_VARIABLE = "JPY_PARENT_PID"


def can_draw_over(on: Console) -> bool:
    """Whether a line that was shown can be drawn over: a terminal that somebody watches."""
    is_terminal = getattr(on.file, "isatty", lambda: False)()
    is_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    is_notebook = on.is_jupyter or _NOTEBOOK_VARIABLE in os.environ
    return is_terminal and on.is_interactive and not (is_ci or is_notebook or on.quiet)


class ProgressDisplay:
    """A live line in a terminal, elsewhere a line every `line_every_s` seconds at most."""

    # The display that is shown; a wait inside the work of another display is shown by that one.
    shown: "ProgressDisplay | None" = None

    def __init__(self, *, line_every_s: float = _LINE_EVERY_S, is_live: bool = True) -> None:
        """Prepare a display.

        Args:
            line_every_s: Least seconds between two lines, and before the first line of each task.
            is_live: Whether a terminal gets a live line; without it lines alone, so that nothing
                that refreshes itself runs beside a clock.
        """
        self._line_every_s = line_every_s
        self._line: ProgressLine | None = None
        self._what: str | None = None
        self._waits_for: str | None = None
        self._start = self._last_line = self._waits_since = 0.0
        self._first_share = 0.0
        self._spinner = Spinner("line" if console.options.ascii_only else "dots")
        self._told: tuple[str, float] | None = None
        self._told_at = 0.0
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._keep_telling, name="progress", daemon=True)
        self._live: Live | None = None
        if is_live and can_draw_over(console):
            self._live = Live(
                get_renderable=self._render,
                console=console,
                transient=True,
                refresh_per_second=_REFRESHES_PER_S,
            )

    def __enter__(self) -> "ProgressDisplay":
        ProgressDisplay.shown = self
        if self._live is not None:
            self._live.start()
        elif not console.quiet:
            self._teller.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ProgressDisplay.shown = None
        self._ended.set()
        self._line = self._waits_for = None
        if self._live is not None:
            self._live.stop()
        elif self._teller.ident is not None:
            self._teller.join()

    def wait_for(self, what: str | None) -> None:
        """Say what is waited for from now on, with the clock; None for nothing any more."""
        if what == self._waits_for:
            return
        self._waits_since = time.monotonic()
        self._waits_for = what
        self._refresh()

    def update(
        self,
        what: str,
        share: float,
        describe: Callable[[], Sequence[str]],
        remarks: Sequence[str] = (),
        time_left: str | None = None,
    ) -> None:
        """Take a report, and show it where it is time to.

        Args:
            what: What is being done; where it changes, the time left is estimated anew.
            share: How much of it is done, 0-1.
            describe: Gives numbers that say more, the most important first; called only where
                something is shown.
            remarks: What the user should know beside them.
            time_left: The time that is left, where that is known better than from the share.
        """
        now = time.monotonic()
        self._waits_for = None
        if what != self._what:
            self._what, self._first_share = what, share
            self._start = self._last_line = now
        is_due = self._live is not None or now - self._last_line >= self._line_every_s
        if not is_due or console.quiet:
            return
        self._last_line = now
        numbers = (*self._share_and_time_left(share, now, time_left), *describe())
        if self._live is None:
            console.print("; ".join([f"{what}: {', '.join(numbers)}", *remarks]))
        else:
            line = ProgressLine(what=what, share=share, numbers=numbers, remarks=remarks)
            self._line = line if share < 1 else None
            self._refresh()

    def _share_and_time_left(self, share: float, now: float, known: str | None) -> list[str]:
        percent = f"{100 * share:.0f}%"
        if known is not None:
            return [percent, f"ETA {known}"]
        gained = share - self._first_share
        if gained <= 0:
            return [percent]
        return [percent, f"ETA {format_clock((now - self._start) * (1 - share) / gained)}"]

    def _refresh(self) -> None:
        if self._live is not None and self._live.is_started:
            self._live.refresh()

    def _render(self) -> RenderableType:
        if self._waits_for is not None:
            return WaitingLine(spinner=self._spinner, text=self._describe_wait(self._waits_for))
        return self._line or Text("")

    def _describe_wait(self, what: str) -> str:
        seconds = time.monotonic() - self._waits_since
        return f"{what}, {f'{seconds:.0f} s' if seconds < 60 else format_clock(seconds)}"

    def _keep_telling(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self._tell_wait()

    def _tell_wait(self) -> None:
        """Write a line for a wait that is no short one, and again while it goes on."""
        what, since, now = self._waits_for, self._waits_since, time.monotonic()
        if what is None or now - since < _SAY_AFTER_S:
            return
        if self._told != (what, since) or now - self._told_at >= self._line_every_s:
            self._told, self._told_at = (what, since), now
            console.print(self._describe_wait(what))


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str | None], None]]:
    """Say what is waited for while the block runs.

    Yields a function that says what is waited for from then on, where that changes.
    """
    outer = ProgressDisplay.shown
    if outer is None:
        with ProgressDisplay() as display:
            display.wait_for(what)
            yield display.wait_for
        return
    outer.wait_for(what)
    try:
        yield outer.wait_for
    finally:
        outer.wait_for(None)


@contextmanager
def show_progress(
    *,
    line_every_s: float = 60.0,
    is_live: bool = True,
    remarks: Callable[[], Sequence[str]] = lambda: (),
) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that takes what is being done, how much of it is, and how much there is.

    Args:
        line_every_s: Least seconds between two lines, as for `ProgressDisplay`.
        is_live: Whether a terminal gets a live line.
        remarks: Gives what the user should know beside them.
    """
    with ProgressDisplay(line_every_s=line_every_s, is_live=is_live) as display:

        def update(what: str, done: int, total: int) -> None:
            display.update(what, done / total, lambda: [f"{done:,} of {total:,}"], remarks())

        yield update
