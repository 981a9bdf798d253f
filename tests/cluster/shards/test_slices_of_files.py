"""Slices of many files: read ahead, left out, left over, and continued by the next run."""

import pytest

import fastformers.cluster.shards.preparation
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.errors import InputError
from fastformers.formats.readers import ReadOptions
from tests.cluster.shards.test_preparation import (
    contents,
    load_progress,
    make_preparation,
    make_text,
    prepare_all,
    shards_of,
)


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def suffix(request):
    return request.param


@pytest.fixture
def small_files(tmp_path, write_rows, monkeypatch, suffix):
    """Forty files of one row; the fourth, which is not opened to plan, has no text column."""
    monkeypatch.setattr(fastformers.cluster.shards.preparation, "READ_CHUNK_BYTES", 40)
    for number in range(40):
        name = "body" if number == 3 else "text"
        row = {"id": number, name: make_text(number + 4)}
        write_rows(tmp_path / f"small/{number:02d}{suffix}", [row])
    return tmp_path / "small"


def open_small(path, *, skip):
    return open_corpus(
        str(path),
        text_columns=("text",),
        keep_columns=("id",),
        options=ReadOptions(skip_unreadable=skip),
    )


def test_a_file_that_does_not_fit_ends_its_slice_and_no_other(small_files, tmp_path, bundle):
    corpus = open_small(small_files, skip=False)
    preparation = make_preparation(tmp_path / "shards", corpus, bundle)
    first, *others = corpus.plan_slices()
    with pytest.raises(InputError, match=r"small/03.*: no column 'text' .*--skip-unreadable-files"):
        prepare_all(preparation, [first], bundle)
    assert contents(preparation.directory) == {}
    assert all(receipt.skipped == {} for receipt in prepare_all(preparation, others, bundle))


@pytest.mark.parametrize("num_writes", [0, 3, 6, 9, 11])
def test_a_file_that_was_left_out_stays_so_when_a_killed_run_goes_on(
    small_files, tmp_path, bundle, killed_after, num_writes
):
    """The slices follow from the listing, so a rerun cuts the same shards and names the file."""
    corpus = open_small(small_files, skip=True)
    whole = make_preparation(tmp_path / "whole", corpus, bundle)
    receipts = prepare_all(whole, corpus.plan_slices(), bundle)
    assert sum(shard.num_rows for shard in shards_of(receipts)) == 39
    [(path, reason)] = [item for receipt in receipts for item in receipt.skipped.items()]
    assert path == f"{small_files}/03{next(small_files.iterdir()).suffix}"
    assert reason.startswith("no column 'text'")

    killed = make_preparation(tmp_path / "killed", corpus, bundle)
    with killed_after(num_writes):
        prepare_all(killed, corpus.plan_slices(), bundle)
    again = open_small(small_files, skip=True)
    assert again.digest == corpus.digest
    known, pending = load_progress(killed.directory, again.plan_slices(), ())
    assert len(known) < len(receipts)
    finished = [*known, *prepare_all(killed, pending, bundle)]
    assert [item for receipt in finished for item in receipt.skipped.items()] == [(path, reason)]
    assert contents(killed.directory) == contents(whole.directory)


def test_a_slice_whose_text_takes_too_much_memory_leaves_a_rest(
    tmp_path, write_rows, bundle, monkeypatch
):
    """A corpus may be compressed far more than its sizes promise."""
    monkeypatch.setattr(fastformers.cluster.shards.preparation, "READ_CHUNK_BYTES", 50)
    for number in range(10):
        write_rows(tmp_path / f"corpus/{number}.jsonl.gz", [{"id": number, "text": "cat " * 30}])
    corpus = open_small(tmp_path / "corpus", skip=False)
    preparation = make_preparation(tmp_path / "shards", corpus, bundle, shard_seconds=1)
    slices = corpus.plan_slices()
    receipts = prepare_all(preparation, slices, bundle)
    assert [sum(s.num_rows for s in receipt.shards) for receipt in receipts] == [2, 2, 2, 2, 2]
    assert [len(r.rest.pieces) for r in receipts if r.rest is not None] == [8, 6, 4, 2]
    assert [shard.name for shard in shards_of(receipts)] == [f"000000-{n:05d}" for n in range(5)]
    assert load_progress(preparation.directory, slices, ()) == (receipts, [])


def test_phases_are_told_as_they_begin(small_files, tmp_path, bundle):
    corpus = open_small(small_files, skip=True)
    preparation = make_preparation(tmp_path / "shards", corpus, bundle)
    phases = []

    class Computing:
        def __enter__(self):
            phases.append("computes")

        def __exit__(self, *error):
            phases.append("computes no more")

    slice_ = corpus.plan_slices()[0]
    receipt = preparation.prepare(slice_, bundle.load_tokenizer(), Computing(), phases.append)
    assert phases == ["read", "computes", "tokenize", "computes no more", "write"]
    assert set(receipt.phase_s) == {"read", "tokenize", "write"}
    assert all(seconds > 0 for seconds in receipt.phase_s.values())
