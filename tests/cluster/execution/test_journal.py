"""The journal of whole runs, and what the next run learns from its log."""

import gc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import fastformers.cluster.corpus.slices
from fastformers.cluster.execution import journal as journal_module
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.journal import RunJournal, find_earlier_work
from fastformers.cluster.records import receipts_log
from fastformers.cluster.records.receipts_log import ReceiptsLog, read_log
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards import preparation
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.shard_set import key_of
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import ClaimedError, ScoringError
from tests.cluster.outputs import read_dead_letters


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 300)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 300)
    monkeypatch.setattr(receipts_log, "RECORDS_AN_OBJECT", 4)


@pytest.fixture
def corpus(tmp_path, write_rows):
    """Two files of 40 rows; every tenth is bad."""
    for name in "ab":
        rows = [{"id": n, "text": "" if n % 10 == 7 else f"a cat {n}"} for n in range(40)]
        write_rows(tmp_path / f"corpus/{name}.csv", rows)
    return tmp_path / "corpus"


SETTINGS = CorpusSettings(keep_columns=("id",), shard_seconds=0.0005)


def plan(corpus, bundle, output, *, settings=SETTINGS):
    return open_score_job(
        str(corpus),
        bundle.path,
        str(output),
        settings,
        max_batch_tokens=256,
    )


def logged(directory):
    return [record for records in read_log(directory).objects for record in records]


@pytest.fixture
def files_read(monkeypatch):
    """Names of the predictions and receipts of slices that were opened."""
    opened = []
    open_input, read_bytes = Directory.open_input, Directory.read_bytes

    def listen(self, name):
        opened.append(name)
        return open_input(self, name)

    def listen_to_bytes(self, name):
        opened.append(name)
        return read_bytes(self, name)

    monkeypatch.setattr(Directory, "open_input", listen)
    monkeypatch.setattr(Directory, "read_bytes", listen_to_bytes)
    return opened


def test_every_receipt_is_logged_once(corpus, bundle, tmp_path, run_locally, told):
    job = plan(corpus, bundle, tmp_path / "out")
    result = run_locally(job)
    assert len(told.receipts) > 8
    by_name = {receipt.shard: receipt for receipt in told.receipts}
    records = logged(job.receipts_log)
    assert {record["shard"] for record in records} == set(by_name)
    assert len(records) == len(by_name) == result.tally.scored.num_shards
    assert result.tally.attempts.num_added == len(told.attempts) > len(by_name)
    for record in records:
        assert record["file_bytes"] == (
            (tmp_path / "out" / "predictions" / f"part-{record['shard']}.parquet").stat().st_size
        )
    num_slices = len(list((tmp_path / "out" / "__run__" / "shards" / "slices").iterdir()))
    assert len(logged(job.slices_log)) == num_slices > 3


def test_a_rerun_opens_no_file_that_the_log_knows(
    corpus, bundle, tmp_path, run_locally, files_read
):
    first = run_locally(plan(corpus, bundle, tmp_path / "out"))
    letters = read_dead_letters(tmp_path / "out")
    job = plan(corpus, bundle, tmp_path / "out")
    files_read.clear()
    earlier = find_earlier_work(job)
    assert earlier.is_all
    assert len(earlier.done) == first.tally.scored.num_shards
    assert earlier.cut.known == first.tally.known
    num_objects = len(job.receipts_log.list_files()) + len(job.slices_log.list_files())
    assert len(files_read) == num_objects <= 2 + (len(earlier.done) + 40) // 4
    run_locally(job)
    assert read_dead_letters(tmp_path / "out").equals(letters)
    assert letters.num_rows == 8


def test_a_run_without_a_log_makes_one_and_knows_the_same(
    corpus, bundle, tmp_path, run_locally, files_read
):
    """As an output of an older version has none."""
    run_locally(plan(corpus, bundle, tmp_path / "out"))
    job = plan(corpus, bundle, tmp_path / "out")
    known = find_earlier_work(job)
    for directory in (job.receipts_log, job.slices_log):
        for path in Path(directory.path).iterdir():
            path.unlink()
    read = find_earlier_work(job)
    assert not logged(job.receipts_log)  # finding changes nothing
    assert read.cut.known == known.cut.known
    assert read.receipts.lengths == known.receipts.lengths
    assert read.receipts.num_rows == known.receipts.num_rows == 80
    assert read.receipts.actor_s == pytest.approx(known.receipts.actor_s)
    assert read.done.keys().tolist() == known.done.keys().tolist()
    assert read.with_errors.keys().tolist() == known.with_errors.keys().tolist()
    assert len(read.with_errors) > 1
    run_locally(job)
    files_read.clear()
    assert find_earlier_work(job).is_all
    assert not [name for name in files_read if key_of(name) is not None]


