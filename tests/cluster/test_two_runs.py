"""One output and several starts of the same command, with Ray: refused, killed, told to end.

Every run is a process of its own with its own Ray, so that signals reach it as a user's do.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from tests.cluster.outputs import read_predictions

pytestmark = pytest.mark.cluster

NUM_ROWS = 12_000
WORDS = ("the", "a", "of", "cat", "dog", "sat", "mat", "ran", "fast", "slow", "good", "bad")

# `fastformers score ARGUMENTS` that says when it closes, and takes its time.
CLOSING = """
import sys, time
import fastformers.jobs.console.execute as execute
from fastformers.jobs.console.cli import main

build_report = execute.build_report

def slow(*arguments, **kwargs):
    print("closes", flush=True)
    time.sleep(600)
    return build_report(*arguments, **kwargs)

execute.build_report = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Several slices of skewed lengths."""
    rng = random.Random(3)
    texts = [
        " ".join(rng.choices(WORDS, k=min(200, 1 + int(rng.expovariate(0.05)))))
        for _ in range(NUM_ROWS)
    ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    table = pa.table({"id": list(range(NUM_ROWS)), "text": texts})
    pyarrow.parquet.write_table(table, path, row_group_size=500)
    return path


@pytest.fixture(scope="module")
def expected(corpus, bundle, tmp_path_factory):
    """Predictions of a run that nothing disturbs."""
    output = tmp_path_factory.mktemp("expected") / "out"
    job = open_score_job(
        str(corpus),
        bundle.path,
        str(output),
        CorpusSettings(keep_columns=("id",), shard_seconds=0.1),
        max_batch_tokens=None,
    )
    run_job(job, ActorSettings(), connect_here)
    return read_predictions(output)


@pytest.fixture
def start(corpus, bundle, tmp_path):
    """Starts a run; its arguments begin with what Python runs."""
    started = []

    def begin(*python, output=tmp_path / "out"):
        arguments = [
            *("score", str(corpus), "--bundle", str(bundle.path), "--output", str(output)),
            *("--keep-columns", "id", "--shard-seconds", "0.1"),
        ]
        process = subprocess.Popen(
            [sys.executable, *(python or ("-m", "fastformers.jobs.console.cli")), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def finish(process):
    """Wait for a run that ends well; returns what it printed last, and what it said."""
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1]), error


def wait_until(process, condition):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def has(output, pattern, count=1):
    return lambda: len(list(output.glob(pattern))) >= count


def family_of(process):
    return psutil.Process(process.pid).children(recursive=True)


def status_of(output):
    done = subprocess.run(
        [sys.executable, "-m", "fastformers.jobs.console.cli", "status", str(output)],
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(done.stdout)["state"]


def test_the_same_job_started_twice_is_refused_and_the_first_goes_on(start, expected, tmp_path):
    output = tmp_path / "out"
    first = start()
    wait_until(first, has(output, "predictions/part-*"))
    assert status_of(output) == (0, "running")
    second = start()
    out, error = second.communicate(timeout=60)
    assert first.poll() is None, "the first was too fast for this test"
    assert (second.returncode, out) == (2, "")
    [line] = error.splitlines()
    assert f"--output {output}: a run works there" in line
    assert f"(process {first.pid}) since 20" in line
    summary, _ = finish(first)
    assert summary["retries"] == 0
    assert read_predictions(output).equals(expected)
    assert status_of(output) == (0, "finished")


def test_a_killed_run_is_gone_on_with_at_once(start, expected, tmp_path):
    output = tmp_path / "out"
    first = start()
    wait_until(first, has(output, "predictions/part-*", 3))
    first.kill()
    second = start()
    summary, error = finish(second)
    assert f"(process {first.pid})" in error.splitlines()[0]
    assert "was killed; this one goes on from there" in error.splitlines()[0]
    assert summary["resumed_shards"] >= 3
    assert read_predictions(output).equals(expected)
    assert not (output / "__run__" / "claim.json").exists()


def check_ended_well(process, output, family):
    """A run that was told to end has said so, has ended its actors, and holds nothing any more."""
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert error.splitlines()[-1] == (
        "interrupted. Finished shards are kept: run the same command again to go on."
    )
    assert "Traceback" not in error
    assert "***" not in error  # how the stack of Ray's C++ code begins
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert not (output / "__run__" / "claim.json").exists()
    assert status_of(output) == (3, "interrupted")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("__run__/run.json", id="start", marks=pytest.mark.slow),
        pytest.param("__run__/shards/tokens/part-*", id="cut", marks=pytest.mark.slow),
        pytest.param("predictions/part-*", id="score"),
    ],
)
def test_sigterm_ends_a_run_as_ctrl_c_does(start, expected, tmp_path, moment):
    output = tmp_path / "out"
    process = start()
    wait_until(process, has(output, moment))
    family = family_of(process)
    process.send_signal(signal.SIGTERM)
    check_ended_well(process, output, family)
    finish(start())
    assert read_predictions(output).equals(expected)
    report = json.loads((output / "__run__" / "report.json").read_text())
    assert [session["state"] for session in report["sessions"]] == ["interrupted", "finished"]
    assert sum(session["usd"] for session in report["sessions"]) == pytest.approx(
        report["usd_total"]
    )
    shares = [quote["share"] for quote in report["history"]]
    assert shares == sorted(shares)
    assert {quote["run"] for quote in report["history"]} <= {
        session["run"] for session in report["sessions"]
    }
    recorded = sum(session["rows"] for session in report["sessions"])
    assert recorded + report["unrecorded_rows"] == report["rows"]


def test_sigterm_while_a_run_closes_loses_nothing(start, expected, tmp_path):
    output = tmp_path / "out"
    process = start("-c", CLOSING)
    assert process.stdout.readline() == "closes\n"
    process.send_signal(signal.SIGTERM)
    check_ended_well(process, output, [])
    summary, _ = finish(start())
    assert summary["resumed_shards"] == summary["shards"]
    assert read_predictions(output).equals(expected)


def test_sigterm_twice_ends_a_run_at_once_and_the_next_goes_on(start, expected, tmp_path):
    output = tmp_path / "out"
    process = start()
    wait_until(process, has(output, "predictions/part-*"))
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGHUP)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (143, 129)  # whichever came second
    assert error.splitlines()[-1] == "interrupted twice: ended at once."
    assert status_of(output) == (3, "stale")
    finish(start())
    assert read_predictions(output).equals(expected)
