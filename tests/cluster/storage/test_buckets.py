"""Directories in a bucket: how many requests they make, and what they do when those fail."""

import json
import logging
import pickle
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.cluster.storage import filesystems, outages
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import StorageOptions
from fastformers.cluster.storage.outages import OutageRecord
from fastformers.cluster.storage.retries import Waiting
from fastformers.errors import StorageError

REPOSITORY = Path(__file__).parents[3]
TABLE = pa.table({"n": list(range(2_000)), "text": [f"row {n}" for n in range(2_000)]})


@pytest.fixture
def options(s3_server):
    return StorageOptions(s3_server.storage_options)


@pytest.fixture
def directory(s3_server, options):
    """A directory that does not wait between two attempts."""
    directory = open_directory(f"{s3_server.uri}/out", options)
    directory.store.service.waiting = Waiting(sleep=lambda seconds: None)
    return directory


def write_table(directory, name):
    with directory.write(name) as file:
        pyarrow.parquet.write_table(TABLE, file, row_group_size=100)


def test_a_file_is_one_request_to_write(s3_server, directory):
    directory.write_json("a.json", {"rows": 3})
    write_table(directory, "t.parquet")
    with directory.write("large") as file:
        file.write(bytes(9_000_000))
    assert [request.method for request in s3_server.requests] == ["PUT"] * 3


def test_a_file_is_two_requests_to_read(s3_server, directory):
    write_table(directory, "t.parquet")
    s3_server.forget()
    assert directory.read_table("t.parquet").equals(TABLE)
    assert [request.method for request in s3_server.requests] == ["HEAD", "GET"]
    s3_server.forget()
    assert directory.read_table("t.parquet", columns=["n"]).equals(TABLE.select(["n"]))
    assert directory.read_bytes("t.parquet")[:4] == b"PAR1"
    assert s3_server.count() == 4


def test_a_listing_is_one_request_for_a_thousand_files(s3_server, directory):
    names = [f"{n:04d}" for n in range(1_010)]
    for _ in directory.map_files(names, lambda name: directory.write_json(name, name)):
        pass
    s3_server.forget()
    entries = directory.list_entries()
    assert [entry.name for entry in entries] == names
    assert {entry.size_bytes for entry in entries} == {6}
    assert all(entry.mtime_ns > 0 for entry in entries)
    assert directory.list_sizes()["0007"] == 6
    assert s3_server.count("GET") == s3_server.count() == 4


def test_small_files_are_read_many_at_a_time_and_come_in_order(s3_server, directory):
    names = [f"{n:03d}" for n in range(300)]
    for _ in directory.map_files(names, lambda name: directory.write_json(name, int(name))):
        pass
    s3_server.delay_s = 0.05
    barrier, seen = threading.Barrier(32), []

    def read(name):
        if len(seen) < 32:
            seen.append(name)
            barrier.wait(30)  # breaks if fewer than 32 are in work at a time
        return directory.read_bytes(name)

    assert [int(content) for content in directory.map_files(names, read)] == list(range(300))


def test_what_fails_among_many_is_raised_in_its_turn(directory):
    directory.write_json("a", 1)
    results = directory.map_files(["a", "none", "a"], directory.read_bytes)
    assert next(results) == b"1"
    with pytest.raises(FileNotFoundError):
        next(results)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_ctrl_c_does_not_wait_for_a_bucket_that_is_away(
    s3_server, options, raised, impatient_client
):
    directory = open_directory(f"{s3_server.uri}/out", options)
    directory.write_json("a", 1)
    s3_server.outage = "slow_down"
    started = threading.Barrier(5)

    def act(name):
        started.wait(30)
        if name == "0":
            raise raised
        return directory.read_bytes("a")

    start = time.monotonic()
    with pytest.raises(raised):
        list(directory.map_files("01234", act))
    assert time.monotonic() - start < 30  # else for as long as the bucket is away
    assert outages.current() == []


