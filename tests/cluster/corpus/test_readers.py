import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.corpus.slices
from cluster.corpus.slices import open_corpus
from cluster.shards import preparation
from fastformers.errors import InputError

BOM = b"\xef\xbb\xbf"
# NUL: CSV has none, the reader drops it.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
tricky = st.sampled_from(
    ['say "hi"', "a,b", "a\nb", "a\r\nb", "a\rb", "\ufeffa", "a\u2028b\x85c", "é", "😀 ok", '"']
)
rows = st.lists(
    st.fixed_dictionaries({"text": texts | tricky, "id": st.integers(0, 99), "note": texts}),
    min_size=1,
    max_size=12,
)
sizes = st.sampled_from([1, 2, 7, 30, 2**24])


def open_file(path, *, keep=(), text=("text",), skip=False):
    return open_corpus(str(path), text_columns=text, keep_columns=keep, skip_unreadable=skip)


def encode_csv(rows, *, lineterminator="\n", quoting=csv.QUOTE_ALL):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator=lineterminator, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def encode_json(rows, *, newline=b"\n", ensure_ascii=True):
    return b"".join(json.dumps(row, ensure_ascii=ensure_ascii).encode() + newline for row in rows)


def check_same(read, rows, *, id_type=int):
    """What was read is what was written; blank texts are bad rows."""
    assert read.texts == ["" if not row["text"].strip() else row["text"] for row in rows]
    assert set(read.errors) == {i for i, row in enumerate(rows) if not row["text"].strip()}
    assert set(read.errors.values()) <= {"column 'text': empty text"}
    assert read.kept == {
        "id": [id_type(row["id"]) for row in rows],
        "note": [row["note"] for row in rows],
    }


def check_round_trip(read_corpus, name, content, rows, size, **kinds):
    """Write, open and read with slices and chunks of a size."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.corpus.slices, "MAX_SLICE_BYTES", size)
        patch.setattr(preparation, "READ_CHUNK_BYTES", size)
        path = Path(folder) / name
        path.write_bytes(content)
        check_same(read_corpus(open_file(path, keep=("id", "note"))), rows, **kinds)


@settings(deadline=None)
@given(rows, st.integers(1, 5), sizes)
def test_parquet_comes_back(read_corpus, rows, row_group_size, size):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink, row_group_size=row_group_size)
    check_round_trip(read_corpus, "a.parquet", sink.getvalue(), rows, size)


@settings(deadline=None)
@given(rows, sizes, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans())
def test_json_lines_come_back(read_corpus, rows, size, newline, ensure_ascii, is_compressed):
    content = encode_json(rows, newline=newline, ensure_ascii=ensure_ascii)
    if is_compressed:
        check_round_trip(read_corpus, "a.jsonl.gz", gzip.compress(content), rows, size)
    else:
        check_round_trip(read_corpus, "a.jsonl", content, rows, size)


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


SAMPLE = [
    {"text": 'first "one", quoted', "id": 0, "note": ""},
    {"text": "line\nbreak", "id": 1, "note": "é\r\n"},
    {"text": "", "id": 2, "note": '"'},
    {"text": "😀" * 5, "id": 3, "note": "x" * 40},
    {"text": "last", "id": 4, "note": "\n\n"},
]


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_json_lines_are_cut_at_every_byte(read_corpus, ending):
    newline = ending.encode() or b"\n"
    content = encode_json(SAMPLE, newline=newline, ensure_ascii=False)
    content = content if ending else content.removesuffix(newline)
    for size in range(1, len(content) + 2):
        check_round_trip(read_corpus, "a.jsonl", content, SAMPLE, size)


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_csv_is_cut_at_every_byte(read_corpus, ending):
    content = encode_csv(SAMPLE, lineterminator=ending or "\n")
    content = content if ending else content.removesuffix(b"\n")
    for size in range(1, len(content) + 2):
        check_round_trip(read_corpus, "a.csv", content, SAMPLE, size, id_type=str)


def binary_as_text(values):
    """Strings that Arrow did not check."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


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
    monkeypatch.setattr(cluster.corpus.slices, "MAX_SLICE_BYTES", size)
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


def test_a_damaged_row_group_is_named_or_its_rows_are_bad(tmp_path, read_corpus):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {row}" for row in range(6)], "id": list(range(6))})
    pyarrow.parquet.write_table(table, path, row_group_size=2, compression="zstd")
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"a\.parquet: row groups 1-1 cannot be read"):
        read_corpus(open_file(path, keep=("id",)))
    read = read_corpus(open_file(path, keep=("id",), skip=True))
    assert read.texts == ["text 0", "text 1", "", "", "text 4", "text 5"]
    assert list(read.errors) == [2, 3]
    assert all("unreadable row group" in reason for reason in read.errors.values())
    assert read.kept == {"id": [0, 1, None, None, 4, 5]}


def test_kept_columns_of_any_parquet_type(tmp_path, read_slices, odd_columns):
    for number in range(2):
        table = odd_columns.append_column("text", [[f"row {n}" for n in range(len(odd_columns))]])
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=2)
    corpus = open_file(tmp_path, keep=tuple(odd_columns.column_names))
    kept = pa.concat_tables([rows.kept for rows in read_slices(corpus)])
    assert kept.schema.types == odd_columns.schema.types
    assert kept.to_pylist() == odd_columns.to_pylist() * 2


def test_a_kept_column_may_be_the_text_itself(tmp_path, write_rows, read_corpus):
    for suffix in (".parquet", ".jsonl", ".csv"):
        path = write_rows(tmp_path / f"a{suffix}", [{"text": "one"}, {"text": " "}])
        read = read_corpus(open_file(path, keep=("text",)))
        assert (read.texts, read.kept) == (["one", ""], {"text": ["one", " "]})
