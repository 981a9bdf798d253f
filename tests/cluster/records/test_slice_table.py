"""Slices that are cut, learned from a log, from files or from both, against plain lists."""

import random
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from fastformers.cluster.corpus.slices import Piece, Slice
from fastformers.cluster.records.dead_letters import DEAD_LETTERS_FILE, write_dead_letters
from fastformers.cluster.records.receipts_log import LoggedRecords, ReceiptsLog, read_log
from fastformers.cluster.records.slice_table import (
    SLICE_LOG,
    SliceTable,
    load_shards,
    load_slices,
)
from fastformers.cluster.records.tally import ShardCounts
from fastformers.cluster.shards.identity import PREPARED_FILE, write_record
from fastformers.cluster.shards.layout import TOKENS, Shard
from fastformers.cluster.shards.preparation import SliceReceipt, receipt_name
from fastformers.cluster.shards.shard_set import ShardSet, make_key
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError

NO_LOG = LoggedRecords()


def make_slice(index, first_shard=0):
    piece = Piece(path=f"file-{index // 3}.csv", start=first_shard, stop=None)
    return Slice(index=index, pieces=(piece,), first_shard=first_shard)


def make_corpus(*, seed, num_slices=12):
    """Slices in up to four parts of up to four shards; files share slices, slices share files."""
    chance = random.Random(seed)
    receipts: list[tuple[Slice, SliceReceipt]] = []
    path = 0
    for index in range(num_slices):
        first, num_parts = 0, chance.randint(1, 4)
        for part in range(num_parts):
            shards = []
            for number in range(chance.randint(part < num_parts - 1, 4)):
                spans = []
                for _ in range(chance.randint(1, 3)):
                    path += chance.random() < 0.5
                    if not spans or spans[-1][0] != f"f{path}":
                        spans.append((f"f{path}", chance.randint(1, 9)))
                num_rows = sum(rows for _, rows in spans)
                shards.append(
                    Shard(
                        name=f"{index:06d}-{first + number:05d}",
                        num_rows=num_rows,
                        num_unique=chance.randint(1, num_rows),
                        num_tokens=chance.randint(10, 99),
                        num_unique_tokens=chance.randint(1, 9),
                        predicted_s=chance.random(),
                        spans=tuple(spans),
                    )
                )
            own, first = first, first + len(shards)
            receipt = SliceReceipt(
                index=index,
                first_shard=own,
                shards=tuple(shards),
                rest=make_slice(index, first) if part < num_parts - 1 else None,
                phase_s={"read": 0.5},
                skipped={f"bad-{index}": "not CSV"} if index % 5 == 0 else {},
                unfit={"k": index} if index % 3 == 0 else {},
            )
            receipts.append((make_slice(index, own), receipt))
    return receipts


@pytest.fixture
def directory(tmp_path):
    made = open_directory(str(tmp_path / "shards"))
    for name in ("slices", TOKENS):
        made.child(name).create()
    return made


def write(directory, receipts, *, without=()):
    """Receipts of slices and files of shards, but for those of these names."""
    for slice_, receipt in receipts:
        name = receipt_name(slice_.index, slice_.first_shard)
        directory.child("slices").write_json(name, asdict(receipt))
        for shard in receipt.shards:
            if shard.name not in without:
                Path(directory.path, TOKENS, shard.file_name).write_bytes(b"")


def write_log(directory, receipts):
    log = ReceiptsLog(directory.child(SLICE_LOG), next_number=0)
    for slice_, receipt in receipts:
        assert receipt.key == make_key(slice_.index, slice_.first_shard)
        log.add({"key": receipt.key, **asdict(receipt)})
    log.close()


def load(directory, slices, done, *, log=NO_LOG, **options):
    unlogged = []
    cut = load_slices(
        directory, log, slices, done=ShardSet(done), on_unlogged=unlogged.append, **options
    )
    return cut, unlogged


def expected(receipts, slices, *, done, files):
    """What is known and left, from the whole list, as the driver would have to know it."""
    of = {(slice_.index, slice_.first_shard): receipt for slice_, receipt in receipts}
    known, left = [], []
    for slice_ in slices:
        rest = slice_
        while rest is not None and (receipt := of.get((rest.index, rest.first_shard))):
            if any(s.name not in done and s.name not in files for s in receipt.shards):
                break
            known.extend(receipt.shards)
            rest = receipt.rest
        if rest is not None:
            left.append(rest)
    counts = ShardCounts()
    for shard in known:
        counts.add(shard)
    return counts, [shard for shard in known if shard.name not in done], left


