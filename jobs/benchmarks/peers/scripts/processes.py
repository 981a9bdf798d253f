"""Processes of one core each, whose libraries are imported before the clock starts.

    Work -> [processes] -> a share of the rows for each process

This module knows nothing of what a process does with its share.
"""

import importlib
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from fastformers.jobs.benchmarks.peers.scripts.work import Clock, Work

_ready: Barrier | None = None


def _begin(ready: Barrier, modules: Sequence[str]) -> None:
    global _ready
    _ready = ready
    for module in modules:
        importlib.import_module(module)


def _wait(_: int) -> None:
    """Wait for the others: each process takes one such call, so all have begun after it."""
    if _ready is not None:
        _ready.wait()


def run_shares(work: Work, modules: Sequence[str], score: Callable[[Work, int], None]) -> Clock:
    """Score one share of the rows in each process.

    Args:
        work: What is to be done.
        modules: Modules that each process imports before the clock starts.
        score: Scores and writes one share; a function of a module.

    Returns:
        The clock; all rows are on disk.
    """
    context = get_context("spawn")
    ready = context.Barrier(work.num_workers)
    with context.Pool(work.num_workers, _begin, (ready, modules)) as pool:
        pool.map(_wait, range(work.num_workers), chunksize=1)
        clock = Clock(work)
        pool.starmap(score, [(work, share) for share in range(work.num_workers)], chunksize=1)
        clock.stop()
    return clock
