"""What JSON lines and CSV files have in common: compression, blank lines, limits."""

import gzip
import pathlib
import random

import pytest

import fastformers.cluster.corpus.slices
from fastformers.cluster.shards import preparation
from fastformers.errors import InputError
from fastformers.formats import text_lines
from tests.cluster.corpus.open_file import open_file


@pytest.fixture
def encode(tmp_path, write_rows):
    """Bytes of a file of some rows."""
    return lambda name, rows: write_rows(tmp_path / "encoded" / name, rows).read_bytes()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
def test_a_compressed_file_of_several_members(tmp_path, read_corpus, encode, name):
    content = encode(name.removesuffix(".gz"), [{"text": "one"}, {"text": "two"}])
    parts = content[:-6], content[-6:]
    (tmp_path / name).write_bytes(b"".join(gzip.compress(part) for part in parts))
    assert read_corpus(open_file(tmp_path / name)).texts == ["one", "two"]


@pytest.mark.parametrize("name", ["A.JSONL.GZ", "A.CSV.GZ"])
def test_suffixes_in_capitals(tmp_path, read_corpus, encode, name):
    (tmp_path / name).write_bytes(encode(name.lower(), [{"text": "one"}]))
    assert read_corpus(open_file(tmp_path / name)).texts == ["one"]


@pytest.fixture(params=["a.jsonl.gz", "a.csv.gz"])
def cut_off(tmp_path, encode, request):
    """A compressed file without its end, which is noticed only while it is read."""
    rows = [{"text": f"{row} " + "x" * 100} for row in range(30_000)]
    (tmp_path / request.param).write_bytes(encode(request.param, rows)[:-1000])
    return tmp_path / request.param


@pytest.mark.parametrize("limit", [None, 100_000])
def test_a_compressed_file_that_ends_too_early_is_named(cut_off, read_corpus, limit):
    with pytest.raises(InputError, match=cut_off.name):
        read_corpus(open_file(cut_off), limit=limit)


@pytest.mark.parametrize("limit", [None, 100_000])
def test_what_can_be_read_of_a_compressed_file_is_read_if_told(cut_off, read_corpus, limit):
    read = read_corpus(open_file(cut_off, skip=True), limit=limit)
    assert len(read.texts) > 1000
    assert list(read.errors) == [len(read.texts) - 1]
    assert "cannot be read from here on" in read.errors[len(read.texts) - 1]


def test_the_start_of_a_file_that_ends_too_early_is_enough_for_a_limit(cut_off, read_corpus):
    assert read_corpus(open_file(cut_off), limit=5).texts[4].startswith("4 xx")


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("size", [1, 2**24])
def test_a_limit_counts_rows_and_not_lines(tmp_path, read_corpus, monkeypatch, limit, size):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", size)
    (tmp_path / "a.csv").write_bytes(b'text\none\n\n"tw\no"\nt\rhree\nfour\n')
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "one"}\n\n{"text": "tw\\no"}\n3\n{"text": "four"}'
    )
    for name in ("a.csv", "a.jsonl"):
        read = read_corpus(open_file(tmp_path / name), limit=limit)
        third = "t\rhree" if name.endswith(".csv") else ""
        assert read.texts == ["one", "tw\no", third, "four"][:limit]


def test_blank_lines_are_no_rows(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"\n\ntext\none\n\ntwo\n\n")
    (tmp_path / "a.jsonl").write_bytes(b'\n{"text": "one"}\n \n{"text": "two"}\n\n')
    for name in ("a.csv", "a.jsonl"):
        read = read_corpus(open_file(tmp_path / name))
        assert (read.texts, read.errors) == (["one", "two"], {})


@pytest.mark.parametrize("size", [1, 2**24])
def test_a_record_that_lacks_a_column_has_that_of_its_directory(
    tmp_path, write_rows, read_corpus, monkeypatch, size
):
    """Whichever records are read with it; null is a value of its own."""
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", size)
    rows = [{"text": "a", "k": "own"}, {"text": "b"}, {"text": "c", "k": None}, {"text": "d"}]
    write_rows(tmp_path / "k=1" / "a.jsonl", rows)
    assert read_corpus(open_file(tmp_path, keep=("k",))).kept == {"k": ["own", "1", None, "1"]}


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "b.jsonl", "b.csv"])
def test_a_sample_of_a_file_read_in_order_is_its_beginning(tmp_path, write_rows, monkeypatch, name):
    """Whatever span is asked for; where it is not the whole file, its share of it is said."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh", k=300)) for _ in range(5000)]
    path = write_rows(
        tmp_path / f"a{pathlib.Path(name[1:].removesuffix('.gz'))}.gz", [{"text": t} for t in texts]
    )
    path = path.rename(tmp_path / name)
    size_bytes, reader = path.stat().st_size, open_file(path).reader
    assert reader.is_read_whole(str(path)) == name.endswith(".gz")
    whole = reader.sample_span(str(path), size_bytes - 1, size_bytes)
    assert whole.texts == (texts,)
    assert whole.size == size_bytes
    monkeypatch.setattr(text_lines, "MAX_SAMPLE_BYTES", 600_000)
    part = reader.sample_span(str(path), size_bytes - 1, size_bytes)
    assert 1000 < len(part.texts[0]) < 2500
    assert part.texts[0] == texts[: len(part.texts[0])]
    assert 0.2 < part.size / size_bytes < 0.9
    monkeypatch.setattr(text_lines, "MAX_SAMPLE_BYTES", 1000)
    assert 0 < reader.sample_span(str(path), 0, 1).size <= 2**16
