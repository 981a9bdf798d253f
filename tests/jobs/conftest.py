"""The command `score` without Ray, as often as a test likes."""

import contextlib
import io
import logging

import pytest

import fastformers.jobs.console.execute
from fastformers import Scorer
from fastformers.cluster.execution.local import connect_here
from fastformers.jobs.console.cli import main
from fastformers.jobs.console.output import ConsoleHandler


@contextlib.contextmanager
def run_here():
    """Let commands run their jobs in this process; gives what takes back further patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastformers.jobs.console.execute, "connect_ray", connect_here)
        patch.setattr(fastformers.jobs.console.execute, "_tell_metrics", lambda *values: None)
        yield patch


@pytest.fixture
def without_ray():
    """Jobs of commands run in this process."""
    with run_here():
        yield


@pytest.fixture(scope="module")
def score(bundle):
    """Runs `fastformers score` with a worker in this process: its status, stdout and lines."""
    warnings = ConsoleHandler(logging.WARNING)  # pytest's own handlers stand where the command's do

    def run(corpus, output, *flags):
        arguments = ["score", str(corpus), "--bundle", str(bundle.path), "--output", str(output)]
        with (
            contextlib.redirect_stdout(io.StringIO()) as shown,
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            status = main([*arguments, *map(str, flags)])
        return status, shown.getvalue(), said.getvalue().splitlines()

    with run_here() as patch:
        patch.setattr(fastformers.jobs.console.execute, "write_page", lambda *arguments: None)
        logging.getLogger().addHandler(warnings)
        yield run
    logging.getLogger().removeHandler(warnings)


@pytest.fixture(scope="session")
def scorer(bundle):
    """The bundle that `score` scores with."""
    return Scorer(bundle.path)
