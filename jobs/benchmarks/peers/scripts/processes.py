"""Processes of one core each, whose libraries are imported before the clock starts.

    Work -> [processes] -> a share of the rows for each process

A process that dies, or cannot import, ends all of them: a `multiprocessing.Pool` would start
another in its place, and wait for ever. This module knows nothing of what a process does with its
share.
"""

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

from fastformers.jobs.benchmarks.peers.scripts.work import Clock, Work

_ready: Barrier | None = None


def _keep(ready: Barrier) -> None:
    global _ready
    _ready = ready


def _begin(modules: Sequence[str]) -> None:
    """Import, and wait for the others: each process takes one such call, so all have begun then."""
    assert _ready is not None
    try:
        for module in modules:
            importlib.import_module(module)
    except BaseException:
        _ready.abort()
        raise
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
    shares = range(work.num_workers)
    with ProcessPoolExecutor(
        work.num_workers, context, _keep, (context.Barrier(work.num_workers),)
    ) as pool:
        list(pool.map(_begin, [modules for _ in shares]))
        clock = Clock(work)
        list(pool.map(score, [work for _ in shares], shares))
        clock.stop()
    return clock
