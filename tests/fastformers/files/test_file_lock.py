"""One process at a time makes what several ask for."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from fastformers.errors import ClaimedError
from fastformers.files.file_lock import alone_in, in_turn

HOLDS = """
import sys, time
from pathlib import Path
from fastformers.files.file_lock import alone_in, in_turn
with in_turn(Path(sys.argv[1])), alone_in(Path(sys.argv[2]), Path("out")):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds both locks until it is killed."""
    command = [sys.executable, "-c", HOLDS, tmp_path / "made" / "thing", tmp_path / "work"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_asks_for_what_another_process_makes_waits_until_that_ends(holder, tmp_path, caplog):
    done = threading.Event()

    def ask():
        with in_turn(tmp_path / "made" / "thing"):
            done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    while not caplog.messages and not done.is_set():
        thread.join(0.01)
    assert not done.is_set()
    assert caplog.messages == [
        f"{tmp_path}/made/thing: another run makes it; waiting for that",
    ]
    os.kill(holder.pid, signal.SIGKILL)  # and cannot free it by itself
    thread.join(60)
    assert done.is_set()


def test_a_directory_of_another_process_is_refused_until_that_ends(holder, tmp_path):
    message = rf"--output b: another run works on it, in {tmp_path}/work; wait for that"
    with pytest.raises(ClaimedError, match=message), alone_in(tmp_path / "work", "b"):
        pytest.fail("worked beside it")
    holder.kill()
    holder.wait()
    with alone_in(tmp_path / "work", "b"):
        shutil.rmtree(tmp_path / "work")
    with alone_in(tmp_path / "work", "b"):
        pass


def test_without_locks_nobody_waits(tmp_path, monkeypatch):
    def refuse(lock, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with in_turn(tmp_path / "thing"), alone_in(tmp_path, "b"), in_turn(tmp_path / "thing"):
        pass
