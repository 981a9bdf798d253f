"""A head started by the very line of a cluster file: its job server takes the token, and no other.

`ray start` runs in the foreground on ports of its own, so that it ends with the test; `ray stop`
would end every Ray on the machine.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fastformers.cluster.launch.access_token import write_token
from fastformers.cluster.launch.host_setup import HOST_DIRECTORY, plan_head_start
from fastformers.cluster.nodes.addresses import find_record

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[3]
AUTOSCALER = " --autoscaling-config=~/ray_bootstrap_config.yaml"
# Every port whose default another Ray on this machine may have.
PORTS = (
    *("port", "dashboard-port", "object-manager-port", "ray-client-server-port"),
    *("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port"),
    "metrics-export-port",
)
ENDS_WITHIN_S = 60.0


def free_ports(number):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Home of a head whose Ray runs; its job server's URL is `url`, its control store `address`."""
    home = tmp_path_factory.mktemp("home")
    place = home / HOST_DIRECTORY.removeprefix("~/")
    (place / "venv").mkdir(parents=True)
    (place / "venv" / "bin").symlink_to(BIN)
    token = write_token(place)
    _, line = plan_head_start(scores=True, rents=False)
    assert AUTOSCALER in line
    ports = free_ports(len(PORTS))
    own = "".join(f" --{name}={port}" for name, port in zip(PORTS, ports, strict=True))
    own += " --block --num-cpus=1 --object-store-memory=104857600 --node-ip-address=127.0.0.1"
    kept = {name: os.environ[name] for name in os.environ if not name.startswith("RAY_")}
    # Ray's sockets have paths of at most 107 bytes.
    temporary = tmp_path_factory.mktemp("t")
    environment = {
        **kept,
        "HOME": str(home),
        "RAY_TMPDIR": str(temporary),
        "PATH": f"{BIN}:{kept['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    log = (home / "log").open("w")
    process = subprocess.Popen(
        ["bash", "-c", f"exec_line() {{ {line.replace(AUTOSCALER, '')}{own}; }}; exec_line"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{ports[1]}"
        wait_for(url, process, home / "log")
        yield Head(home, token, url, f"127.0.0.1:{ports[0]}", environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(ENDS_WITHIN_S)
        log.close()


class Head:
    """A running head and its token's file."""

    def __init__(self, home, token, url, address, environment):
        self.home, self.token, self.url, self.address = home, token, url, address
        self.environment = environment

    def run(self, *words, token):
        """Run a command with a token's file, or without any; returns status and output."""
        mode = {"RAY_AUTH_MODE": "disabled"}
        if token is not None:
            mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        done = subprocess.run(
            [BIN / words[0], *words[1:]],
            env={**self.environment, "HOME": str(self.home / "elsewhere"), **mode},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
        )
        return done.returncode, done.stdout

    def submit(self, *words, token):
        """Submit a job, again while the node's agent, which Ray starts last, is not there yet."""
        deadline = time.monotonic() + 120
        while True:
            command = ("ray", "job", "submit", "--address", self.url, "--", *words)
            status, shown = self.run(*command, token=token)
            if "No available agent" not in shown or time.monotonic() > deadline:
                return status, shown
            time.sleep(1)


def status_of(url, token=None):
    """Status that the job server gives to a request for its list of jobs."""
    request = urllib.request.Request(f"{url}/api/jobs/")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def wait_for(url, process, log):
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        try:
            if status_of(url) in (200, 401, 403):
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture
def wrong(tmp_path):
    return write_token(tmp_path)


@pytest.mark.cluster
def test_the_job_server_wants_the_token(head, wrong):
    assert status_of(head.url) == 401
    assert status_of(head.url, wrong.read_text()) in (401, 403)
    assert status_of(head.url, head.token.read_text()) == 200


@pytest.mark.cluster
def test_a_job_without_the_token_or_with_another_is_refused(head, wrong):
    for token in (None, wrong):
        status, shown = head.submit("touch", head.home / "intruder", token=token)
        assert status != 0
        assert "uthenticat" in shown
    assert not (head.home / "intruder").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_the_control_store_refuses_whoever_has_no_token(head, wrong, bundle, write_rows, tmp_path):
    corpus = write_rows(tmp_path / "c.jsonl", [{"text": "a cat"}])
    words = ("score", corpus, "--bundle", bundle.path, "--output", tmp_path / "out")
    for token in (None, wrong):
        status, shown = head.run("fastformers", *words, "--address", head.address, token=token)
        last = shown.splitlines()[-1]
        assert status == 2, shown
        assert f"--address {head.address}: the cluster refuses the connection" in last
        assert "RAY_AUTH_TOKEN_PATH" in last


@pytest.mark.cluster
def test_a_job_scores_on_the_cluster_it_was_submitted_to(head, bundle, write_rows, tmp_path):
    corpus = write_rows(tmp_path / "c.jsonl", [{"text": f"a cat {row}"} for row in range(40)])
    words = ("fastformers", "score", corpus, "--bundle", bundle.path, "--num-actors", "1")
    status, shown = head.submit(*words, "--output", tmp_path / "out", token=head.token)
    assert status == 0, shown
    assert json.loads((tmp_path / "out" / "__run__" / "report.json").read_text())["rows"] == 40
    assert head.token.read_text() not in shown
    status, shown = head.submit(*words, "--output", "out", token=head.token)
    assert status != 0
    assert "error: --output out: a job of Ray's job server runs in a directory" in shown


@pytest.mark.cluster
@pytest.mark.slow
def test_a_command_on_the_head_finds_the_cluster_and_can_leave_it(
    head, bundle, write_rows, tmp_path
):
    corpus = write_rows(tmp_path / "c.jsonl", [{"text": f"a cat {row}"} for row in range(40)])
    words = ("fastformers", "score", corpus, "--bundle", bundle.path, "--num-actors", "1")
    recorded = find_record(head.environment).read_text()
    assert recorded.rpartition(":")[2] == head.address.rpartition(":")[2]
    status, shown = head.run(*words, "--output", tmp_path / "found", token=head.token)
    assert status == 0, shown
    assert f"using the Ray cluster at {recorded}; --address local" in shown
    status, shown = head.run(
        *words, "--output", tmp_path / "own", "--address", "local", token=head.token
    )
    assert status == 0, shown
    assert "using the Ray cluster" not in shown


@pytest.mark.cluster
def test_the_token_is_in_no_file_of_ray(head):
    secret = head.token.read_bytes()
    files = [
        path
        for place in (head.home, Path(head.environment["RAY_TMPDIR"]))
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink() and BIN not in path.resolve().parents
    ]
    assert len(files) > 20
    assert [path for path in files if secret in path.read_bytes()] == [head.token]
