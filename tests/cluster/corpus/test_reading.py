"""Reading ahead, and files that turn out not to fit where they are read."""

import gzip
import pickle
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

import fastformers.cluster.corpus.reading
import fastformers.cluster.corpus.slices
from fastformers.cluster.corpus.reading import READ_THREADS, read_all, read_pieces
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.shards import preparation
from fastformers.errors import InputError, StorageError
from fastformers.files import file_bytes
from fastformers.formats.readers import ReadOptions, UnfitFileError
from tests.cluster.corpus.fake_store import FakeStore, make_gate
from tests.cluster.corpus.test_planning import encode, texts_of

MIDDLE = 3  # of 40 files, one that is not opened to plan


def make_store(monkeypatch, suffix, num_files=40, middle=None):
    files = {
        f"bucket/{number:06d}{suffix}": encode(suffix, [{"text": f"text {number}", "id": number}])
        for number in range(num_files)
    }
    if middle is not None:
        files[f"bucket/{MIDDLE:06d}{suffix}"] = middle
    return FakeStore(files).install(monkeypatch)


def open_store(*, keep=("id",), skip=False):
    return open_corpus(
        "bucket",
        text_columns=("text",),
        keep_columns=keep,
        options=ReadOptions(skip_unreadable=skip),
    )


@pytest.fixture(params=[".parquet", ".jsonl", ".csv"])
def suffix(request):
    return request.param


def pieces_of(corpus):
    return [piece for slice_ in corpus.plan_slices() for piece in slice_.pieces]


def test_pieces_are_read_at_once_and_come_in_order(monkeypatch, suffix):
    store = make_store(monkeypatch, suffix, READ_THREADS)
    corpus = open_store()
    store.gate = make_gate(READ_THREADS)  # the first read ends when the last one has begun
    reads = list(read_pieces(corpus.reader, pieces_of(corpus), chunk_bytes=2**20))
    assert [read.rows.texts[0] for read in reads] == [[f"text {n}"] for n in range(READ_THREADS)]
    assert [read.piece.path for read in reads] == list(store.files)


def test_no_more_is_read_ahead_than_there_are_threads(monkeypatch):
    store = make_store(monkeypatch, ".jsonl", 400)
    corpus = open_store()
    pieces = pieces_of(corpus)
    store.requests.clear()
    reads = read_pieces(corpus.reader, pieces, chunk_bytes=2**20)
    for _ in range(3):
        next(reads)
    assert store.count("open") <= READ_THREADS + 3
    reads.close()
    assert store.count("open") <= READ_THREADS + 3


def test_a_rest_keeps_what_is_left_of_a_limit(monkeypatch):
    rows = [{"text": f"text {row}", "id": row} for row in range(20)]
    FakeStore({"bucket/a.csv": encode(".csv", rows)}).install(monkeypatch)
    corpus = open_store()
    [slice_] = corpus.plan_slices(limit=17)
    for chunk_bytes in (1, 30, 2**20):
        reads = list(read_all(corpus.reader, slice_.pieces, chunk_bytes=chunk_bytes))
        assert (len(reads) == 1) == (chunk_bytes == 2**20)
        assert all(read.num_rows for read in reads)
        found = [text for read in reads for text in read.texts[0]]
        assert found == [row["text"] for row in rows[:17]]


def misfits(suffix):
    """Contents that do not fit the others, and what is said about them."""
    broken = {".parquet": b"not Parquet", ".jsonl": b"3\n", ".csv": b'"text\rid' * 3}
    reasons = {
        ".parquet": r"cannot be read \(.*\)",
        ".jsonl": "no line of its first MiB is a JSON object",
        ".csv": r"cannot be read \(.*\)",
    }
    yield broken[suffix], reasons[suffix]
    yield encode(suffix, [{"body": "a", "id": 1}]), r"no column 'text' \(.*; it has body, id"
    if suffix != ".csv":  # whose columns have no types
        yield encode(suffix, [{"text": 3, "id": 1}]), "column 'text' holds int(64)?, not text"