def test_files_are_deleted_many_at_a_time(directory):
    names = [f"{n:03d}" for n in range(200)]
    for _ in directory.map_files(names, lambda name: directory.write_json(name, name)):
        pass
    directory.delete_files(names[:199])
    assert directory.list_files() == ["199"]
    directory.delete_files(["none", "199"])
    assert directory.list_files() == []


def test_it_is_empty_but_for_what_may_be_there(directory):
    assert directory.is_empty()
    directory.write_json("a.json", 1)
    assert not directory.is_empty()
    assert directory.is_empty(but=("a.json",))


def use(directory):
    """Everything that a job does with a directory; returns what it read."""
    directory.create()
    for number in range(6):
        directory.write_json(f"{number}.json", number)
    write_table(directory, "t.parquet")
    directory.delete_file("0.json")
    assert directory.list_files() == ["1.json", "2.json", "3.json", "4.json", "5.json", "t.parquet"]
    assert directory.read_table("t.parquet").equals(TABLE)
    with directory.open_input("t.parquet") as file:
        assert pyarrow.parquet.read_table(file).equals(TABLE)
    return [directory.read_json(f"{number}.json") for number in range(6)]


@pytest.mark.parametrize("seed", range(5))
def test_one_request_in_twenty_fails_and_nobody_notices(s3_server, directory, seed, caplog):
    s3_server.fail(0.05, seed=seed)
    assert use(directory.child(str(seed))) == [None, 1, 2, 3, 4, 5]
    assert caplog.messages == []
    assert outages.current() == []


def test_one_request_in_three_fails_where_a_directory_arrives(s3_server, directory, tmp_path):
    (tmp_path / "directory").write_bytes(pickle.dumps(directory))
    s3_server.fail(0.3, seed=1)
    code = (
        "import pathlib, pickle, sys\n"
        "from tests.cluster.storage.test_buckets import use\n"
        "print(use(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "directory")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[None, 1, 2, 3, 4, 5]\n", "")
    faults = [request.fault for request in s3_server.requests]
    assert sum(fault is not None for fault in faults) > len(faults) // 6


@pytest.mark.parametrize("fault", ["slow_down", "error", "reset", "cut"])
def test_half_of_the_reads_fail(s3_server, directory, fault, impatient_client):
    with directory.write("a") as file:
        file.write(bytes(200_000))
    s3_server.only = ("GET",)
    s3_server.fail(0.5, seed=3, faults=(fault,))
    assert [directory.read_bytes("a") for _ in range(4)] == [bytes(200_000)] * 4
    assert any(request.fault for request in s3_server.requests)


def test_a_slow_service_is_waited_for(s3_server, directory, caplog):
    s3_server.delay_s = 1.5
    directory.write_json("a.json", 1)
    assert directory.read_json("a.json") == 1
    assert s3_server.count() == 3
    assert caplog.messages == []


@pytest.fixture
def impatient_client(monkeypatch):
    """The client tries once, so that a test need not wait for the times between its attempts."""
    monkeypatch.setattr(filesystems, "CLIENT_ATTEMPTS", 1)


@pytest.fixture
def watched(directory, s3_server, clock, impatient_client):
    """The directory with a clock that each wait moves, and what is said meanwhile."""
    said = []

    def sleep(seconds):
        clock.now += seconds
        said.extend(str(outage) for outage in record.current())
        if clock.now > 60:
            s3_server.outage = None

    record = OutageRecord(clock=clock, log=said.append)
    directory.store.service.waiting = Waiting(
        clock=clock, sleep=sleep, chance=lambda: 1.0, record=record
    )
    return directory, said


def test_an_outage_is_waited_out_and_told(s3_server, watched, clock):
    directory, said = watched
    directory.write_json("a.json", 1)
    s3_server.outage = "slow_down"
    assert directory.read_json("a.json") == 1
    assert 60 < clock.now < 90
    name = s3_server.uri
    told = [line for line in said if line.startswith(name)]
    assert told[0].startswith(f"{name} does not answer since ")
    assert "503" in told[0]
    assert told[-1] == f"{name} answers again after {clock.now:.0f} s"
    assert f"storage does not answer since {clock.now:.0f} s: {name}/out/a.json (" in said[-2]


