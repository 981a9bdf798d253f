"""What Ray raises as it starts, or is joined, is one line."""

import socket
import threading

import pytest
from ray.exceptions import AuthenticationError

from fastformers.cluster.nodes import addresses, start
from fastformers.cluster.nodes.start import join_ray, start_ray
from fastformers.errors import InputError


@pytest.fixture
def starts(monkeypatch):
    """Calls of `ray.init`, which raises what the test puts into the list first."""
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    faults, calls, ends = [], [], []

    def init(**options):
        calls.append(options)
        if faults:
            raise faults.pop(0)

    monkeypatch.setattr(start.ray, "init", init)
    monkeypatch.setattr(start.ray, "shutdown", lambda: ends.append(len(calls)))
    return faults, calls, ends


LATE = "The current node timed out during startup.\n This could happen because"


def test_a_start_that_is_late_is_tried_once_more(starts, caplog):
    faults, calls, ends = starts
    faults.append(Exception(LATE))
    start_ray(num_cpus=3)
    assert [call["num_cpus"] for call in calls] == [3, 3]
    assert ends == [1]
    assert "timed out during startup. This could happen because); trying once more" in caplog.text


@pytest.mark.parametrize("error", [Exception(LATE), RuntimeError(), TimeoutError("x" * 999)])
def test_a_start_that_is_late_twice_is_one_line(starts, error):
    faults, calls, _ = starts
    faults += [error, error]
    with pytest.raises(InputError, match="Ray did not start on this machine, 2 times") as caught:
        start_ray()
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert len(calls) == 2


def test_ctrl_c_is_no_reason_to_start_again(starts):
    faults, calls, _ = starts
    faults.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start_ray()
    assert len(calls) == 1


def test_a_directory_too_deep_for_sockets_is_refused_before_anything_starts(starts, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "d" * 60)
    with pytest.raises(
        InputError, match=r"^RAY_TMPDIR makes Ray work in /tmp/d+/ray, which is too"
    ):
        start_ray()
    assert starts[1] == []


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (AuthenticationError("no token"), "refuses the connection .*no token.*RAY_AUTH_MODE=token"),
        (ConnectionError("refused"), r"refuses the connection \(refused\)"),
        (RuntimeError("Version mismatch:\n2.60 here"), "cannot be joined .Version mismatch: 2.60"),
        (ValueError("no node"), r"cannot be joined \(no node\); see ray status"),
        (Exception("This node has an IP address of x"), "cannot be joined .This node has an IP"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(starts, error, what):
    starts[0].append(error)
    with pytest.raises(InputError, match=f"^--address auto: the cluster {what}"):
        join_ray("auto")


def test_an_address_where_nothing_listens_is_refused_at_once(starts):
    with pytest.raises(
        InputError, match=r"^--address 127\.0\.0\.1:1: no Ray cluster answers there"
    ):
        join_ray("127.0.0.1:1")
    assert starts[1] == []


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_address_where_something_listens_that_never_answers_is_refused_soon(
    starts, monkeypatch, is_closed
):
    """A control store that was stopped, or another service that hangs up."""
    monkeypatch.setattr(addresses, "_CLUSTER_ANSWERS_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        if is_closed:
            closer = threading.Thread(target=lambda: server.accept()[0].close())
            closer.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match="no Ray cluster answers there"):
            join_ray(address)
        if is_closed:
            closer.join()
    assert starts[1] == []