@pytest.mark.parametrize("number", range(3))
def test_a_file_in_the_middle_that_does_not_fit_is_named_where_it_is_read(
    monkeypatch, suffix, number
):
    for middle, reason in list(misfits(suffix))[number : number + 1]:
        make_store(monkeypatch, suffix, middle=middle)
        corpus = open_store()
        assert corpus.skipped == {}
        with pytest.raises(InputError, match=rf"^bucket/0*{MIDDLE}\{suffix}: {reason}") as raised:
            texts_of(corpus, corpus.plan_slices())
        message = str(pickle.loads(pickle.dumps(raised.value)))  # as it comes back from an actor
        assert message.endswith(
            "; repair or remove it, or pass --skip-unreadable-files to score the others"
        )
        assert "\n" not in message


@pytest.mark.parametrize("number", range(3))
def test_a_file_in_the_middle_that_does_not_fit_is_left_out_if_told(monkeypatch, suffix, number):
    for middle, _ in list(misfits(suffix))[number : number + 1]:
        make_store(monkeypatch, suffix, middle=middle)
        corpus = open_store(skip=True)
        reads = list(read_pieces(corpus.reader, pieces_of(corpus), chunk_bytes=2**20))
        skipped = {read.piece.path: read.skipped for read in reads if read.skipped is not None}
        assert list(skipped) == [f"bucket/{MIDDLE:06d}{suffix}"]
        assert all(reason and "bucket/000003" not in reason for reason in skipped.values())
        expected = [[] if n == MIDDLE else [f"text {n}"] for n in range(40)]
        assert [read.rows.texts[0] for read in reads] == expected
        assert [read.rows.kept.schema for read in reads] == [corpus.reader.kept_schema] * 40


def test_a_file_that_disappeared_is_named_or_left_out(monkeypatch, suffix):
    store = make_store(monkeypatch, suffix)
    corpora = [open_store(), open_store(skip=True)]
    slices = [corpus.plan_slices() for corpus in corpora]
    del store.files[f"bucket/{MIDDLE:06d}{suffix}"]
    with pytest.raises(InputError, match=r"000003.*: cannot be read .*; repair or remove it"):
        texts_of(corpora[0], slices[0])
    assert len(texts_of(corpora[1], slices[1])) == 39


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz"])
@pytest.mark.parametrize("whole_bytes", [0, 2**23])
def test_an_outage_is_never_taken_for_a_damaged_file(monkeypatch, suffix, whole_bytes):
    """Whichever read meets it: no row may be lost because storage gave no answer."""
    monkeypatch.setattr(file_bytes, "WHOLE_FILE_BYTES", whole_bytes)
    rng = random.Random(0)
    rows = [{"text": "".join(rng.choices("abcdefgh", k=3000)), "id": n} for n in range(400)]
    content = encode(suffix.removesuffix(".gz"), rows, row_group_size=100)
    content = gzip.compress(content) if suffix.endswith(".gz") else content
    store = FakeStore({f"bucket/a{suffix}": content}).install(monkeypatch)
    corpus = open_store(skip=True)
    store.requests.clear()
    assert texts_of(corpus, corpus.plan_slices()) == [row["text"] for row in rows]
    num_reads = store.count("read")
    for before in range(num_reads):
        store.outage, store.num_reads_before_outage = StorageError("s3://bucket: gone"), before
        with pytest.raises(StorageError, match="s3://bucket: gone"):
            texts_of(corpus, corpus.plan_slices())
    store.num_reads_before_outage = num_reads
    assert len(texts_of(corpus, corpus.plan_slices())) == len(rows)


