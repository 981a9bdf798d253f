"""Let a command end well when it is told to: Ctrl-C, SIGTERM, a terminal that was closed.

    first signal -> [interrupts] -> KeyboardInterrupt in the main thread -> the command cleans up
    second signal -> [interrupts] -> the end, at once

`ray job stop`, Kubernetes, batch systems and `kill` send SIGTERM, and all of them SIGKILL some
seconds later. This module knows nothing of what is interrupted.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h"  # a bar of progress hides it
_STDERR = 2


@dataclass
class Interrupts:
    """What a command was told.

    Attributes:
        number: The first signal that came; None until one does.
    """

    number: int | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the second one is for `_end_at_once`.

        Raises:
            KeyboardInterrupt: It is the first one.
        """
        if self.number is None:
            self.number = number
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Turn the first of `SIGNALS` into KeyboardInterrupt while the block runs; end at the next.

    A signal that is ignored stays so: SIGHUP under nohup, SIGINT of a job in the background.
    Outside the main thread nothing changes, because Python allows no handler there.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupts.handle) for number in numbers}
    try:
        with _end_at_once(frozenset(numbers)):
            yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keep_handlers() -> Iterator[Callable[[], None]]:
    """Yield a function that puts back the handlers of now, for code that installs its own."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None:  # else it was not installed from Python
                signal.signal(number, handler)

    try:
        yield put_back
    finally:
        put_back()


@contextmanager
def _end_at_once(numbers: frozenset[int]) -> Iterator[None]:
    """End this process at the second of these signals, whatever it is busy with.

    Python runs handlers in the main thread alone, which may be waiting for a store or for Ray. The
    number of each signal is also written to a pipe at once, and a thread reads that.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, numbers), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # the watcher reads the end, and stops
        watcher.join()
        os.close(reader)


def _watch(reader: int, numbers: frozenset[int]) -> None:
    is_interrupted = False
    while byte := os.read(reader, 1):
        [number] = byte
        if number not in numbers:
            continue
        if is_interrupted:
            end = _SHOW_CURSOR if os.isatty(_STDERR) else b""
            os.write(_STDERR, end + b"interrupted twice: ended at once.\n")
            os._exit(128 + number)
        is_interrupted = True
