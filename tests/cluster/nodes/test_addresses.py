"""Which cluster a command takes, without Ray: the record is a file, the answer is given."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastformers.cluster.nodes.addresses import (
    ClusterAddress,
    answers,
    check_output,
    check_socket_paths,
    find_record,
    resolve_address,
)
from fastformers.errors import InputError

REPOSITORY = Path(__file__).parents[3]


def silent(_):
    return False


def listening(_):
    return True


@pytest.fixture
def environ(tmp_path):
    """Environment of a machine whose record of Ray's cluster names 10.0.0.7:6379."""
    record = tmp_path / "ray" / "ray_current_cluster"
    record.parent.mkdir()
    record.write_text("10.0.0.7:6379\n")
    return {"RAY_TMPDIR": str(tmp_path)}


def test_a_flag_beats_the_environment_which_beats_the_record(environ):
    environ["RAY_ADDRESS"] = "other:1"
    assert resolve_address("head:2", environ, answers=listening) == ClusterAddress("head:2")
    assert resolve_address(None, environ, answers=listening) == ClusterAddress("other:1")
    assert resolve_address("", environ, answers=listening) == ClusterAddress("other:1")


def test_the_cluster_of_this_machine_is_found_and_said(environ):
    chosen = resolve_address(None, environ, answers=listening)
    assert chosen.address == "10.0.0.7:6379"
    assert chosen.notice.startswith("using the Ray cluster at 10.0.0.7:6379; --address local")
    environ["RAY_ADDRESS"] = ""
    assert resolve_address(None, environ, answers=listening) == chosen


@pytest.mark.parametrize("variable", [{}, {"RAY_ADDRESS": "other:1"}])
def test_local_forces_an_own_one(environ, variable):
    both = {**environ, **variable}
    assert resolve_address("local", both, answers=listening) == ClusterAddress(None)


def test_the_environment_can_force_an_own_one_too(environ):
    environ["RAY_ADDRESS"] = "local"
    assert resolve_address(None, environ, answers=listening) == ClusterAddress(None)
    assert resolve_address("auto", environ, answers=listening).address == "10.0.0.7:6379"


def test_without_a_record_a_command_has_its_own_in_silence(tmp_path):
    environ = {"RAY_TMPDIR": str(tmp_path)}
    assert resolve_address(None, environ, answers=listening) == ClusterAddress(None)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("\n")
    assert resolve_address(None, environ, answers=listening) == ClusterAddress(None)


def test_a_record_that_nothing_answers_to_is_said(environ):
    chosen = resolve_address(None, environ, answers=silent)
    assert chosen.address is None
    assert "the cluster at 10.0.0.7:6379" in chosen.notice
    assert "does not answer" in chosen.notice


def test_a_record_that_another_user_wrote_is_not_followed(environ):
    stranger = os.getuid() + 1
    record = find_record(environ)
    if os.getuid() == 0:  # what root writes counts as everyone's
        os.chown(record, 12345, 12345)
    chosen = resolve_address(None, environ, answers=listening, uid=stranger)
    assert chosen.address is None
    assert "another user" in chosen.notice
    own = resolve_address(None, environ, answers=listening, uid=record.stat().st_uid)
    assert own.address == "10.0.0.7:6379"


@pytest.mark.parametrize("name", ["--address", "RAY_ADDRESS"])
def test_auto_needs_a_cluster_here(environ, tmp_path, name):
    flag = "auto" if name == "--address" else None
    if flag is None:
        environ["RAY_ADDRESS"] = "auto"
    found = resolve_address(flag, environ, answers=listening)
    assert found == ClusterAddress("10.0.0.7:6379")
    with pytest.raises(InputError, match=f"{name} auto: no Ray cluster runs on this machine"):
        resolve_address(flag, environ, answers=silent)
    environ["RAY_TMPDIR"] = str(tmp_path / "none")
    with pytest.raises(InputError, match="start one with ray start --head"):
        resolve_address(flag, environ, answers=listening)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ray://head:10001", "client protocol would run the driver here"),
        ("http://head:8265", "use ray job submit --address http://head:8265 -- fastformers"),
        ("https://head", "use ray job submit --address https://head -- fastformers"),
        ("ssh://head", "an address is HOST:PORT, auto or local"),
    ],
)
def test_other_protocols_are_refused_with_what_to_use(environ, address, reason):
    with pytest.raises(InputError, match=f"--address {address}: .*ray job submit") as flag:
        resolve_address(address, environ, answers=listening)
    assert reason in str(flag.value)
    environ["RAY_ADDRESS"] = address
    with pytest.raises(InputError, match=f"RAY_ADDRESS {address}: "):
        resolve_address(None, environ, answers=listening)
    assert resolve_address("local", environ, answers=listening) == ClusterAddress(None)


def test_the_record_is_where_ray_writes_it():
    script = "from ray._private.utils import get_ray_address_file as f; print(f(None))"
    for variables in ({"RAY_TMPDIR": "/a", "TMPDIR": "/b"}, {"TMPDIR": "/b"}, {}):
        kept = {key: os.environ[key] for key in os.environ if not key.endswith("TMPDIR")}
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**kept, **variables},
            capture_output=True,
            text=True,
        )
        assert run.stdout.strip() == str(find_record(variables)), run.stderr


def test_a_port_answers_while_something_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert answers(address)
    assert not answers(address)
    assert not answers("127.0.0.1")
    assert not answers("127.0.0.1:port")


@pytest.mark.parametrize("output", ["out", "./out", "~/out", "../out"])
def test_a_relative_output_of_a_job_is_refused(output):
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    with pytest.raises(InputError, match=f"--output {output}: a job of Ray's job server"):
        check_output(output, job)
    check_output(output, {})


@pytest.mark.parametrize("output", ["/mnt/out", "s3://bucket/out", "gs://bucket/out"])
def test_an_output_that_outlives_the_job_is_accepted(output):
    check_output(output, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"})


def test_choosing_a_cluster_does_not_load_ray():
    script = "import sys, fastformers.cluster.nodes.addresses; sys.exit('ray' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_directory_that_leaves_no_room_for_a_socket_is_refused(name):
    """A path of a socket of Ray's, as long as it can be, under the longest directory allowed."""
    session = "/session_2026-11-26_03-46-12_399942_4194304/sockets/plasma_store"
    room = "/" + "d" * (107 - len(session) - len("/ray") - 2)
    check_socket_paths({name: room})
    check_socket_paths({"RAY_TMPDIR": "/tmp", "TMPDIR": "/" + "d" * 99})
    check_socket_paths({})
    with pytest.raises(InputError, match=f"^{name} makes Ray work in .*; set RAY_TMPDIR to a"):
        check_socket_paths({name: f"{room}dd"})
