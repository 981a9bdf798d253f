"""Processes of one core each: all begin before the clock starts, and none dies unnoticed."""

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from fastformers.jobs.benchmarks.peers.scripts.processes import run_shares
from fastformers.jobs.benchmarks.peers.scripts.work import Work


def leave_pid(work, share):
    (Path(work.output) / str(share)).write_text(str(os.getpid()))


def die(work, share):
    os._exit(9)


@pytest.fixture
def work(tmp_path):
    names = ("model", "stock_graph", "float_graph", "tokenizer", "scratch")
    return Work(
        files=(),
        labels=(),
        max_length=8,
        train=None,
        output=str(tmp_path),
        num_workers=2,
        started_at=0.0,
        **dict.fromkeys(names, ""),
    )


def test_each_share_is_scored_in_another_process(work, tmp_path):
    clock = run_shares(work, ("json",), leave_pid)
    pids = {(tmp_path / str(share)).read_text() for share in range(2)}
    assert str(os.getpid()) not in pids
    assert clock.startup_s > clock.seconds > 0


def test_a_module_that_is_not_there_is_the_reason(work):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        run_shares(work, ("no_such_module",), leave_pid)


def test_a_process_that_dies_ends_the_others(work):
    with pytest.raises(BrokenProcessPool):
        run_shares(work, (), die)
