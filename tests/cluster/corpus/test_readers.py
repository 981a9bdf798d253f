"""What every format does alike, and what each makes of rows that are not text."""

import itertools

import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
from fastformers.cluster.shards import preparation
from fastformers.errors import InputError
from fastformers.formats.recognize import FORMATS
from tests.cluster.corpus.open_file import open_file
from tests.fastformers.formats.files import binary_as_text


def write_bad_parquet(path):
    table = pa.table({"text": binary_as_text([b"good", None, b"", b" \t\n", b"bad \xff", b"end"])})
    pyarrow.parquet.write_table(table, path, row_group_size=4)


def write_bad_json(path):
    lines = [
        b'{"text": "good"}',
        b'{"text": null}',
        b'{"text": ""}',
        b'{"text": " \\t\\n\\u3000"}',
        b'{"text": "bad \xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": 3}',
        b'{"text": ["a"]}',
        b'{"other": "a"}',
        b"text",
        b'{"text": "cut',
        b'["text"]',
        b'"text"',
        b"null",
        b'{"text": ' + b"[" * 100_000,
        b'{"text": "a", "k": ' + b"1" * 5000 + b"}",
        b'{"text": "end"}',
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")


def write_bad_csv(path):
    lines = [
        b"text,k",
        b"good,1",
        b",1",
        b'" \t",1',
        b"bad \xff,1",
        b"few",
        b"a,lot,more",
        b"end,1",
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize(
    ("name", "write", "reasons"),
    [
        (
            "a.parquet",
            write_bad_parquet,
            ["null text", "empty text", "empty text", "invalid UTF-8"],
        ),
        (
            "a.jsonl",
            write_bad_json,
            [
                *("null text", "empty text", "empty text", "invalid UTF-8", "invalid UTF-8"),
                *("int, not text", "list, not text", "null text", "not JSON", "not JSON"),
                *("not a JSON object but list", "not a JSON object but str"),
                *("not a JSON object but NoneType", "not JSON", "not JSON"),
            ],
        ),
        (
            "a.csv",
            write_bad_csv,
            [
                *("empty text", "empty text", "invalid UTF-8"),
                *("1 fields, but the header has 2", "3 fields, but the header has 2"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("size", [40, 2**24])
def test_bad_rows_keep_their_place_with_a_reason(
    tmp_path, read_corpus, read_slices, monkeypatch, name, write, reasons, size
):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", size)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", size)
    write(tmp_path / name)
    corpus = open_file(tmp_path / name)
    read = read_corpus(corpus)
    assert read.texts == ["good", *[""] * len(reasons), "end"]
    assert sorted(read.errors) == list(range(1, len(reasons) + 1))
    for row, expected in enumerate(reasons, 1):
        assert expected in read.errors[row]
        read.errors[row].encode()  # can be written to Parquet
    for rows in read_slices(corpus):
        assert all(rows.texts[0][row] == "" for row in rows.errors)


def test_either_text_of_a_pair_may_be_bad(tmp_path, write_rows, read_slices):
    path = write_rows(tmp_path / "a.jsonl", [{"a": "one", "b": "two"}, {"a": "one", "b": None}])
    [rows] = read_slices(open_file(path, text=("a", "b")))
    assert rows.texts == (["one", ""], ["two", ""])
    assert rows.errors == {1: "column 'b': null text"}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_text_of_five_megabytes(tmp_path, write_rows, read_corpus, suffix, place):
    rows = [{"text": "short"}, {"text": "end"}]
    rows.insert(place, {"text": "long " * 1_000_000})
    path = write_rows(tmp_path / f"a{suffix}", rows)
    read = read_corpus(open_file(path))
    assert (read.texts, read.errors) == ([row["text"] for row in rows], {})


def test_a_kept_column_may_be_the_text_itself(tmp_path, write_rows, read_corpus):
    for suffix in (".parquet", ".jsonl", ".csv"):
        path = write_rows(tmp_path / f"a{suffix}", [{"text": "one"}, {"text": " "}])
        read = read_corpus(open_file(path, keep=("text",)))
        assert (read.texts, read.kept) == (["one", ""], {"text": ["one", " "]})


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("num_spans", [1, 4, 23])
def test_spans_that_tile_a_file_hold_each_of_its_rows_once(tmp_path, write_rows, suffix, num_spans):
    texts = [f"text {row}" for row in range(200)]
    path = write_rows(tmp_path / f"a{suffix}", [{"id": "x", "text": t} for t in texts])
    reader = open_file(path).reader
    size = reader.measure_file(str(path), path.stat().st_size)
    assert size == (200 if reader.sampled_in_rows else path.stat().st_size)
    assert not reader.is_read_whole(str(path))
    edges = [size * mark // num_spans for mark in range(num_spans + 1)]
    spans = [
        reader.sample_span(str(path), start, stop) for start, stop in itertools.pairwise(edges)
    ]
    assert [text for span in spans for text in span.texts[0]] == texts
    assert all(span.texts[0] for span in spans)
    assert not any(span.is_beginning for span in spans)


def test_every_format_is_named_to_who_gives_another(tmp_path):
    (tmp_path / "a.xml").write_text("<text/>")
    for path in (tmp_path, tmp_path / "a.xml"):
        with pytest.raises(InputError) as refused:
            open_file(path)
        assert all(suffix in str(refused.value) for suffix in FORMATS)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_damaged_file_is_refused_or_passed_over(tmp_path, write_rows, suffix):
    write_rows(tmp_path / f"a{suffix}", [{"text": "good"}])
    (tmp_path / f"b{suffix}").write_bytes(b'"text\rk' * 3 + b"\r")
    with pytest.raises(InputError, match=r"cannot be read .*--skip-unreadable-files"):
        open_file(tmp_path)
    assert list(open_file(tmp_path, skip=True).skipped) == [str(tmp_path / f"b{suffix}")]
