"""Whose turn it is to compute, among the jobs that a worker has in hand, and what each does.

    job's thread -> [turns] -> computes, or waits for the one that does

One job at a time computes, on all threads that the worker has; the others read or write meanwhile.
This module knows nothing of jobs.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# A worker with several jobs is said to do what comes first here.
_ORDER = ("infer", "audit", "tokenize", "write", "read")


@dataclass
class Work:
    """Time that a job took.

    Attributes:
        seconds: Seconds from begin to end, without those in which another job computed.
    """

    seconds: float = 0.0


class Turns:
    """Turns of a worker's jobs, each in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = threading.local()
        self._phases: dict[int, str] = {}  # by thread

    @contextmanager
    def measured(self) -> Iterator[Work]:
        """Measure the job that this thread does in the block."""
        work, start = Work(), time.perf_counter()
        self._own.waited_s = 0.0
        try:
            yield work
        finally:
            self._phases.pop(threading.get_ident(), None)
            work.seconds = time.perf_counter() - start - self._own.waited_s

    def enter(self, phase: str) -> None:
        """Say what this thread's job does from now on."""
        self._phases[threading.get_ident()] = phase

    @contextmanager
    def computing(self, phase: str) -> Iterator[None]:
        """Wait for the turn to compute, and have it for the block."""
        start = time.perf_counter()
        with self._lock:
            self._own.waited_s = getattr(self._own, "waited_s", 0.0) + time.perf_counter() - start
            self.enter(phase)
            yield

    def state(self) -> str:
        """What the worker does at the moment, or "wait"."""
        phases = set(self._phases.values())
        return next((phase for phase in _ORDER if phase in phases), "wait")
