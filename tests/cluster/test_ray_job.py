"""`ray job stop` ends a run as Ctrl-C does. Needs what Ray's job server needs: `ray[default]`."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
ROOT = Path(__file__).parents[2]


def free_ports(number):
    """Ports of this machine that nobody listens at, from the range that Ray's workers leave."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()


@pytest.fixture
def cluster(tmp_path_factory):
    """A head with a job server; yields its address and the environment of its users."""
    for needed in ("aiohttp_cors", "opencensus", "smart_open"):
        pytest.importorskip(needed, reason="the job server needs ray[default]")
    gcs, dashboard, client, agent = free_ports(4)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    address = f"http://127.0.0.1:{dashboard}"
    # A short path: names of sockets may have 107 characters.
    home = tmp_path_factory.mktemp("r", numbered=True)
    head = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2"),
            *("--port", str(gcs), "--dashboard-port", str(dashboard)),
            *("--ray-client-server-port", str(client), "--dashboard-agent-listen-port", str(agent)),
            *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"),
            *("--temp-dir", str(home), "--object-store-memory", str(100 * 2**20)),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(address) or head.poll() is not None)
        assert head.poll() is None
        yield address, environment
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait()


def answers(address):
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401  # it wants its token
    except OSError:
        return False
    return True


def wait_until(condition):
    while not condition():
        time.sleep(0.1)


def test_ray_job_stop_ends_a_run_as_ctrl_c_does(cluster, bundle, tmp_path, write_rows):
    address, environment = cluster
    output = tmp_path / "out"
    rows = [{"text": f"the cat sat on the mat {row}"} for row in range(60_000)]
    corpus = write_rows(tmp_path / "corpus.jsonl", rows)

    def ray(*arguments):
        return subprocess.run(
            [RAY, "job", *arguments[:1], "--address", address, *arguments[1:]],
            env=environment,
            capture_output=True,
            text=True,
        )

    submitted = ray(
        *(
            "submit",
            "--no-wait",
            "--submission-id",
            "j1",
            "--",
            sys.executable,
            "-m",
            "fastformers.jobs.console.cli",
        ),
        *("score", str(corpus), "--bundle", str(bundle.path), "--output", str(output)),
        *("--shard-seconds", "0.1"),
    )
    assert submitted.returncode == 0, submitted.stderr
    wait_until(
        lambda: list(output.glob("predictions/part-*")) or "FAILED" in ray("status", "j1").stderr
    )
    assert ray("stop", "j1").returncode == 0
    log = ray("logs", "j1")
    said = (log.stdout + log.stderr).splitlines()
    assert said[-1] == "interrupted. Finished shards are kept: run the same command again to go on."
    assert not any("Traceback" in line or "***" in line for line in said)
    assert not (output / "__run__" / "claim.json").exists()
    assert json.loads((output / "__run__" / "status.json").read_text())["state"] == "interrupted"
