from collections import deque
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
import fastformers.cluster.shards.preparation
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.records.receipts_log import LoggedRecords
from fastformers.cluster.records.slice_table import load_shards, load_slice_receipt, load_slices
from fastformers.cluster.shards.identity import PREPARED_FILE, write_record
from fastformers.cluster.shards.layout import TOKENS, read_shard_table
from fastformers.cluster.shards.preparation import Preparation
from fastformers.cluster.shards.shard_set import ShardSet
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError, StorageError

LOCK = nullcontext()
WORDS = ["cat", "dog", "a fast film", "the mat", "good"]
NUM_ROWS = 40


def make_text(row):
    """Text of a row: some texts repeat, some are bad, and lengths differ."""
    if row in (3, 17):
        return " "
    return " ".join([WORDS[row % 5]] * (1 + row % 4)) if row % 3 else f"row {row}"


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def suffix(request):
    return request.param


@pytest.fixture
def corpus(tmp_path, write_rows, monkeypatch, suffix):
    """Two files, read in many slices or, where it is CSV, in many chunks of two slices."""
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 400)
    monkeypatch.setattr(fastformers.cluster.shards.preparation, "READ_CHUNK_BYTES", 150)
    rows = [{"id": row, "text": make_text(row)} for row in range(NUM_ROWS)]
    write_rows(tmp_path / f"corpus/a{suffix}", rows[:25], row_group_size=4)
    write_rows(tmp_path / f"corpus/b{suffix}", rows[25:], row_group_size=4)
    return open_corpus(str(tmp_path / "corpus"), text_columns=("text",), keep_columns=("id",))


@pytest.fixture
def preparation(tmp_path, corpus, bundle):
    return make_preparation(tmp_path / "shards", corpus, bundle)


def make_preparation(path, corpus, bundle, *, shard_seconds=0.0007):
    directory = open_directory(str(path))
    for name in ("slices", TOKENS):
        directory.child(name).create()
    return Preparation(
        directory=directory,
        reader=corpus.reader,
        cost_profile=bundle.cost_profile,
        shard_seconds=shard_seconds,
    )


def prepare_all(preparation, slices, bundle):
    """Prepare slices as the driver does; returns their receipts."""
    tokenizer = bundle.load_tokenizer()
    receipts, left = [], deque(slices)
    while left:
        receipt = preparation.prepare(left.popleft(), tokenizer, nullcontext())
        receipts.append(receipt)
        if receipt.rest is not None:
            left.appendleft(receipt.rest)
    return receipts


def load_progress(directory, slices, done):
    """Receipts of the slices that are cut, and what is left to cut."""
    cut = load_slices(directory, LoggedRecords(), slices, done=ShardSet(done))
    keys = cut.table.rows()[:, 0].tolist()
    return [load_slice_receipt(directory, key) for key in keys], cut.slices


def shards_of(receipts):
    return [shard for receipt in receipts for shard in receipt.shards]


def read_shard(directory, shard):
    with directory.child(TOKENS).open_input(shard.file_name) as file:
        return pyarrow.parquet.read_table(file)


def timeless(receipts):
    """Receipts without their seconds."""
    return [replace(receipt, phase_s={}) for receipt in receipts]


def contents(directory):
    """Every file of a preparation; receipts without their seconds."""
    found = {}
    for path in sorted(Path(directory.path).rglob("*")):
        name = str(path.relative_to(directory.path))
        if path.suffix == ".json":
            found[name] = {**directory.read_json(name), "phase_s": None}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_shards_hold_the_corpus_in_order(corpus, preparation, bundle):
    receipts = prepare_all(preparation, corpus.plan_slices(), bundle)
    shards = shards_of(receipts)
    assert len(shards) > 8
    assert [shard.name for shard in shards] == sorted({shard.name for shard in shards})

    ids, errors, tokens = [], [], []
    for shard in shards:
        table = read_shard(preparation.directory, shard)
        table = table.take(np.argsort(table["place"].to_numpy()))
        rows = read_shard_table(read_shard(preparation.directory, shard))
        ids.extend(int(value) for value in table["keep.id"].to_pylist())
        errors.extend(table["error"].to_pylist())
        for unique in table["unique"].to_pylist():
            start, end = (0, 0) if unique is None else rows.offsets[unique : unique + 2]
            tokens.append(rows.ids[start:end].tolist())
    assert ids == list(range(NUM_ROWS))
    assert [row for row, error in enumerate(errors) if error is not None] == [3, 17]
    expected = bundle.load_tokenizer().encode([make_text(row) for row in range(NUM_ROWS)])
    for row in range(NUM_ROWS):
        own = expected.ids[expected.offsets[row] : expected.offsets[row + 1]].tolist()
        assert tokens[row] == ([] if row in (3, 17) else own)


