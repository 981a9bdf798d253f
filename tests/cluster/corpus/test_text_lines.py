import gzip
import json

import pytest

import cluster.corpus.slices
from cluster.corpus import json_lines
from cluster.corpus.slices import open_corpus
from cluster.shards import preparation
from fastformers.errors import InputError

BOM = b"\xef\xbb\xbf"


def open_file(path, *, keep=(), skip=False):
    return open_corpus(str(path), text_columns=("text",), keep_columns=keep, skip_unreadable=skip)


@pytest.fixture
def encode(tmp_path, write_rows):
    """Bytes of a file of some rows."""
    return lambda name, rows: write_rows(tmp_path / "encoded" / name, rows).read_bytes()


def test_csv_is_read_in_chunks(tmp_path, write_rows, read_slices, monkeypatch):
    path = write_rows(tmp_path / "a.csv", [{"text": "x" * 98} for _ in range(10)])
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 250)  # a row takes 101 bytes
    assert [len(rows.texts[0]) for rows in read_slices(open_file(path))] == [3, 3, 3, 1]


def test_a_byte_range_in_the_middle_of_a_line_has_no_rows(
    tmp_path, write_rows, read_slices, monkeypatch
):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "x" * 1000}, {"text": "y"}])
    monkeypatch.setattr(cluster.corpus.slices, "MAX_SLICE_BYTES", 100)
    reads = read_slices(open_file(path))
    assert len(reads) == -(-path.stat().st_size // 100)
    assert [len(rows.texts[0]) for rows in reads if rows.texts[0]] == [1, 1]


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


def test_a_bom_before_json(tmp_path, read_corpus, encode):
    """Editors of Windows put one there; it is no reason to lose the first row."""
    content = encode("a.jsonl", [{"text": "one"}, {"text": "two"}])
    (tmp_path / "a.jsonl").write_bytes(BOM + content)
    read = read_corpus(open_file(tmp_path / "a.jsonl"))
    assert (read.texts, read.errors) == (["one", "two"], {})


def test_a_bom_before_a_quoted_header(tmp_path, read_corpus, encode):
    (tmp_path / "a.csv").write_bytes(BOM + encode("a.csv", [{"text": "one", "id": 1}]))
    assert read_corpus(open_file(tmp_path / "a.csv")).texts == ["one"]


def test_a_bare_carriage_return_in_csv_spoils_its_row_only(tmp_path, read_corpus):
    (tmp_path / "a.csv").write_bytes(b"text,k\none,1\nt\rwo,2\nthree,3\n")
    read = read_corpus(open_file(tmp_path / "a.csv", keep=("k",)))
    assert len(read.texts) == 3
    assert read.texts[::2] == ["one", "three"]
    assert set(read.errors) <= {1}


def test_a_csv_file_with_carriage_returns_only_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,k\rone,1\rtwo,2\r")
    with pytest.raises(InputError, match=r"a\.csv"):
        open_file(tmp_path / "a.csv")


@pytest.mark.parametrize("size", [1, 2**24])
def test_a_quoted_field_that_is_never_closed_takes_the_rest_as_one_bad_row(
    tmp_path, read_corpus, monkeypatch, size
):
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", size)
    (tmp_path / "a.csv").write_bytes(b'text,k\none,1\n"two,2\nthree,3\n')
    read = read_corpus(open_file(tmp_path / "a.csv"))
    assert (read.texts, list(read.errors)) == (["one", ""], [1])


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("size", [1, 2**24])
def test_a_limit_counts_rows_and_not_lines(tmp_path, read_corpus, monkeypatch, limit, size):
    monkeypatch.setattr(cluster.corpus.slices, "MAX_SLICE_BYTES", size)
    (tmp_path / "a.csv").write_bytes(b'text\none\n\n"tw\no"\nt\rhree\nfour\n')
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "one"}\n\n{"text": "tw\\no"}\n3\n{"text": "four"}'
    )
    for name in ("a.csv", "a.jsonl"):
        read = read_corpus(open_file(tmp_path / name), limit=limit)
        assert read.texts == ["one", "tw\no", "", "four"][:limit]


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
        pytest.param(0.5, 10**400, False, id="beyond-float"),
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
    monkeypatch.setattr(json_lines, "SAMPLE_BYTES", len(json.dumps(rows[0])))
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