def test_what_was_logged_before_an_error_is_known_to_the_next_run(
    corpus, bundle, tmp_path, run_locally, told, files_read
):
    none_bad = replace(SETTINGS, max_bad_rows="0")
    with pytest.raises(ScoringError):
        run_locally(plan(corpus, bundle, tmp_path / "out", settings=none_bad))
    done = {receipt.shard for receipt in told.receipts}
    job = plan(corpus, bundle, tmp_path / "out")
    files_read.clear()
    earlier = find_earlier_work(job)
    assert {receipt.shard for receipt in told.receipts} <= done
    assert all(name in earlier.done for name in done)
    assert [name for name in files_read if name.startswith("part-")] == [
        f"part-{name}.parquet" for name in sorted(all_done(tmp_path) - done)
    ]


def all_done(tmp_path):
    return {path.name[5:-8] for path in (tmp_path / "out" / "predictions").iterdir()}


def test_a_preparation_is_logged_and_its_log_is_used(
    corpus, bundle, tmp_path, run_locally, files_read
):
    shards = tmp_path / "shards"
    preparing = open_prepare_job(str(corpus), bundle.path, str(shards), SETTINGS)
    prepared = run_locally(preparing)
    assert not (shards / "receipts").exists()
    job = open_score_job(
        str(shards),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
    )
    files_read.clear()
    earlier = find_earlier_work(job)
    assert [name for name in files_read if name.endswith(".json")] == ["prepared.json"]
    assert len(earlier.cut.shards) == prepared.tally.known.num_shards > 5
    assert earlier.num_slices == 0  # none is left to cut, and nobody asks how many there were
    before = sorted(shards.rglob("*"))
    run_locally(job)
    assert sorted(shards.rglob("*")) == before  # what others prepared is left as it is


def test_shards_are_freed_as_they_are_done(corpus, bundle, tmp_path, run_locally, monkeypatch):
    """A million that wait at the start must not be there at the end, too."""
    gc.collect()
    before = sum(type(thing) is Shard for thing in gc.get_objects())
    run_locally(open_prepare_job(str(corpus), bundle.path, str(tmp_path / "shards"), SETTINGS))
    job = plan(tmp_path / "shards", bundle, tmp_path / "out", settings=CorpusSettings())
    held = []
    finish = journal_module.RunJournal.__exit__

    def count(journal, *error):
        gc.collect()
        held.append(sum(type(thing) is Shard for thing in gc.get_objects()) - before)
        return finish(journal, *error)

    monkeypatch.setattr(journal_module.RunJournal, "__exit__", count)
    run_locally(job)
    assert held == [0]


def test_what_agrees_in_two_precisions_is_summed(corpus, bundle, tmp_path):
    journal = RunJournal(plan(corpus, bundle, tmp_path / "out"))
    for num_equal in (3, 4):
        journal.add_agreement(
            Agreement(num_texts=5, num_equal=num_equal, largest_difference=num_equal / 8)
        )
    assert journal.tally.agreement == Agreement(num_texts=10, num_equal=7, largest_difference=0.5)


def test_records_are_flushed_when_it_is_time(corpus, bundle, tmp_path, run_locally, monkeypatch):
    asked = []
    monkeypatch.setattr(ReceiptsLog, "flush_if_due", lambda log: asked.append(log))
    run_locally(plan(corpus, bundle, tmp_path / "out"))
    assert len(set(asked)) == 2  # that of shards and that of slices


@pytest.mark.parametrize(
    ("error", "waits_s"),
    [(None, 120.0), (KeyboardInterrupt, 5.0)],
)
def test_a_run_that_ends_by_an_error_does_not_wait_long_for_its_log(
    corpus, bundle, tmp_path, monkeypatch, error, waits_s
):
    waited = []
    monkeypatch.setattr(ReceiptsLog, "close", lambda log, *, timeout_s: waited.append(timeout_s))
    journal = RunJournal(plan(corpus, bundle, tmp_path / "out"))
    journal.load_earlier()
    with nullcontext() if error is None else pytest.raises(error), journal:
        if error is not None:
            raise error
    assert waited == [waits_s] * 2


def test_a_run_that_has_lost_its_output_leaves_the_log_to_the_other(
    corpus, bundle, tmp_path, run_locally
):
    job = plan(corpus, bundle, tmp_path / "out")
    run_locally(job)
    assert job.receipts_log is not None
    before = {name: job.receipts_log.read_bytes(name) for name in job.receipts_log.list_files()}
    assert before
    loser = RunJournal(job)
    loser._receipts = ReceiptsLog(job.receipts_log, next_number=0)
    with pytest.raises(ClaimedError), loser:
        loser._receipts.add({"of": "the loser"})
        raise ClaimedError("taken over")
    after = {name: job.receipts_log.read_bytes(name) for name in job.receipts_log.list_files()}
    assert after == before
