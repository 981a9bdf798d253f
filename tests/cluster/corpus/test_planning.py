"""Planning by the listing: what it asks of storage, however many files there are."""

import io
import itertools
import json
import random

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastformers.cluster.corpus.slices
from fastformers.cluster.corpus.reading import read_all
from fastformers.cluster.corpus.slices import Piece, open_corpus
from fastformers.errors import InputError
from fastformers.files import file_bytes
from fastformers.formats import row_groups
from fastformers.formats.file_set import SAMPLE_FILES
from fastformers.formats.readers import ReadOptions
from tests.cluster.corpus.fake_store import FakeStore


def encode(suffix, rows, *, row_group_size=3):
    if suffix == ".parquet":
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink, row_group_size=row_group_size)
        return sink.getvalue()
    if suffix == ".csv":
        names = list(rows[0])
        lines = [",".join(str(row[name]) for name in names) for row in rows]
        return "\n".join([",".join(names), *lines, ""]).encode()
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def open_store(*, keep=(), skip=False, text=("text",)):
    return open_corpus(
        "bucket", text_columns=text, keep_columns=keep, options=ReadOptions(skip_unreadable=skip)
    )


@pytest.fixture(params=[".parquet", ".jsonl", ".csv"])
def suffix(request):
    return request.param


@pytest.fixture
def make_store(monkeypatch):
    """Makes a store of files of two rows: `make_store(suffix, 100)`; others by their number."""

    def make(suffix, num_files, others=()):
        files = {
            f"bucket/{number:06d}{suffix}": encode(
                suffix, [{"text": f"{number} {row}", "id": number} for row in range(2)]
            )
            for number in range(num_files)
        }
        files |= {
            f"bucket/{number:06d}{suffix}": content for number, content in dict(others).items()
        }
        return FakeStore(files).install(monkeypatch)

    return make


def texts_of(corpus, slices):
    return [
        text
        for slice_ in slices
        for rows in read_all(corpus.reader, slice_.pieces, chunk_bytes=2**20)
        for text in rows.texts[0]
    ]


@pytest.mark.parametrize("num_files", [1, 40, 400])
def test_planning_asks_for_one_listing_and_opens_a_few_files(make_store, suffix, num_files):
    store = make_store(suffix, num_files)
    corpus = open_store(keep=("id",))
    slices = corpus.plan_slices()
    assert (store.count("list"), store.count("info")) == (1, 0)
    assert store.count("open") == min(num_files, 16)
    assert store.count("read") == store.count("open")  # each of them fetched whole
    opened = {path for kind, path in store.requests if kind == "open"}
    assert corpus.files[0].path in opened
    assert {piece.path for slice_ in slices for piece in slice_.pieces} == set(store.files)


