import gzip
import json
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest

from fastformers.cluster.records import receipts_log
from fastformers.cluster.records.receipts_log import (
    FLUSH_EVERY_S,
    LoggedRecords,
    ReceiptsLog,
    load_receipts,
    read_log,
)
from fastformers.cluster.shards.predictions import write_predictions
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.storage.directory import Directory, open_directory


@pytest.fixture
def directory(tmp_path):
    return open_directory(str(tmp_path / "log"))


@pytest.fixture
def predictions(tmp_path):
    made = open_directory(str(tmp_path / "predictions"))
    made.create()
    return made


@pytest.fixture
def small_objects(monkeypatch):
    monkeypatch.setattr(receipts_log, "RECORDS_AN_OBJECT", 10)


def make_receipt(number, *, num_rows=3):
    return Receipt(
        shard=f"{number:06d}-00000",
        actor="host:0",
        attempt=1,
        num_rows=num_rows,
        num_unique=3,
        num_errors=0,
        num_tokens=9,
        num_scored_tokens=9,
        num_computed_tokens=9,
        num_batches=1,
        started_at=1.0,
        finished_at=2.0,
        predicted_s=1.0,
        rss_bytes=1,
        peak_rss_bytes=1,
        phase_s={"infer": 1.0},
        lengths={"8": [3, 9, 9]},
    )


def write_shards(predictions, numbers):
    """Predictions of these shards; returns their receipts with the sizes of the files."""
    return [
        write_predictions(
            predictions,
            f"part-{number:06d}-00000.parquet",
            pa.table({"label": ["a"] * (1 + number % 5)}),
            make_receipt(number),
        )
        for number in numbers
    ]


def write_log(directory, receipts):
    log = ReceiptsLog(directory, next_number=read_log(directory).next_number)
    for receipt in receipts:
        log.add(vars(receipt))
    log.close()


def load(predictions, directory):
    """Receipts that are found, and those of them that the log did not have."""
    unlogged = []
    log = read_log(directory)
    found = list(load_receipts(predictions, log, on_unlogged=unlogged.append))
    return found, unlogged


def records(directory):
    return [record for found in read_log(directory).objects for record in found]


def test_records_come_back_newest_first(directory, small_objects):
    write_log(directory, map(make_receipt, range(25)))
    assert directory.list_files() == [f"{number:06d}.jsonl.gz" for number in range(3)]
    assert records(directory) == [asdict(make_receipt(number)) for number in reversed(range(25))]
    write_log(directory, [make_receipt(25)])
    assert read_log(directory).next_number == 4
    assert records(directory)[0]["shard"] == "000025-00000"


def test_nothing_is_written_for_nothing(directory):
    log = ReceiptsLog(directory, next_number=0)
    log.flush_if_due()
    log.close()
    assert not Path(directory.path).exists()
    assert (read_log(directory).next_number, records(directory)) == (0, [])


def test_an_object_is_written_again_as_it_fills(directory, small_objects, clock):
    log = ReceiptsLog(directory, next_number=7, clock=clock)
    log.add({"a": 1})
    log.flush_if_due()
    clock.now = FLUSH_EVERY_S - 1
    log.add({"a": 2})
    log.flush_if_due()
    assert log._waiting.qsize() == 0
    assert log._thread is None  # it is not time yet
    clock.now = FLUSH_EVERY_S
    log.flush_if_due()
    wait_for(lambda: records(directory) == [{"a": 2}, {"a": 1}])
    clock.now = 10 * FLUSH_EVERY_S
    log.flush_if_due()
    for number in range(3, 13):
        log.add({"a": number})
    log.close()
    assert directory.list_files() == ["000007.jsonl.gz", "000008.jsonl.gz"]
    assert [record["a"] for record in records(directory)] == list(reversed(range(1, 13)))


def wait_for(condition):
    """Return once it holds; the writer tells nobody when it has written."""
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("the log was not written")


def test_storage_that_refuses_costs_a_warning(directory, small_objects, monkeypatch, caplog):
    def refuse(self, name):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "write", refuse)
        write_log(directory, map(make_receipt, range(12)))
    assert caplog.text.count("the next run reads the files instead") == 2
    assert "no space" in caplog.text
    write_log(directory, [make_receipt(1)])
    assert len(records(directory)) == 1


def test_closing_waits_no_longer_than_it_may(directory, monkeypatch, caplog):
    goes_on = threading.Event()
    write = Directory.write

    def slow(self, name):
        goes_on.wait()
        return write(self, name)

    monkeypatch.setattr(Directory, "write", slow)
    log = ReceiptsLog(directory, next_number=0)
    log.add({})
    log.close(timeout_s=0.01)
    assert "not all of the log is written" in caplog.text
    goes_on.set()
    log._thread.join()