def test_a_shard_is_described_without_reading_it(corpus, preparation, bundle):
    for shard in shards_of(prepare_all(preparation, corpus.plan_slices(), bundle)):
        table = read_shard(preparation.directory, shard)
        rows = read_shard_table(table)
        numbers = table["unique"].drop_null().to_numpy()
        assert (shard.num_rows, shard.num_unique) == (table.num_rows, len(rows))
        assert shard.num_unique_tokens == len(rows.ids)
        assert shard.num_tokens == rows.lengths_N[numbers].sum()
        seconds = bundle.cost_profile.estimate_seconds(rows.lengths_N).sum()
        assert shard.predicted_s == pytest.approx(seconds)


def test_spans_add_up_to_the_files(corpus, preparation, bundle, suffix):
    rows_of = dict.fromkeys((file.path for file in corpus.files), 0)
    order = []
    for shard in shards_of(prepare_all(preparation, corpus.plan_slices(), bundle)):
        assert sum(num_rows for _, num_rows in shard.spans) == shard.num_rows
        for path, num_rows in shard.spans:
            rows_of[path] += num_rows
            order.append(path)
    assert [rows_of[file.path] for file in corpus.files] == [25, 15]
    assert order == sorted(order)


def test_a_finished_preparation_has_nothing_left(corpus, preparation, bundle):
    slices = corpus.plan_slices()
    assert load_progress(preparation.directory, slices, ()) == ([], slices)
    receipts = prepare_all(preparation, slices, bundle)
    assert load_progress(preparation.directory, slices, ()) == (receipts, [])


def test_the_rest_of_a_file_is_read_in_chunks(corpus, preparation, bundle, suffix):
    receipts = prepare_all(preparation, corpus.plan_slices(), bundle)
    unfinished = [receipt for receipt in receipts if receipt.rest is not None]
    assert (len(unfinished) >= 4) == (suffix != ".parquet")  # whose groups have few rows
    for receipt in unfinished:
        last = receipt.shards[-1].name
        assert f"{receipt.rest.index:06d}-{receipt.rest.first_shard - 1:05d}" == last


@pytest.mark.parametrize("victim", [0, 3, -1])
def test_a_lost_shard_is_cut_again_and_is_the_same(corpus, preparation, bundle, victim):
    slices = corpus.plan_slices()
    receipts = prepare_all(preparation, slices, bundle)
    before = contents(preparation.directory)
    shard = shards_of(receipts)[victim]
    Path(preparation.directory.path, TOKENS, shard.file_name).unlink()

    known, pending = load_progress(preparation.directory, slices, ())
    assert shard not in shards_of(known)
    [slice_] = pending
    assert slice_.index == int(shard.name[:6])
    again = prepare_all(preparation, pending, bundle)
    assert shard in again[0].shards
    assert contents(preparation.directory) == before
    assert sorted(s.name for s in shards_of([*known, *again])) == [
        s.name for s in shards_of(receipts)
    ]


def test_a_lost_shard_that_is_scored_already_is_not_cut_again(corpus, preparation, bundle):
    slices = corpus.plan_slices()
    receipts = prepare_all(preparation, slices, bundle)
    shard = shards_of(receipts)[2]
    Path(preparation.directory.path, TOKENS, shard.file_name).unlink()
    assert load_progress(preparation.directory, slices, {shard.name}) == (receipts, [])
    assert len(load_progress(preparation.directory, slices, {"99999-99999"})[1]) == 1


@pytest.mark.parametrize("victim", [0, 1, -1])
def test_a_slice_without_receipt_is_cut_again(corpus, preparation, bundle, victim):
    slices = corpus.plan_slices()
    receipts = prepare_all(preparation, slices, bundle)
    before = contents(preparation.directory)
    names = preparation.directory.child("slices").list_files()
    (Path(preparation.directory.path) / "slices" / names[victim]).unlink()

    known, pending = load_progress(preparation.directory, slices, ())
    assert len(known) < len(receipts)
    [slice_] = pending
    assert f"{slice_.index:06d}-{slice_.first_shard:05d}.json" == names[victim]
    prepare_all(preparation, pending, bundle)
    assert contents(preparation.directory) == before
    known, pending = load_progress(preparation.directory, slices, ())
    assert (timeless(known), pending) == (timeless(receipts), [])


