"""The command `score` without Ray, as often as a test likes."""

import contextlib
import io
import logging

import pyarrow as pa
import pytest

import fastformers.jobs.console.execute
from fastformers import Scorer
from fastformers.cluster.execution.local import connect_here
from fastformers.jobs.console.cli import main
from fastformers.jobs.console.output import ConsoleHandler


@pytest.fixture(scope="module")
def score(bundle):
    """Runs `fastformers score` with a worker in this process: its status, stdout and lines."""
    pool = pa.default_memory_pool()  # a worker sets another one for its process
    warnings = ConsoleHandler(logging.WARNING)  # pytest's own handlers stand where the command's do

    def run(corpus, output, *flags):
        arguments = ["score", str(corpus), "--bundle", str(bundle.path), "--output", str(output)]
        with (
            contextlib.redirect_stdout(io.StringIO()) as shown,
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            status = main([*arguments, *map(str, flags)])
        return status, shown.getvalue(), said.getvalue().splitlines()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastformers.jobs.console.execute, "connect_ray", connect_here)
        patch.setattr(
            fastformers.jobs.console.execute, "_tell_metrics", lambda *arguments, **numbers: None
        )
        patch.setattr(fastformers.jobs.console.execute, "write_page", lambda *arguments: None)
        logging.getLogger().addHandler(warnings)
        yield run
    logging.getLogger().removeHandler(warnings)
    pa.set_memory_pool(pool)


@pytest.fixture(scope="session")
def scorer(bundle):
    """The bundle that `score` scores with."""
    return Scorer(bundle.path)