@pytest.mark.parametrize("logged", ["nothing", "half", "all"])
@pytest.mark.parametrize("seed", range(8))
def test_a_rerun_knows_what_the_lists_say(directory, seed, logged):
    """Some shards are scored, some are lost, and of some slices there is no receipt."""
    chance = random.Random(seed)
    whole = make_corpus(seed=seed)
    receipts = [entry for entry in whole if chance.random() < 0.85]
    names = [shard.name for _, receipt in whole for shard in receipt.shards]
    done = {name for name in names if chance.random() < 0.6}
    lost = {name for name in names if name in done or chance.random() < 0.05}
    write(directory, receipts, without=lost)
    share = {"nothing": 0, "half": len(receipts) // 2, "all": len(receipts)}[logged]
    write_log(directory, chance.sample(receipts, share))
    slices = [make_slice(index) for index in range(12)]
    counts, waiting, left = expected(receipts, slices, done=done, files=set(names) - lost)
    cut, unlogged = load(directory, slices, done, log=read_log(directory.child(SLICE_LOG)))
    assert cut.known == counts
    assert cut.shards == waiting
    assert cut.slices == left
    assert len(unlogged) == len(receipts) - share  # slices without rows are in the log, too


def test_what_an_earlier_run_skipped_is_known(directory):
    receipts = make_corpus(seed=1)
    write(directory, receipts)
    slices = [make_slice(index) for index in range(12)]
    cut, _ = load(directory, slices, [])
    assert cut.skipped_files == dict.fromkeys(("bad-0", "bad-5", "bad-10"), "not CSV")


@pytest.mark.parametrize("logged", [0, 5, None])
def test_values_that_fit_no_column_are_summed_over_the_slices_that_count(directory, logged):
    receipts = make_corpus(seed=3)
    gone = next(n for n, (_, receipt) in enumerate(receipts) if receipt.index == 6)
    del receipts[gone]  # what followed it of its slice is cut again, and counted then
    write(directory, receipts)
    write_log(directory, receipts[:logged])
    slices = [make_slice(index) for index in range(12)]
    cut, _ = load(directory, slices, [], log=read_log(directory.child(SLICE_LOG)))
    expected = sum(r.index for _, r in receipts if r.index % 3 == 0 and r.index != 6)
    assert cut.unfit == {"k": expected}


def test_a_preparation_holds_no_shard(directory):
    receipts = make_corpus(seed=2)
    write(directory, receipts)
    slices = [make_slice(index) for index in range(12)]
    cut, _ = load(directory, slices, [], scores=False)
    assert (cut.shards, cut.slices) == ([], [])
    assert cut.known.num_shards == sum(len(receipt.shards) for _, receipt in receipts)


def test_shards_of_a_preparation_are_all_there_or_refused(directory):
    receipts = make_corpus(seed=5)
    write(directory, receipts)
    with pytest.raises(InputError, match="preparation is incomplete; run the same prepare again"):
        load_shards(directory)
    write_record(directory, PREPARED_FILE, {}, complete=False)
    with pytest.raises(InputError, match="preparation is incomplete; run the same prepare again"):
        load_shards(directory)
    write_record(directory, PREPARED_FILE, {}, complete=True)
    assert load_shards(directory) == [s for _, receipt in receipts for s in receipt.shards]


@pytest.mark.parametrize(
    "record", [{}, {"key": "x"}, {"key": 0, "rest": None}, {"key": 0, "shards": [{}]}, None, 3]
)
def test_a_log_of_something_else_is_as_good_as_none(directory, record):
    receipts = make_corpus(seed=3)
    write(directory, receipts)
    slices = [make_slice(index) for index in range(12)]
    cut, unlogged = load(directory, slices, [], log=LoggedRecords(objects=[[record]]))
    assert len(unlogged) == len(receipts)
    assert cut.known == expected(receipts, slices, done=(), files=set(all_names(receipts)))[0]


def test_a_logged_slice_without_its_file_is_cut_again(directory):
    receipts = make_corpus(seed=4)
    write(directory, receipts)
    write_log(directory, receipts)
    Path(directory.path, "slices", "000005-00000.json").unlink()
    slices = [make_slice(index) for index in range(12)]
    cut, _ = load(directory, slices, [], log=read_log(directory.child(SLICE_LOG)))
    assert cut.slices == [make_slice(5)]
    assert not [shard for shard in cut.shards if shard.name.startswith("000005")]


def test_a_part_of_which_nothing_was_read_is_read_again(directory):
    """Its rest begins with the same shard, so it would lead to itself for ever."""
    empty = SliceReceipt(index=0, first_shard=0, shards=(), rest=make_slice(0), phase_s={})
    write(directory, [(make_slice(0), empty)])
    cut, _ = load(directory, [make_slice(0)], [])
    assert cut.slices == [make_slice(0)]


def all_names(receipts):
    return [shard.name for _, receipt in receipts for shard in receipt.shards]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_rows_of_dead_letters_are_those_of_a_walk_through_the_corpus(
    directory, tmp_path, seed, share
):
    chance = random.Random(seed)
    receipts = make_corpus(seed=seed)
    write(directory, receipts)
    output = open_directory(str(tmp_path / "out"))
    output.child("predictions").create()
    letters, with_errors, table = [], ShardSet(), SliceTable()
    corpus_row, file, file_row = 0, "", 0
    for _, receipt in receipts:
        for shard in receipt.shards:
            errors = [None] * shard.num_rows
            if chance.random() < share:
                with_errors.add(shard.name)
                for row in chance.sample(range(shard.num_rows), 1 + shard.num_rows // 3):
                    errors[row] = f"row {row} of {shard.name}"
                pa.parquet.write_table(  # the others are not opened
                    pa.table({"error": pa.array(errors, pa.string())}),
                    tmp_path / "out" / "predictions" / shard.file_name,
                )
            row = 0
            for path, num_rows in shard.spans:
                file, file_row = path, (file_row if path == file else 0)
                for _ in range(num_rows):
                    if errors[row] is not None:
                        letters.append(
                            (shard.file_name, row, corpus_row, path, file_row, errors[row])
                        )
                    row, corpus_row, file_row = row + 1, corpus_row + 1, file_row + 1
    for slice_, receipt in chance.sample(receipts, len(receipts)):  # in the order of their ends
        table.add(receipt, make_key(slice_.index, slice_.first_shard))
    assert write_dead_letters(
        output, output.child("predictions"), directory, table, with_errors=with_errors
    ) == len(letters)
    found = pa.parquet.read_table(tmp_path / "out" / DEAD_LETTERS_FILE)
    assert list(zip(*found.to_pydict().values(), strict=True)) == letters