@pytest.mark.parametrize("num_writes", range(0, 12, 2))
def test_a_killed_preparation_leaves_nothing_half(
    corpus, preparation, bundle, killed_after, tmp_path, num_writes
):
    whole = make_preparation(tmp_path / "whole", corpus, bundle)
    slices = corpus.plan_slices()
    receipts = prepare_all(whole, slices, bundle)

    with killed_after(num_writes):
        prepare_all(preparation, slices, bundle)
    finished = contents(whole.directory)
    found = contents(preparation.directory)
    assert len(found) == num_writes
    assert all(finished[name] == content for name, content in found.items())

    known, pending = load_progress(preparation.directory, slices, ())
    assert timeless(known) == timeless(receipts)[: len(known)]
    prepare_all(preparation, pending, bundle)
    assert contents(preparation.directory) == finished


def test_a_full_disk_is_named(corpus, preparation, bundle):
    Path(preparation.directory.path, "slices").rmdir()
    with pytest.raises(StorageError, match=r"slices/000000-00000\.json"):
        prepare_all(preparation, corpus.plan_slices(), bundle)


def test_shards_of_an_unfinished_preparation_are_refused(corpus, preparation, bundle):
    with pytest.raises(InputError, match="preparation is incomplete; run the same prepare again"):
        load_shards(preparation.directory)
    receipts = prepare_all(preparation, corpus.plan_slices(), bundle)
    write_record(preparation.directory, PREPARED_FILE, {}, complete=False)
    with pytest.raises(InputError, match="preparation is incomplete"):
        load_shards(preparation.directory)
    write_record(preparation.directory, PREPARED_FILE, {}, complete=True)
    (Path(preparation.directory.path) / "slices" / ".00000.json.abc.incomplete").write_text("{")
    assert load_shards(preparation.directory) == shards_of(receipts)


def test_bad_rows_are_counted_and_one_is_named(corpus, preparation, bundle):
    receipts = prepare_all(preparation, corpus.plan_slices(), bundle)
    bad = [receipt for receipt in receipts if receipt.bad]
    assert len(bad) in (1, 2)
    assert bad[0].bad["column 'text': empty text"] >= 1
    assert bad[0].bad_example == f"{corpus.files[0].path}: row 3: column 'text': empty text"
    assert {receipt.bad_example for receipt in receipts if not receipt.bad} <= {None}


def test_files_of_one_slice_become_several_shards_with_their_bad_rows(tmp_path, write_rows, bundle):
    rows = [{"id": row, "text": make_text(row)} for row in range(NUM_ROWS)]
    for number in range(4):
        write_rows(tmp_path / f"corpus/{number}.jsonl", rows[10 * number : 10 * number + 10])
    corpus = open_corpus(str(tmp_path / "corpus"), text_columns=("text",), keep_columns=("id",))
    [slice_] = corpus.plan_slices()
    preparation = make_preparation(tmp_path / "shards", corpus, bundle, shard_seconds=0.002)
    receipt = preparation.prepare(replace(slice_, first_shard=7), bundle.load_tokenizer(), LOCK)

    assert receipt.rest is None
    assert len(receipt.shards) > 2
    names = [f"000000-{7 + number:05d}" for number in range(len(receipt.shards))]
    assert [shard.name for shard in receipt.shards] == names
    tables = [read_shard(preparation.directory, shard) for shard in receipt.shards]
    tables = [table.take(np.argsort(table["place"].to_numpy())) for table in tables]
    table = pa.concat_tables(tables)
    assert table["keep.id"].to_pylist() == list(range(NUM_ROWS))
    assert [row for row, error in enumerate(table["error"].to_pylist()) if error] == [3, 17]
    assert receipt.bad == {"column 'text': empty text": 2}
    assert receipt.bad_example.endswith("0.jsonl: row 3: column 'text': empty text")
    assert all(0 <= seconds < 60 for seconds in receipt.phase_s.values())


@pytest.mark.parametrize("chunk_bytes", [2**24, 50, 1])
def test_files_of_one_slice_are_read_whole_in_as_many_reads_as_it_takes(
    tmp_path, write_rows, bundle, monkeypatch, chunk_bytes
):
    monkeypatch.setattr(fastformers.cluster.shards.preparation, "READ_CHUNK_BYTES", chunk_bytes)
    rows = [{"id": row, "text": "a cat" if row != 13 else ""} for row in range(20)]
    for number in range(4):
        write_rows(tmp_path / f"corpus/{number}.jsonl", rows[5 * number : 5 * number + 5])
    corpus = open_corpus(str(tmp_path / "corpus"), text_columns=("text",), keep_columns=("id",))
    assert len(corpus.plan_slices()) == 1
    preparation = make_preparation(tmp_path / "shards", corpus, bundle)
    receipts = prepare_all(preparation, corpus.plan_slices(), bundle)
    tables = [read_shard(preparation.directory, shard) for shard in shards_of(receipts)]
    ids = [table.sort_by("place")["keep.id"].to_pylist() for table in tables]
    assert [id_ for of_shard in ids for id_ in of_shard] == list(range(20))
    [example] = [receipt.bad_example for receipt in receipts if receipt.bad]
    assert "2.jsonl: row 3: " in example


