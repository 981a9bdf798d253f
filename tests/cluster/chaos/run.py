"""Run jobs under random faults, and compare what they leave with an undisturbed run, cell by cell.

    python -m tests.cluster.chaos.run --faults 200 --seed 1

Each job has a seed of its own, from which follow where it runs, which faults it meets and when. It
must end by itself or go on when it is started again, lose, double or change no row, and print no
traceback. The last line is one JSON object; the exit status is 1 if any job broke a promise.
"""

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet

from fastformers.data.demo_corpus import collect_docstrings
from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle, write_bundle
from fastformers.inference.manifest import TOKENIZER_FILE
from tests.cluster.chaos.faults import FAULTS, Scene, repair
from tests.cluster.chaos.jobs import REPOSITORY, ScoreProcess, family, num_done
from tests.cluster.outputs import read_predictions

NUM_ROWS, SHARD_SECONDS, TIMEOUT_S = 5000, 0.25, 8
HANG_S, ANSWER_S, MAX_STARTS = 240.0, 60.0, 4


class Nodes:
    """A cluster of several nodes in another process."""

    def __init__(self, num_nodes, log):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cluster_host.py")), str(num_nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
            text=True,
        )
        self.pid = self._process.pid
        answer = self._answer()
        self.address, self.num_nodes = answer["address"], answer["num_nodes"]

    def _answer(self):
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            raise ValueError("the cluster does not answer: its control store is gone")
        return json.loads(self._process.stdout.readline())

    def _ask(self, line):
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._answer()
        except (OSError, ValueError):
            return False
        self.num_nodes = answer["num_nodes"]
        return "error" not in answer

    def add(self):
        return self._ask("add")

    def remove(self, choices):
        if self.num_nodes < 2:
            return False
        return self._ask(f"remove {choices.randrange(self.num_nodes)}")

    def end(self):
        end_session(self._process)


def end_session(process):
    """End a process that was started in a session of its own, and everything in it."""
    for member in family(process.pid):
        with contextlib.suppress(Exception):
            member.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


class Stage:
    """Where jobs are tried: a corpus, two bundles, and what an undisturbed run predicts."""

    def __init__(self, root):
        self.root = root
        self.corpus, self.other_bundle = root / "corpus.parquet", root / "other-bundle"
        docstrings = collect_docstrings().slice(0, NUM_ROWS)
        pyarrow.parquet.write_table(docstrings, self.corpus, row_group_size=500)
        bundle = open_bundle(DEMO_BUNDLE)
        write_bundle(
            replace(bundle, path=self.other_bundle, labels=bundle.labels[::-1]),
            model=bundle.model_path,
            tokenizer_json=(bundle.path / TOKENIZER_FILE).read_text(encoding="utf-8"),
        )
        output = root / "undisturbed"
        job = self.start(DEMO_BUNDLE, output, root / "undisturbed.log")
        status, _ = job.wait(HANG_S)
        assert status == 0, (root / "undisturbed.log").read_text()
        self.expected = read_predictions(output)
        self.num_shards = num_done(output)

    def start(self, bundle, output, log, nodes=None):
        arguments = [
            str(self.corpus),
            "--bundle",
            str(bundle),
            "--output",
            str(output),
            "--keep-columns",
            "name",
        ]
        arguments += ["--shard-seconds", str(SHARD_SECONDS), "--timeout-s", str(TIMEOUT_S)]
        arguments += ["--address", nodes.address] if nodes else []
        return ScoreProcess(arguments, log, {"RAY_ADDRESS": "local"})


def try_job(stage, seed, names):
    """One job under two to five faults; returns which were done, and which promise it broke."""
    choices = random.Random(seed)
    home = stage.root / f"job-{seed}"
    home.mkdir()
    bundle, output, log = home / "bundle", home / "out", home / "stderr.log"
    shutil.copytree(DEMO_BUNDLE, bundle)
    nodes, done, broken = None, [], []
    with (home / "cluster.log").open("wb") as cluster_log:
        try:
            if choices.random() < 0.5:
                nodes = Nodes(3, cluster_log)
            planned = [choices.choice(names) for _ in range(choices.randint(2, 5))]
            moments = sorted(choices.random() for _ in planned)
            job = stage.start(bundle, output, log, nodes)
            scene = Scene(job, bundle, stage.other_bundle, output, nodes, choices)
            for name, moment in zip(planned, moments, strict=True):
                wait_for(job, output, moment * stage.num_shards, choices)
                if job.is_running() and FAULTS[name](scene):
                    done.append(name)
            broken = finish(stage, scene, log)
        finally:
            if nodes is not None:
                nodes.end()
    if not broken:
        shutil.rmtree(home)
    return done, broken


def wait_for(job, output, wanted, choices):
    """Wait until so many shards are done; the first fraction of one is the start of the job."""
    begun = time.monotonic()
    start_s = choices.uniform(0.0, 6.0)
    while job.is_running() and time.monotonic() - begun < 60.0:
        if wanted < 1 and time.monotonic() - begun > start_s:
            return
        if num_done(output) >= max(1, wanted):
            return
        time.sleep(0.05)


def finish(stage, scene, log):
    """Let the job end, start it again where it did not succeed, and look at what it left."""
    broken = []
    for start in range(1, MAX_STARTS + 1):
        try:
            status, _ = scene.job.wait(HANG_S)
        except subprocess.TimeoutExpired:
            broken.append("hang")
            status = -1
        end_session(scene.job.process)
        repair(scene)
        if status == 0:
            break
        if broken or start == MAX_STARTS:
            return broken or ["gave up"]
        if scene.nodes is not None and not scene.nodes.add():
            scene.nodes.end()  # the cluster itself is gone: other nodes
            scene.nodes = Nodes(2, subprocess.DEVNULL)
        scene.job = stage.start(scene.bundle, scene.output, log, scene.nodes)
    text = log.read_text(errors="replace")
    if "Traceback" in text or "*** SIG" in text:
        broken.append("traceback")
    predictions = read_predictions(scene.output)
    if predictions.num_rows != stage.expected.num_rows:
        broken.append(f"{predictions.num_rows} rows for {stage.expected.num_rows}")
    elif not predictions.equals(stage.expected):
        broken.append("cells differ")
    if list(scene.output.rglob("*.incomplete")):
        broken.append("leftovers")
    return broken


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=20, help="faults to do (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first job (%(default)s)")
    parser.add_argument("--only", choices=sorted(FAULTS), nargs="*", help="only these faults")
    parser.add_argument("--work", type=Path, help="directory to work in; kept")
    options = parser.parse_args(arguments)
    root = Path(options.work or tempfile.mkdtemp(prefix="chaos-"))
    root.mkdir(parents=True, exist_ok=True)
    stage = Stage(root)
    counts, failures, seed, start = Counter(), {}, options.seed, time.monotonic()
    while sum(counts.values()) < options.faults:
        began = time.monotonic()
        done, broken = try_job(stage, seed, options.only or sorted(FAULTS))
        counts.update(done)
        if broken:
            failures[seed] = broken
        print(
            f"seed {seed}: {', '.join(done) or 'no fault'}: {'; '.join(broken) or 'equal'} "
            f"({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        seed += 1
    report = {
        "jobs": seed - options.seed,
        "faults": dict(sorted(counts.items())),
        "total": sum(counts.values()),
        "broken": failures,
        "seconds": round(time.monotonic() - start),
    }
    print(json.dumps(report))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
