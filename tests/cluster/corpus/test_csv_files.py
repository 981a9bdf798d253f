import csv
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.cluster.shards import preparation
from fastformers.errors import InputError
from fastformers.formats import file_set
from tests.cluster.corpus.open_file import open_file
from tests.cluster.corpus.round_trip import SAMPLE, check_round_trip, encode_csv, rows, sizes

BOM = b"\xef\xbb\xbf"


@settings(deadline=None)
@given(rows, sizes, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_csv_comes_back(read_corpus, rows, size, lineterminator, has_bom, is_compressed):
    # csv.writer leaves a lone "\r" bare unless lines end in "\r\n"
    quoting = csv.QUOTE_MINIMAL if lineterminator == "\r\n" else csv.QUOTE_ALL
    content = encode_csv(rows, lineterminator=lineterminator, quoting=quoting)
    header, _, body = content.partition(b"\n")
    if has_bom:  # a BOM before a quote has its own test
        content = BOM + header.replace(b'"', b"") + b"\n" + body
    if is_compressed:
        check_round_trip(read_corpus, "a.csv.gz", gzip.compress(content), rows, size, id_type=str)
    else:
        check_round_trip(read_corpus, "a.csv", content, rows, size, id_type=str)


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_csv_is_cut_at_every_byte(read_corpus, ending):
    content = encode_csv(SAMPLE, lineterminator=ending or "\n")
    content = content if ending else content.removesuffix(b"\n")
    for size in range(1, len(content) + 2):
        check_round_trip(read_corpus, "a.csv", content, SAMPLE, size, id_type=str)


def test_csv_is_read_in_chunks(tmp_path, write_rows, read_slices, monkeypatch):
    path = write_rows(tmp_path / "a.csv", [{"text": "x" * 98} for _ in range(10)])
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 250)  # a row takes 101 bytes
    assert [len(rows.texts[0]) for rows in read_slices(open_file(path))] == [3, 3, 3, 1]


def test_a_bom_before_a_quoted_header(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(BOM + encode_csv([{"text": "one", "id": 1}]))
    assert read_corpus(open_file(tmp_path / "a.csv")).texts == ["one"]


def test_a_bare_carriage_return_belongs_to_its_field(tmp_path, read_corpus):
    """pandas writes one without quotes."""
    (tmp_path / "a.csv").write_bytes(b'text,k\none,1\nt\rwo,2\r\n"a\rb\r\nc",\r3\nend,4\n')
    read = read_corpus(open_file(tmp_path / "a.csv", keep=("k",)))
    assert read.texts == ["one", "t\rwo", "a\rb\r\nc", "end"]
    assert read.kept == {"k": ["1", "2", "\r3", "4"]}
    assert read.errors == {}


def test_a_csv_file_with_carriage_returns_only_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,k\rone,1\rtwo,2\r")
    with pytest.raises(InputError, match=r"a\.csv"):
        open_file(tmp_path / "a.csv")


@pytest.mark.parametrize("size", [1, 2**24])
def test_a_quoted_field_that_is_never_closed_is_one_bad_row(
    tmp_path, read_corpus, monkeypatch, size
):
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", size)
    (tmp_path / "a.csv").write_bytes(b'text,k\none,1\n"two,2\nthree,3\n')
    read = read_corpus(open_file(tmp_path / "a.csv"))
    assert (read.texts, read.errors) == (
        ["one", "", "three"],
        {1: "not CSV: unexpected end of data, in '\"two,2'"},
    )


def test_an_undecodable_kept_csv_value_is_repaired(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"text,k\none,\xff\ntwo,2\n")
    read = read_corpus(open_file(tmp_path / "a.csv", keep=("k",)))
    assert (read.texts, read.errors) == (["one", "two"], {})
    assert read.kept == {"k": ["\ufffd", "2"]}


def test_an_undecodable_name_of_a_column_is_repaired(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"text,cat\xe9gorie\none,1\n")
    read = read_corpus(open_file(tmp_path / "a.csv", keep=("*",)))
    assert read.kept == {"text": ["one"], "cat\ufffdgorie": ["1"]}


def test_a_column_that_a_later_file_has_twice_is_refused_there(tmp_path, read_corpus, monkeypatch):
    monkeypatch.setattr(file_set, "SAMPLE_FILES", 1)
    (tmp_path / "a.csv").write_bytes(b"text,k\none,1\n")
    (tmp_path / "b.csv").write_bytes(b"text,k,k\ntwo,2,3\n")
    corpus = open_file(tmp_path, keep=("k",))
    with pytest.raises(InputError, match=r"b\.csv: two columns are called 'k' \(--keep-columns\)"):
        read_corpus(corpus)
