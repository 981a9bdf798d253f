"""A job under test: `fastformers score` as a process of its own, and what it left.

command -> [jobs] -> process, its family, predictions -> faults, chaos
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[3]
ERROR_LINE = "fastformers score: error:"


@dataclass
class ScoreProcess:
    """A running `fastformers score`.

    Attributes:
        arguments: Arguments after "score".
        log: File for its stderr.
        environment: Variables that it gets in addition.
        wrapper: Command that it is run by, such as `unshare`.
    """

    arguments: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: list[str] = field(default_factory=list)

    def __post_init__(self):
        command = [
            *self.wrapper,
            sys.executable,
            "-m",
            "fastformers.jobs.console.cli",
            "score",
            *self.arguments,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self.environment},
                start_new_session=True,
            )

    @property
    def driver(self):
        """The process that drives the run, below the wrapper if there is one."""
        for process in [psutil.Process(self.process.pid), *family(self.process.pid)]:
            if (
                "fastformers.jobs.console.cli" in " ".join(command_line(process))
                and "python" in process.name()
            ):
                return process
        return psutil.Process(self.process.pid)

    def is_running(self):
        return self.process.poll() is None

    def wait(self, timeout_s):
        """Exit status and last line of stdout; raises `subprocess.TimeoutExpired` if it hangs."""
        out, _ = self.process.communicate(timeout=timeout_s)
        lines = out.decode().splitlines()
        return self.process.returncode, lines[-1] if lines else ""

    def end(self):
        """Kill it and everything that it started."""
        for process in [*family(self.process.pid), psutil.Process(self.process.pid)]:
            with_process(process.kill)
        self.process.communicate()


def family(pid):
    """Processes below one, the deepest last."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def with_process(action, *arguments):
    """Do something to a process that may be gone."""
    try:
        action(*arguments)
    except psutil.Error:
        return False
    return True


def ray_actors(processes, kind):
    """Those of the processes that are Ray actors of a class."""
    return [p for p in processes if command_line(p)[:1] and f"{kind}" in command_line(p)[0]]


def num_done(output):
    """Shards whose predictions are on disk."""
    return len(list((Path(output) / "predictions").glob("part-*.parquet")))


def summary_of(line):
    """The JSON object that a command prints last, or None."""
    try:
        return json.loads(line)
    except ValueError:
        return None
