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

import cluster.corpus
from cluster import prepared, text_formats
from cluster.corpus import open_corpus
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
        patch.setattr(cluster.corpus, "SLICE_BYTES", size)
        patch.setattr(prepared, "READ_CHUNK_BYTES", size)
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


def test_csv_is_read_in_chunks(tmp_path, write_rows, read_slices, monkeypatch):
    path = write_rows(tmp_path / "a.csv", [{"text": "x" * 98} for _ in range(10)])
    monkeypatch.setattr(prepared, "READ_CHUNK_BYTES", 250)  # a row takes 101 bytes
    assert [len(rows.texts[0]) for rows in read_slices(open_file(path))] == [3, 3, 3, 1]


def test_a_byte_range_in_the_middle_of_a_line_has_no_rows(
    tmp_path, write_rows, read_slices, monkeypatch
):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "x" * 1000}, {"text": "y"}])
    monkeypatch.setattr(cluster.corpus, "SLICE_BYTES", 100)
    reads = read_slices(open_file(path))
    assert len(reads) == -(-path.stat().st_size // 100)
    assert [len(rows.texts[0]) for rows in reads if rows.texts[0]] == [1, 1]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
def test_a_compressed_file_of_several_members(tmp_path, read_corpus, name):
    encode = encode_csv if "csv" in name else encode_json
    content = encode([{"text": "one"}, {"text": "two"}])
    parts = content[:-6], content[-6:]
    (tmp_path / name).write_bytes(b"".join(gzip.compress(part) for part in parts))
    assert read_corpus(open_file(tmp_path / name)).texts == ["one", "two"]


@pytest.mark.parametrize("name", ["A.JSONL.GZ", "A.CSV.GZ"])
def test_suffixes_in_capitals(tmp_path, read_corpus, name):
    encode = encode_csv if "CSV" in name else encode_json
    (tmp_path / name).write_bytes(gzip.compress(encode([{"text": "one"}])))
    assert read_corpus(open_file(tmp_path / name)).texts == ["one"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_compressed_file_that_ends_too_early_is_named(tmp_path, read_corpus, suffix):
    """Its first megabyte is whole, so that it is noticed only while it is read."""
    rows = [{"text": f"{row} " + "x" * 100} for row in range(30_000)]
    content = (encode_csv if suffix == "csv" else encode_json)(rows)
    path = tmp_path / f"a.{suffix}.gz"
    path.write_bytes(gzip.compress(content, 1)[:-1000])
    corpus = open_file(path)
    with pytest.raises(InputError, match=rf"a\.{suffix}\.gz"):
        read_corpus(corpus)


def test_a_bom_before_json(tmp_path, read_corpus):
    """Editors of Windows put one there; it is no reason to lose the first row."""
    (tmp_path / "a.jsonl").write_bytes(BOM + encode_json([{"text": "one"}, {"text": "two"}]))
    read = read_corpus(open_file(tmp_path / "a.jsonl"))
    assert (read.texts, read.errors) == (["one", "two"], {})


def test_a_bom_before_a_quoted_header(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(BOM + encode_csv([{"text": "one", "id": 1}]))
    assert read_corpus(open_file(tmp_path / "a.csv")).texts == ["one"]


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
    monkeypatch.setattr(cluster.corpus, "SLICE_BYTES", size)
    monkeypatch.setattr(prepared, "READ_CHUNK_BYTES", size)
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


def test_a_bare_carriage_return_in_csv_spoils_its_row_only(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"text,k\none,1\nt\rwo,2\nthree,3\n")
    read = read_corpus(open_file(tmp_path / "a.csv", keep=("k",)))
    assert len(read.texts) == 3
    assert read.texts[::2] == ["one", "three"]
    assert set(read.errors) <= {1}


def test_blank_lines_are_no_rows(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"\n\ntext\none\n\ntwo\n\n")
    (tmp_path / "a.jsonl").write_bytes(b'\n{"text": "one"}\n \n{"text": "two"}\n\n')
    for name in ("a.csv", "a.jsonl"):
        read = read_corpus(open_file(tmp_path / name))
        assert (read.texts, read.errors) == (["one", "two"], {})


def test_a_json_file_without_any_object_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('[\n  "text"\n]\n')
    with pytest.raises(InputError, match=r"a\.json: no line of its first MiB is a JSON object"):
        open_file(tmp_path)


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


def test_kept_json_values_of_any_kind(tmp_path, write_rows, read_corpus):
    rows = [
        {"text": "a", "flag": True, "number": 1, "real": 1, "list": [1, None], "object": {"x": 1}},
        {"text": "b", "flag": None, "number": -(2**63), "real": 0.5, "list": [], "object": {}},
        {"text": "c"},
    ]
    path = write_rows(tmp_path / "a.jsonl", rows)
    read = read_corpus(open_file(path, keep=("flag", "number", "real", "list", "object")))
    assert read.errors == {}
    assert read.kept == {
        "flag": [True, None, None],
        "number": [1, -(2**63), None],
        "real": [1.0, 0.5, None],
        "list": [[1, None], [], None],
        "object": [{"x": 1}, {"x": None}, None],
    }


@pytest.mark.parametrize(
    ("first", "later", "fits"),
    [
        (1, 2, True),
        (1, None, True),
        (0.5, 2, True),
        ([1], [2, None], True),
        (1, 2.0, True),
        (1, "no", False),
        (1, True, False),
        (1, [1], False),
        (1, 1.5, False),  # not 1
        (1, 10**30, False),
        (0.5, 10**400, False),
        ("yes", 1, False),
        ("yes", "\ud800", False),
        ([1], ["no"], False),
        ([1], [1.5], False),
        ({"x": 1}, {"x": "no"}, False),
        ({"x": 1}, 3, False),
        (True, 1, False),
    ],
)
def test_a_kept_value_that_does_not_fit_makes_its_row_bad(
    tmp_path, write_rows, read_corpus, monkeypatch, first, later, fits
):
    """Types are those of the beginning of the file, here of its first row."""
    rows = [{"k": first, "text": "first"}, {"k": later, "text": "later"}, {"text": "end"}]
    monkeypatch.setattr(text_formats, "_SAMPLE_BYTES", len(encode_json(rows[:1])) - 1)
    path = write_rows(tmp_path / "a.jsonl", rows)
    read = read_corpus(open_file(path, keep=("k",)))
    assert read.kept == {"k": [first, later if fits else None, None]}
    assert read.texts == ["first", "later" if fits else "", "end"]
    assert list(read.errors) == ([] if fits else [1])
    assert all("column 'k'" in reason for reason in read.errors.values())


@pytest.mark.parametrize("value", ["\ud800", 10**30])
def test_a_kept_value_that_no_column_can_hold(tmp_path, write_rows, read_corpus, value):
    """At the beginning of a file it spoils its row, or is refused in words: never a traceback."""
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a", "k": value}, {"text": "b", "k": value}])
    try:
        read = read_corpus(open_file(path, keep=("k",)))
    except InputError as error:
        assert "a.jsonl" in str(error)
    else:
        assert list(read.errors) == [0, 1]


def test_kept_json_values_of_mixed_types_are_refused(tmp_path, write_rows):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a", "k": 1}, {"text": "b", "k": "x"}])
    with pytest.raises(InputError, match=r"a\.jsonl: --keep-columns: mixed types"):
        open_file(path, keep=("k",))


def test_an_undecodable_kept_csv_value_makes_its_row_bad(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"text,k\none,\xff\ntwo,2\n")
    read = read_corpus(open_file(tmp_path / "a.csv", keep=("k",)))
    assert list(read.errors) == [0]
    assert read.kept == {"k": [None, "2"]}