def test_of_a_large_file_an_actor_holds_16_mib_of_text_at_a_time(tmp_path, write_rows, bundle):
    rows = [{"text": letter * 2**20} for letter in "abcdefghijklmnopqrstuvwxyz"]
    path = write_rows(tmp_path / "a.jsonl.gz", rows)
    corpus = open_corpus(str(path), text_columns=("text",))
    [slice_] = corpus.plan_slices()
    read = make_preparation(tmp_path / "shards", corpus, bundle)._read(slice_)
    assert 15 <= read.num_rows <= 17
    assert len(read.left) == 1


@pytest.mark.parametrize("shard_seconds", [1e-5, 1.0])
def test_a_corpus_of_bad_rows_only(tmp_path, write_rows, bundle, shard_seconds):
    path = write_rows(tmp_path / "a.jsonl", [{"text": " "} for _ in range(5)])
    corpus = open_corpus(str(path), text_columns=("text",))
    preparation = make_preparation(tmp_path / "s", corpus, bundle, shard_seconds=shard_seconds)
    [receipt] = prepare_all(preparation, corpus.plan_slices(), bundle)
    [shard] = receipt.shards
    assert (shard.num_rows, shard.num_unique, shard.num_tokens) == (5, 0, 0)
    assert shard.predicted_s == 0
    table = read_shard(preparation.directory, shard)
    assert table["error"].to_pylist() == ["column 'text': empty text"] * 5


def test_a_slice_without_rows_has_a_receipt_and_no_shard(tmp_path, write_rows, bundle, monkeypatch):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "cat " * 100}, {"text": "dog"}])
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 100)
    corpus = open_corpus(str(path), text_columns=("text",))
    preparation = make_preparation(tmp_path / "shards", corpus, bundle)
    slices = corpus.plan_slices()
    receipts = prepare_all(preparation, slices, bundle)
    assert [len(receipt.shards) for receipt in receipts] == [1, 0, 0, 0, 1]
    assert load_progress(preparation.directory, slices, ()) == (receipts, [])


def test_pairs_are_tokenized_together(tmp_path, write_rows, pair_bundle):
    rows = [{"a": "cat", "b": "dog"}, {"a": "cat dog", "b": None}, {"a": "the", "b": "mat ran"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    corpus = open_corpus(str(path), text_columns=("a", "b"))
    preparation = make_preparation(tmp_path / "shards", corpus, pair_bundle, shard_seconds=1)
    [receipt] = prepare_all(preparation, corpus.plan_slices(), pair_bundle)
    table = read_shard(preparation.directory, receipt.shards[0])
    expected = pair_bundle.load_tokenizer().encode(["cat", "the"], ["dog", "mat ran"])
    stored = read_shard_table(table)
    assert stored.ids.tolist() == expected.ids.tolist()
    assert stored.second_lengths_N.tolist() == [2, 3]
    assert table["place"].to_pylist() == [0, 2, 1]


def test_kept_columns_come_back_with_their_types(tmp_path, bundle, odd_columns):
    """Columns of all types, from several row groups, come back through the file of a shard."""
    table = odd_columns.append_column("text", [["cat", "a dog", None, "cat"]])
    (tmp_path / "corpus").mkdir()
    for name in ("a", "b"):
        path = tmp_path / "corpus" / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path, row_group_size=2)
    corpus = open_corpus(
        str(tmp_path / "corpus"),
        text_columns=("text",),
        keep_columns=tuple(odd_columns.column_names),
    )
    preparation = make_preparation(tmp_path / "shards", corpus, bundle, shard_seconds=1)
    [receipt] = prepare_all(preparation, corpus.plan_slices(), bundle)
    stored = read_shard(preparation.directory, receipt.shards[0])
    stored = stored.take(np.argsort(stored["place"].to_numpy()))
    kept = stored.select([f"keep.{name}" for name in odd_columns.column_names])
    plain = {"kind": pa.string(), "nothing": pa.string()}
    expected = [plain.get(field.name, field.type) for field in odd_columns.schema]
    assert [field.type for field in kept.schema] == expected
    kept = kept.rename_columns(odd_columns.column_names)
    assert kept.to_pylist() == pa.concat_tables([odd_columns, odd_columns]).to_pylist()
