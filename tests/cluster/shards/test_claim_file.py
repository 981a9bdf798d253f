"""Who holds a directory, and whether its process lives."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fastformers.cluster.shards import claim_file
from fastformers.cluster.shards.claim_file import (
    CLAIM_FILE,
    judge_process,
    new_claim,
    put_claim,
    put_claim_if_absent,
    read_claim,
    release_claim,
    replace_claim,
)
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import parse_storage_options
from fastformers.errors import InputError


@pytest.fixture
def home(tmp_path):
    return open_directory(str(tmp_path))


@pytest.fixture
def child():
    """A process that does nothing, and a claim of it."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    start = claim_file._read_process(process.pid)[1]
    yield process, replace(new_claim(0.0), pid=process.pid, process_start=start)
    process.kill()
    process.communicate()


def test_a_claim_is_read_as_it_was_written(home):
    assert read_claim(home) is None
    claim = new_claim(1234.5)
    put_claim(home, claim)
    assert read_claim(home) == claim
    assert claim.run != new_claim(1234.5).run
    assert str(claim).endswith(f"(process {os.getpid()}) since 1970-01-01 00:20 UTC")


def test_a_living_process_is_alive_and_a_stopped_one_is_told_from_it(child):
    process, claim = child
    assert judge_process(new_claim(0.0)) == "alive"
    assert judge_process(claim) == "alive"
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert judge_process(claim) == "stopped"


def test_a_killed_process_is_gone_before_and_after_its_parent_knows(child):
    process, claim = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert judge_process(claim) == "gone"
    process.wait()
    assert judge_process(claim) == "gone"


@pytest.mark.parametrize(
    ("change", "liveness"),
    [
        ({"process_start": 1}, "gone"),  # another process has its number now
        ({"machine": "other"}, "unknown"),
        ({"machine": None}, "unknown"),
        ({"host": "other"}, "unknown"),
    ],
)
def test_only_processes_of_this_machine_are_judged(change, liveness):
    assert judge_process(replace(new_claim(0.0), **change)) == liveness


def test_a_process_that_is_hidden_but_exists_is_not_taken_for_dead(child, monkeypatch):
    monkeypatch.setattr(claim_file, "_read_process", lambda pid: (None, None))
    process, claim = child
    assert judge_process(claim) == "unknown"
    process.kill()
    process.wait()
    assert judge_process(claim) == "gone"


def test_of_many_that_put_a_claim_at_once_one_succeeds(home, tmp_path):
    claims = [new_claim(0.0) for _ in range(24)]
    with ThreadPoolExecutor(24) as pool:
        put = list(pool.map(lambda claim: put_claim_if_absent(home, claim), claims))
    assert sorted(put) == [False] * 23 + [True]
    assert read_claim(home) == claims[put.index(True)]
    assert [path.name for path in tmp_path.iterdir()] == [CLAIM_FILE]


def test_a_claim_in_a_bucket_is_written_and_released_and_nothing_is_promised(s3_server):
    bucket = open_directory(
        f"{s3_server.uri}/out", parse_storage_options(json.dumps(s3_server.storage_options))
    )
    claim = new_claim(0.0)
    assert read_claim(bucket) is None
    assert put_claim_if_absent(bucket, claim) is None
    assert read_claim(bucket) is None
    put_claim(bucket, claim)
    assert replace_claim(bucket, claim, new_claim(0.0)) is None
    assert read_claim(bucket) == claim
    release_claim(bucket, "another")
    assert read_claim(bucket) == claim
    release_claim(bucket, claim.run)
    assert read_claim(bucket) is None


def test_a_disk_without_hard_links_and_locks_promises_nothing(tmp_path, monkeypatch, home):
    claim = new_claim(0.0)

    def refuse(*arguments):
        raise PermissionError("not here")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    monkeypatch.setattr("fcntl.flock", refuse)
    assert put_claim_if_absent(home, claim) is None
    assert replace_claim(home, claim, claim) is None
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_changed_since_is_not_replaced(home, tmp_path):
    left, own = new_claim(0.0), new_claim(0.0)
    put_claim(home, replace(left, beat=1))
    assert replace_claim(home, left, own) is False
    assert read_claim(home) == replace(left, beat=1)
    assert replace_claim(home, replace(left, beat=1), own) is True
    assert read_claim(home) == own
    assert [path.name for path in tmp_path.iterdir()] == [CLAIM_FILE]


def test_of_many_that_replace_a_claim_at_once_one_succeeds(home):
    left = new_claim(0.0)
    put_claim(home, left)
    claims = [new_claim(0.0) for _ in range(24)]
    with ThreadPoolExecutor(24) as pool:
        put = list(pool.map(lambda claim: replace_claim(home, left, claim), claims))
    assert sorted(put) == [False] * 23 + [True]
    assert read_claim(home) == claims[put.index(True)]


def test_a_run_releases_its_own_claim_alone(home, tmp_path):
    own, other = new_claim(0.0), new_claim(0.0)
    put_claim(home, replace(own, beat=7))
    release_claim(home, other.run)
    assert read_claim(home) == replace(own, beat=7)
    release_claim(home, own.run)
    release_claim(home, own.run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [[], {"run": "a"}, {"format_version": 2}, {"format_version": 1, "run": "a"}]
)
def test_what_is_no_claim_is_refused_with_its_name(home, tmp_path, content):
    (tmp_path / CLAIM_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=CLAIM_FILE):
        read_claim(home)