def test_a_hundred_thousand_files_are_planned_without_opening_them(monkeypatch, suffix):
    content = encode(suffix, [{"text": "a cat"}])
    names = [f"bucket/{number % 7}/{number:06d}{suffix}" for number in range(100_000)]
    store = FakeStore({names[0]: content}, dict.fromkeys(names, 10_000)).install(monkeypatch)
    places = sorted(names)
    store.files |= {places[n * 100_000 // SAMPLE_FILES]: content for n in range(SAMPLE_FILES)}
    corpus = open_store()
    slices = corpus.plan_slices()
    assert len(store.requests) == 1 + 2 * SAMPLE_FILES
    pieces = [piece for slice_ in slices for piece in slice_.pieces]
    assert [piece.path for piece in pieces] == places
    assert {(piece.start, piece.stop, piece.max_rows) for piece in pieces} == {(0, None, None)}
    assert {len(slice_.pieces) for slice_ in slices[:-1]} == {256}


@pytest.mark.parametrize(("num_files", "files_of_a_slice"), [(40, 16), (2000, 31), (20_000, 256)])
def test_a_slice_has_few_files_where_there_are_few(monkeypatch, num_files, files_of_a_slice):
    names = [f"bucket/{number:06d}.jsonl" for number in range(num_files)]
    content = encode(".jsonl", [{"text": "a cat"}])
    FakeStore(dict.fromkeys(names, content)).install(monkeypatch)
    sizes = [len(slice_.pieces) for slice_ in open_store().plan_slices()]
    assert sizes[0] == max(sizes) == files_of_a_slice
    assert sum(sizes) == num_files


def test_many_tiny_files_come_back_in_order(make_store, suffix):
    store = make_store(suffix, 300)
    corpus = open_store()
    slices = corpus.plan_slices()
    store.requests.clear()
    assert texts_of(corpus, slices) == [
        f"{number} {row}" for number in range(300) for row in (0, 1)
    ]
    assert store.count("open") == store.count("read") == 300


@pytest.mark.parametrize("limit", [1, 2, 3, 15, 16, 17, 79, 80, 81])
def test_a_limit_opens_only_the_files_that_it_needs(make_store, suffix, limit):
    store = make_store(suffix, 40)
    corpus = open_store()
    store.requests.clear()
    slices = corpus.plan_slices(limit=limit)
    needed = min(40, -(-limit // 2))
    assert needed <= store.count("open") < max(2, 2 * needed + 1)
    assert len({piece.path for slice_ in slices for piece in slice_.pieces}) == needed
    every = [f"{number} {row}" for number in range(40) for row in (0, 1)]
    assert texts_of(corpus, slices) == every[:limit]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("limit", [1, 10, 55, 90, 99])
def test_the_rows_of_a_limit_are_cut_for_several_actors(make_store, monkeypatch, suffix, limit):
    """A slice holds no more of them than a slice of the whole corpus does."""
    rows = [{"text": f"{row} " + "x" * 200} for row in range(99)]
    content = encode(suffix, rows, row_group_size=5)
    make_store(suffix, 0, {0: content})
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 2500)
    corpus = open_store()
    slices = corpus.plan_slices(limit=limit)
    assert (len(slices) > 1) == (limit > 50 or (suffix == ".jsonl" and limit >= 12))
    assert texts_of(corpus, slices) == [row["text"] for row in rows[:limit]]
    every = {(piece.start, piece.stop) for s in corpus.plan_slices() for piece in s.pieces}
    for piece in [piece for slice_ in slices for piece in slice_.pieces]:
        assert piece.max_rows <= 30
        assert suffix == ".jsonl" or (piece.start, piece.stop) in every


@pytest.mark.parametrize("limit", [None, 10, 78, 100])
def test_a_file_that_does_not_fit_has_no_rows_and_no_part_in_a_limit(make_store, suffix, limit):
    other = encode(suffix, [{"body": "text"}] * 5)
    make_store(suffix, 40, {3: other})
    corpus = open_store(skip=True)
    every = [f"{number} {row}" for number in range(40) if number != 3 for row in (0, 1)]
    assert texts_of(corpus, corpus.plan_slices(limit=limit)) == every[:limit]


def test_a_file_that_does_not_fit_ends_the_counting_of_a_limit(make_store, suffix):
    make_store(suffix, 40, {3: encode(suffix, [{"body": "text"}])})
    corpus = open_store()
    corpus.plan_slices(limit=6)
    with pytest.raises(InputError, match=r"000003.*: no column 'text' .*; it has body; repair or"):
        corpus.plan_slices(limit=7)


def test_a_column_that_no_opened_file_has_is_taken_for_misspelled(make_store, suffix):
    """The corpus is not searched for a file that has it, and no file is left out for it."""
    store = make_store(suffix, 200)
    for skip in (False, True):
        with pytest.raises(InputError, match=r"no column 'txt' \(--text-column.*; it has .*id$"):
            open_store(text=("txt",), skip=skip)
    assert store.count("open") == 2 * SAMPLE_FILES


def test_files_without_rows_are_passed_until_one_has_some(make_store, suffix):
    """Even where all the files that are opened first are empty."""
    empty = {
        ".parquet": _empty_parquet(),
        ".jsonl": b"\n",
        ".csv": b"text,id\n",
    }[suffix]
    make_store(suffix, 200, {n: empty for n in range(200) if n != 150})
    corpus = open_store()
    assert texts_of(corpus, corpus.plan_slices()) == ["150 0", "150 1"]
    make_store(suffix, 200, dict.fromkeys(range(200), empty))
    with pytest.raises(InputError, match=r"^bucket: the corpus is empty$"):
        open_store()


def _empty_parquet():
    sink = io.BytesIO()
    schema = pa.schema([("text", pa.string()), ("id", pa.int64())])
    pyarrow.parquet.write_table(schema.empty_table(), sink)
    return sink.getvalue()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_kept_column_takes_its_type_from_the_first_file_that_has_values(make_store, suffix):
    nothing = encode(suffix, [{"text": "none", "id": None}])
    make_store(suffix, 4, {0: nothing, 2: nothing})
    corpus = open_store(keep=("id",))
    assert corpus.reader.kept_schema == pa.schema([("id", pa.int64())])
    reads = [
        rows.kept.to_pydict()["id"]
        for slice_ in corpus.plan_slices()
        for rows in read_all(corpus.reader, slice_.pieces, chunk_bytes=2**20)
    ]
    assert reads == [[None], [1, 1], [None], [3, 3]]


@settings(deadline=None)
@given(
    st.lists(st.text("abc ", min_size=1, max_size=40), min_size=1, max_size=40),
    st.integers(1, 9),
    st.lists(st.integers(0, 6000), max_size=6),
    st.sampled_from([1, 200, 2**24]),
)
def test_byte_ranges_cover_each_row_group_once_and_in_order(texts, group_size, cuts, chunk_bytes):
    """Wherever the ranges are cut: the groups that begin in one are read with it."""
    content = encode(".parquet", [{"text": f"x{t}"} for t in texts], row_group_size=group_size)
    with pytest.MonkeyPatch.context() as patch:
        store = FakeStore({"bucket/a.parquet": content}).install(patch)
        corpus = open_store()
        edges = [0, *sorted(set(cuts) - {0}), None]
        pieces = [
            Piece(path="bucket/a.parquet", start=start, stop=stop)
            for start, stop in itertools.pairwise(edges)
        ]
        found = [
            text
            for rows in read_all(corpus.reader, pieces, chunk_bytes=chunk_bytes)
            for text in rows.texts[0]
        ]
        assert store.count("list") == 1
    assert found == [f"x{t}" for t in texts]


def test_row_groups_without_usable_offsets_keep_their_order():
    """Some writers leave out offsets, or lay the groups out in another order."""

    class Column:
        def __init__(self, dictionary, pages):
            self.dictionary_page_offset, self.data_page_offset = dictionary, pages

        def column(self, number):
            return self

    class Metadata:
        num_row_groups = 5

        def row_group(self, number):
            return [
                Column(4, 40),
                Column(None, 300),
                Column(0, 100),
                Column(900, 950),
                Column(500, 0),
            ][number]

    starts = row_groups.group_starts(Metadata())
    assert starts == [4, 300, 300, 900, 900]
    ranges = [
        row_groups.groups_between(starts, *bounds) for bounds in [(0, 300), (300, 900), (900, None)]
    ]
    assert ranges == [range(1), range(1, 3), range(3, 5)]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 12345])
@pytest.mark.parametrize("slice_bytes", [1, 8, 1000, 2**24])
def test_a_file_is_cut_into_equal_parts_up_to_its_end(monkeypatch, size, slice_bytes):
    FakeStore({"bucket/a.jsonl": b'{"text": "a"}\n'}).install(monkeypatch)
    reader = open_store().reader
    found = list(reader.cut_file("bucket/b.jsonl", size, slice_bytes))
    assert len(found) == -(-size // slice_bytes)
    assert [part.start for part in found] == [0, *(part.stop for part in found[:-1])][: len(found)]
    assert sum(part.num_bytes for part in found) == size
    assert max((part.num_bytes for part in found), default=0) <= slice_bytes
    assert [part.stop for part in found[-1:]] == [None] * min(1, size)


def test_a_large_file_is_read_at_its_ranges(make_store, monkeypatch):
    """Planning reads one footer at most; each slice reads it again, and its own row groups."""
    rng = random.Random(0)
    rows = [{"text": f"{row} " + "".join(rng.choices("abcdefgh", k=300))} for row in range(3000)]
    content = encode(".parquet", rows, row_group_size=150)
    store = make_store(".parquet", 0, {0: content})
    monkeypatch.setattr(file_bytes, "WHOLE_FILE_BYTES", len(content) - 1)
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", len(content) // 2 + 1)
    corpus = open_store()
    slices = corpus.plan_slices()
    assert (len(slices), store.count("open")) == (4, 1)
    store.num_bytes = 0
    groups = [texts_of(corpus, [slice_]) for slice_ in slices]
    assert [text for group in groups for text in group] == [row["text"] for row in rows]
    assert all(groups)
    assert store.num_bytes < 1.5 * len(content)