def test_all_ranges_of_a_file_that_does_not_fit_are_left_out(monkeypatch):
    """Each of them looks at the beginning of the file."""
    rows = [{"text": [row], "padding": "x" * 50} for row in range(40)]
    make_store(monkeypatch, ".jsonl", middle=encode(".jsonl", rows))
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 500)
    corpus = open_store(skip=True)
    pieces = [piece for piece in pieces_of(corpus) if "000003" in piece.path]
    assert len(pieces) > 4
    reads = list(read_pieces(corpus.reader, pieces, chunk_bytes=2**20))
    assert all(read.skipped for read in reads)
    with pytest.raises(UnfitFileError):
        corpus.reader.read(
            pieces[-1].path, start=pieces[-1].start, stop=None, max_rows=None, chunk_bytes=9
        )


def test_a_later_file_without_values_fits_every_type(monkeypatch):
    nothing = encode(".jsonl", [{"text": "none", "id": None}])
    make_store(monkeypatch, ".jsonl", middle=nothing)
    corpus = open_store()
    [read] = read_pieces(corpus.reader, [pieces_of(corpus)[MIDDLE]], chunk_bytes=2**20)
    assert read.rows.kept.to_pydict() == {"id": [None]}
    assert read.rest is None


def test_seconds_of_a_read_are_those_of_a_core(monkeypatch):
    make_store(monkeypatch, ".jsonl")
    corpus = open_store()
    pieces = pieces_of(corpus)
    for read in read_pieces(corpus.reader, pieces, chunk_bytes=2**20):
        assert 0 < read.cpu_s < 5
    clock = SimpleNamespace(thread_time=iter([100.0, 100.5]).__next__)
    monkeypatch.setattr(fastformers.cluster.corpus.reading, "time", clock)
    [read] = read_pieces(corpus.reader, pieces[:1], chunk_bytes=2**20)
    assert read.cpu_s == 0.5


def make_dense_files(monkeypatch):
    """Three small files of forty long rows each, and their rows."""
    rows = [
        [{"text": f"{file} {row} " + "x" * 90, "id": row} for row in range(40)] for file in "abc"
    ]
    content = {f"bucket/{n}.jsonl.gz": encode(".jsonl", file) for n, file in enumerate(rows)}
    FakeStore({path: gzip.compress(text) for path, text in content.items()}).install(monkeypatch)
    return rows


def test_what_is_read_ahead_is_no_more_than_one_piece_and_its_rest_follows_it(monkeypatch):
    """Small compressed files may hold far more text than their sizes promise."""
    rows = make_dense_files(monkeypatch)
    corpus = open_store()
    for least_bytes, ahead in ((500, 5), (100, 1)):
        monkeypatch.setattr(fastformers.cluster.corpus.reading, "_MIN_AHEAD_BYTES", least_bytes)
        reads = list(read_pieces(corpus.reader, pieces_of(corpus), chunk_bytes=1600))
        assert {read.rows.num_rows for read in reads if read.is_ahead} == {ahead}
    every = [row["text"] for file in rows for row in file]
    assert [text for read in reads for text in read.rows.texts[0]] == every
    assert [read.is_ahead for read in reads] == [True, False, False, False] * 3
    assert max(read.rows.num_rows for read in reads) == 14


def test_a_slice_is_read_in_several_turns_and_none_of_them_is_large(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.reading, "_MIN_AHEAD_BYTES", 100)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 1600)
    rows = make_dense_files(monkeypatch)
    corpus = open_store()
    [slice_] = corpus.plan_slices()
    prepare = preparation.Preparation(
        directory=None, reader=corpus.reader, cost_profile=None, shard_seconds=1.0
    )
    left, found, turns = slice_.pieces, [], []
    while left:
        read = prepare._read(replace(slice_, pieces=left))
        assert sum(num_rows for _, num_rows in read.spans) == len(read.rows.texts[0])
        found += read.rows.texts[0]
        turns.append(len(read.rows.texts[0]))
        left = read.left
    assert found == [row["text"] for file in rows for row in file]
    assert max(turns) < 40