def test_what_a_slow_storage_makes_it_leave_out_is_said(
    directory, small_objects, monkeypatch, caplog
):
    monkeypatch.setattr(receipts_log, "_MAX_WAITING", 0)
    write_log(directory, [make_receipt(number) for number in range(9)])
    assert records(directory) == []
    assert "000000.jsonl.gz: left out, the storage does not keep up" in caplog.text


def test_a_log_and_its_files_tell_the_same(directory, predictions, small_objects):
    receipts = write_shards(predictions, range(25))
    found, unlogged = load(predictions, directory)
    assert found == unlogged == receipts  # no log: all are read
    write_log(directory, receipts)
    logged, unlogged = load(predictions, directory)
    assert sorted(logged, key=lambda receipt: receipt.shard) == receipts
    assert unlogged == []


def test_a_shard_that_was_scored_twice_counts_once_and_the_last_time(directory, predictions):
    write_log(directory, write_shards(predictions, range(3)))
    again = replace(make_receipt(1), attempt=2)
    again = write_predictions(predictions, "part-000001-00000.parquet", pa.table({"a": [1]}), again)
    write_log(directory, [again])
    found, unlogged = load(predictions, directory)
    assert sorted((r.shard, r.attempt) for r in found) == [
        ("000000-00000", 1),
        ("000001-00000", 2),
        ("000002-00000", 1),
    ]
    assert unlogged == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not gzip",
        lambda content: content[:30] + b"\0\0\0\0" + content[34:],
        lambda content: gzip.compress(b'{"shard": "000001-00000"}'),
        lambda content: gzip.compress(b"[1, 2"),
        lambda content: gzip.compress(b"3\n[]\nnull"),
        lambda content: gzip.compress(gzip.decompress(content).replace(b'"shard"', b'"color"')),
        lambda content: gzip.compress(gzip.decompress(content)[:-20]),
    ],
)
def test_a_damaged_object_is_as_good_as_none(directory, predictions, small_objects, damage):
    receipts = write_shards(predictions, range(25))
    write_log(directory, receipts)
    path = Path(directory.path) / "000001.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    found, unlogged = load(predictions, directory)
    assert sorted(found, key=lambda receipt: receipt.shard) == receipts
    assert unlogged == receipts[10:20]


def test_the_files_are_the_truth(directory, predictions):
    """Of five shards in the log one is gone, one is cut short, one is another's file."""
    receipts = write_shards(predictions, range(5))
    write_log(directory, receipts)
    home = Path(predictions.path)
    (home / "part-000000-00000.parquet").unlink()
    whole = (home / "part-000001-00000.parquet").read_bytes()
    (home / "part-000001-00000.parquet").write_bytes(whole[:-9])
    pa.parquet.write_table(pa.table({"a": [1]}), home / "part-000002-00000.parquet")
    (home / "part-1-2.parquet").write_bytes(whole)
    (home / "notes.txt").write_text("mine")
    found, unlogged = load(predictions, directory)
    assert sorted(found, key=lambda receipt: receipt.shard) == receipts[3:]
    assert unlogged == []


def test_records_without_a_size_are_not_believed(directory, predictions):
    [receipt] = write_shards(predictions, [0])
    write_log(directory, [replace(receipt, file_bytes=0)])
    assert load(predictions, directory) == ([receipt], [receipt])
    Path(predictions.path, "part-000000-00000.parquet").write_bytes(b"")
    assert load(predictions, directory) == ([], [])


def test_a_thousand_receipts_cost_one_request(s3_server, monkeypatch):
    """Two listings, and one object for each thousand, whatever the number of files."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    home = open_directory(s3_server.uri)
    predictions, directory = home.child("predictions"), home.child("receipts")
    receipts = []
    for number in range(30):
        receipts += write_shards(predictions, [number])
    write_log(directory, receipts[:28])
    s3_server.forget()
    found, unlogged = load(predictions, directory)
    assert len(found) == 30
    assert unlogged == receipts[28:]
    assert s3_server.count("GET", "receipts/000000.jsonl.gz") == 1
    opened = {request.path for request in s3_server.requests if "part-" in request.path}
    assert len(opened) == 2


def test_a_log_is_text_that_others_can_read(directory):
    write_log(directory, [make_receipt(5)])
    with gzip.open(Path(directory.path) / "000000.jsonl.gz", "rt") as file:
        [record] = [json.loads(line) for line in file]
    assert (record["shard"], record["num_rows"]) == ("000005-00000", 3)
    assert LoggedRecords() == LoggedRecords(objects=(), next_number=0)
