"""Nodes of a Ray cluster on this machine, and jobs on them, as processes of their own.

    test -> [hosts] -> cluster_host, `fastformers score` -> predictions, report, lines

A node has one CPU and may use one core, unless it is told otherwise.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.chaos.jobs import ScoreProcess, family, num_done

REPOSITORY = Path(__file__).parents[3]
HOST_SCRIPT = REPOSITORY / "tests/cluster/chaos/cluster_host.py"
CORES = sorted(os.sched_getaffinity(0))
OTHER_WORK = """
import sys, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
address, node, num_cpus = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
@ray.remote
class Other:
    def works(self):
        return True
place = NodeAffinitySchedulingStrategy(node, soft=False)
other = Other.options(num_cpus=int(num_cpus), scheduling_strategy=place).remote()
ray.get(other.works.remote())
print("held", flush=True)
sys.stdin.read()
"""


class Hosts:
    """A cluster in another process; the first node does not work.

    Attributes:
        address: Of the cluster.
        names: Ray's identifiers of its nodes, in the order in which they joined.
    """

    def __init__(self, log):
        self._process = subprocess.Popen(
            [sys.executable, HOST_SCRIPT, "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
            text=True,
        )
        self.address, self.names = self._answer()["address"], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    @property
    def processes(self):
        return family(self._process.pid)

    def add(self, cores=None, **options):
        """Make a node join; returns its identifier."""
        cores = cores or [CORES[len(self.names) % len(CORES)]]
        self.names.append(self._ask(f"add {json.dumps({'cores': cores, **options})}")["node"])
        return self.names[-1]

    @contextlib.contextmanager
    def other_work(self, node, num_cpus):
        """Other work on a node, which holds some of its CPUs."""
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER_WORK, self.address, node, str(num_cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.communicate()

    def remove(self, node):
        """Kill a node's processes, so that it leaves without a word."""
        self._ask(f"remove {self.names.index(node)}")
        self.names.remove(node)

    def end(self):
        for process in self.processes:
            with contextlib.suppress(Exception):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _ask(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        assert "error" not in answer, answer
        return answer

    def _answer(self):
        return json.loads(self._process.stdout.readline())


class Job(ScoreProcess):
    """A running `fastformers score`."""

    def __init__(self, hosts, corpus, output, *options, bundle):
        self.output = Path(output)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(corpus), "--bundle", str(bundle), "--output", str(output)]
        arguments += ["--address", hosts.address if hosts else "local", *options]
        log = self.output.with_suffix(".log")
        log.write_bytes(b"")
        super().__init__(arguments, log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.is_running():
            self.end()

    @property
    def lines(self):
        """What it has said so far."""
        return self.log.read_text(errors="replace").splitlines()

    @property
    def report(self):
        return json.loads((self.output / "__run__" / "report.json").read_text())

    def wait_until(self, happens, what, timeout_s=120.0):
        """Wait until something happens; fails if the job ends before."""
        deadline = time.monotonic() + timeout_s
        while not happens():
            said = "\n".join(self.lines)
            assert self.is_running(), f"the job ended before {what}:\n{said}"
            assert time.monotonic() < deadline, f"{what} did not come:\n{said}"
            time.sleep(0.02)

    def wait_for_shards(self, number, timeout_s=120.0):
        self.wait_until(lambda: num_done(self.output) >= number, f"{number} shards", timeout_s)

    def wait_for_line(self, words):
        self.wait_until(lambda: any(words in line for line in self.lines), repr(words))

    def succeed(self, timeout_s=200.0):
        """Wait for the end; returns the JSON object that it printed last."""
        status, last = self.wait(timeout_s)
        assert status == 0, "\n".join(self.lines)
        return json.loads(last)
