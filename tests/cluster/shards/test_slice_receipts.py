"""What the receipt of a slice says of times, of bad rows and of what is left."""

import re

import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
import fastformers.cluster.shards.preparation
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.shards.layout import TOKENS
from fastformers.cluster.shards.shard_set import make_key
from tests.cluster.shards.test_preparation import LOCK, make_preparation, prepare_all


class SteppingClock:
    """Wall time goes on by a second with each look at it, CPU time by ten."""

    def __init__(self):
        self.seconds = {"perf_counter": 100.0, "thread_time": 100.0}

    def perf_counter(self):
        self.seconds["perf_counter"] += 1.0
        return self.seconds["perf_counter"]

    def thread_time(self):
        self.seconds["thread_time"] += 10.0
        return self.seconds["thread_time"]


def open_small_files(tmp_path, write_rows, bundle, texts, **options):
    """The slice of some files of a few texts each, and its preparation."""
    for number, of_file in enumerate(texts):
        rows = [{"id": row, "text": text} for row, text in enumerate(of_file)]
        write_rows(tmp_path / f"corpus/{number}.jsonl", rows)
    corpus = open_corpus(str(tmp_path / "corpus"), text_columns=("text",), keep_columns=("id",))
    [slice_] = corpus.plan_slices()
    return slice_, make_preparation(tmp_path / "shards", corpus, bundle, **options)


def test_tokenizing_takes_wall_time_and_writing_the_cpu_time_of_each_shard(
    tmp_path, write_rows, bundle, monkeypatch
):
    texts = [[f"a cat {row}" for row in range(20)]]
    slice_, preparation = open_small_files(tmp_path, write_rows, bundle, texts, shard_seconds=0.001)
    monkeypatch.setattr(fastformers.cluster.shards.preparation, "time", SteppingClock())
    receipt = preparation.prepare(slice_, bundle.load_tokenizer(), LOCK)
    assert len(receipt.shards) > 2
    assert receipt.phase_s["tokenize"] == 1.0
    assert receipt.phase_s["write"] == 10.0 * len(receipt.shards)
    assert receipt.key == make_key(slice_.index, 0)
    name = receipt.shards[0].file_name
    with preparation.directory.child(TOKENS).open_input(name) as file:
        group = pyarrow.parquet.ParquetFile(file).metadata.row_group(0)
    assert not any(group.column(n).has_dictionary_page for n in range(group.num_columns))


def test_more_text_than_the_sizes_promise_ends_a_slice_after_the_file_that_exceeds_it(
    tmp_path, write_rows, bundle, monkeypatch
):
    """Four chunks of five characters are allowed, and no more."""
    monkeypatch.setattr(fastformers.cluster.shards.preparation, "READ_CHUNK_BYTES", 5)
    texts = [["a cat ran fast 12345"], ["x"], ["y"], ["z"]]
    assert len(texts[0][0]) == 20
    slice_, preparation = open_small_files(tmp_path, write_rows, bundle, texts)
    receipt = preparation.prepare(slice_, bundle.load_tokenizer(), LOCK)
    assert sum(shard.num_rows for shard in receipt.shards) == 2
    assert receipt.rest.pieces == slice_.pieces[2:]


@pytest.mark.parametrize(
    ("texts", "max_kinds", "place"),
    [
        ([["a", None, "", ""]], 16, "0.jsonl: row 2: column 'text': empty text"),
        ([["a", "b"], ["", "c"]], 16, "1.jsonl: row 0: column 'text': empty text"),
        ([["a", None, "", ""]], 1, "0.jsonl: row 1: column 'text': null text"),
    ],
)
def test_the_first_row_of_the_commonest_kind_is_the_example(
    tmp_path, write_rows, bundle, monkeypatch, texts, max_kinds, place
):
    """Where the kinds that are not told apart are the commonest, it is the first bad row."""
    monkeypatch.setattr("fastformers.cluster.shards.receipts._MAX_KINDS", max_kinds)
    slice_, preparation = open_small_files(tmp_path, write_rows, bundle, texts)
    receipt = preparation.prepare(slice_, bundle.load_tokenizer(), LOCK)
    assert receipt.bad_example == f"{tmp_path}/corpus/{place}"


def test_values_that_fit_no_column_are_added_up_over_the_files(
    tmp_path, write_rows, bundle, monkeypatch
):
    monkeypatch.setattr("fastformers.formats.file_set.SAMPLE_FILES", 1)
    for number, values in enumerate(([1, 2], ["x", 3], ["y", "z"])):
        rows = [{"id": value, "text": "a cat"} for value in values]
        write_rows(tmp_path / f"corpus/{number}.jsonl", rows)
    corpus = open_corpus(str(tmp_path / "corpus"), text_columns=("text",), keep_columns=("id",))
    preparation = make_preparation(tmp_path / "shards", corpus, bundle)
    [receipt] = prepare_all(preparation, corpus.plan_slices(), bundle)
    assert receipt.unfit == {"id": 3}


@pytest.mark.parametrize(
    ("limit", "place"),
    [(None, r"row \d of the part from byte \d+: "), (24, "row 17: ")],
)
def test_a_bad_row_is_counted_from_where_the_rows_before_it_are_known(
    tmp_path, write_rows, bundle, monkeypatch, limit, place
):
    """With a limit the rows of each part are counted before any is read."""
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 400)
    rows = [{"id": row, "text": "" if row == 17 else f"a cat {row}"} for row in range(24)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=4)
    corpus = open_corpus(str(path), text_columns=("text",), keep_columns=("id",))
    preparation = make_preparation(tmp_path / "shards", corpus, bundle)
    receipts = prepare_all(preparation, corpus.plan_slices(limit=limit), bundle)
    [example] = [receipt.bad_example for receipt in receipts if receipt.bad]
    assert re.fullmatch(f"{re.escape(str(path))}: {place}column 'text': empty text", example)