def test_where_a_directory_arrives_nothing_is_logged(
    s3_server, directory, caplog, clock, impatient_client
):
    arrived = pickle.loads(pickle.dumps(directory))

    def sleep(seconds):
        clock.now += 600
        s3_server.outage = None

    arrived.store.service.waiting = Waiting(
        clock=clock, sleep=sleep, record=OutageRecord(clock=clock)
    )
    s3_server.outage = "slow_down"
    assert arrived.read_json("a.json") is None
    assert clock.now == 600
    assert caplog.messages == []


def test_the_driver_logs_what_it_waits_for(s3_server, directory, caplog, clock, impatient_client):
    def sleep(seconds):
        clock.now += 7
        if clock.now > 10:
            s3_server.outage = None

    directory.store.service.waiting = Waiting(
        clock=clock, sleep=sleep, record=OutageRecord(clock=clock)
    )
    s3_server.outage = "slow_down"
    with caplog.at_level(logging.WARNING):
        assert directory.read_json("a.json") is None
    assert [line.partition(" (")[0] for line in caplog.messages] == [
        f"{s3_server.uri} does not answer since 7 s",
        f"{s3_server.uri} answers again after 14 s",
    ]


@pytest.mark.parametrize(
    "act",
    [
        lambda directory: directory.read_json("a.json"),
        lambda directory: directory.write_json("a.json", 1),
        lambda directory: directory.list_files(),
        lambda directory: directory.delete_file("a.json"),
        lambda directory: directory.is_empty(),
        lambda directory: directory.open_input("a.json"),
    ],
)
def test_access_denied_is_said_at_once_and_without_secrets(s3_server, directory, act):
    s3_server.is_denied = True
    with pytest.raises(StorageError, match=r"access denied .*; check the credentials") as caught:
        act(directory)
    assert str(caught.value).startswith(f"{s3_server.uri}/out")
    assert s3_server.count() <= 2
    shown = "".join(traceback.format_exception(caught.value)) + repr(directory)
    for secret in (s3_server.storage_options[key] for key in ("access_key", "secret_key")):
        assert secret not in shown
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_a_bucket_that_is_not_there_is_said_at_once(options):
    directory = open_directory("s3://no-bucket/out", options)
    with pytest.raises(StorageError, match=r"s3://no-bucket/out.*: there is no bucket s3://no-buc"):
        directory.write_json("a", 1)


def test_a_directory_in_a_bucket_needs_no_request(s3_server, directory):
    directory.child("deep").create()
    assert s3_server.requests == []
    directory.child("deep").write_json("a.json", 1)
    assert [(request.method, request.path) for request in s3_server.requests] == [
        ("PUT", f"/{s3_server.bucket}/out/deep/a.json")
    ]


def test_a_bucket_is_no_file(options, s3_server):
    directory = open_directory(s3_server.uri, options)
    with pytest.raises(StorageError, match="is a directory or a bucket, not a file"):
        directory.filesystem.open_input_file(directory.path)


def test_json_that_is_not_ours_is_named_by_its_uri(s3_server, directory):
    with directory.write("a.json") as file:
        file.write(b"{")
    with pytest.raises(Exception, match=f"^{s3_server.uri}/out/a.json: is not JSON"):
        directory.read_json("a.json")
    assert json.loads(json.dumps(str(directory))) == f"{s3_server.uri}/out"


def test_all_that_is_in_a_directory_is_removed_by_one_request(s3_server, directory):
    for number in range(3):
        directory.child("deep").write_json(f"{number}.json", number)
    directory.write_json("beside.json", 1)
    s3_server.forget()
    directory.child("deep").delete_contents()
    assert (s3_server.count("DELETE"), s3_server.count("POST", "?delete")) == (0, 1)
    assert directory.child("deep").list_files() == []
    assert directory.list_files() == ["beside.json"]
    directory.child("none").delete_contents()
