import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastformers.cluster.corpus.slices
from fastformers.errors import InputError
from fastformers.formats import json_lines
from tests.cluster.corpus.open_file import open_file
from tests.cluster.corpus.round_trip import SAMPLE, check_round_trip, encode_json, rows, sizes

BOM = b"\xef\xbb\xbf"


@settings(deadline=None)
@given(rows, sizes, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans())
def test_json_lines_come_back(read_corpus, rows, size, newline, ensure_ascii, is_compressed):
    content = encode_json(rows, newline=newline, ensure_ascii=ensure_ascii)
    if is_compressed:
        check_round_trip(read_corpus, "a.jsonl.gz", gzip.compress(content), rows, size)
    else:
        check_round_trip(read_corpus, "a.jsonl", content, rows, size)


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_json_lines_are_cut_at_every_byte(read_corpus, ending):
    newline = ending.encode() or b"\n"
    content = encode_json(SAMPLE, newline=newline, ensure_ascii=False)
    content = content if ending else content.removesuffix(newline)
    for size in range(1, len(content) + 2):
        check_round_trip(read_corpus, "a.jsonl", content, SAMPLE, size)


def test_a_byte_range_in_the_middle_of_a_line_has_no_rows(
    tmp_path, write_rows, read_slices, monkeypatch
):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "x" * 1000}, {"text": "y"}])
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 100)
    reads = read_slices(open_file(path))
    assert len(reads) == -(-path.stat().st_size // 100)
    assert [len(rows.texts[0]) for rows in reads if rows.texts[0]] == [1, 1]


def test_a_bom_before_json(tmp_path, read_corpus):
    """Windows editors write one; the first row must not be lost because of it."""
    content = encode_json([{"text": "one"}, {"text": "two"}])
    (tmp_path / "a.jsonl").write_bytes(BOM + content)
    read = read_corpus(open_file(tmp_path / "a.jsonl"))
    assert (read.texts, read.errors) == (["one", "two"], {})


def test_a_json_file_without_any_object_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('[\n  "text"\n]\n')
    with pytest.raises(InputError, match=r"a\.json: no element of its first MiB is a JSON object"):
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
        (2**64 - 1, 2**63, True),
        (-(10**30), 2**64, True),
        pytest.param(0.5, 10**400, False, id="beyond-float"),
        (0.5, 2**53 + 1, False),  # not 2**53
        ([1], ["no"], False),
        ([1], [1.5], False),
        ({"x": 1}, {"x": "no"}, False),
        ({"x": 1}, {"x": 2, "y": 3}, False),
        ({"x": 1}, 3, False),
        (True, 1, False),
    ],
)
def test_a_kept_value_that_does_not_fit_is_null_and_counted(
    tmp_path, write_rows, read_corpus, monkeypatch, first, later, fits
):
    """Types are those of the beginning of the file, here of its first row."""
    rows = [{"k": first, "text": "first"}, {"k": later, "text": "later"}, {"text": "end"}]
    monkeypatch.setattr(json_lines, "SAMPLE_BYTES", len(json.dumps(rows[0])))
    path = write_rows(tmp_path / "a.jsonl", rows)
    read = read_corpus(open_file(path, keep=("k",)))
    assert read.kept == {"k": [first, later if fits else None, None]}
    assert read.unfit == ({} if fits else {"k": 1})
    assert (read.texts, read.errors) == (["first", "later", "end"], {})


@pytest.mark.parametrize(
    ("first", "later", "written"),
    [
        ("yes", 1, "1"),
        ("yes", {"a": [None, "ä"]}, '{"a": [null, "ä"]}'),
        ("yes", "\ud800", "\ufffd"),
        (None, 0.5, "0.5"),
        ({}, {"new": 1}, '{"new": 1}'),  # Parquet has no objects without fields
        (10**40, True, "true"),
    ],
)
def test_a_kept_column_of_text_holds_everything(
    tmp_path, write_rows, read_corpus, monkeypatch, first, later, written
):
    rows = [{"k": first, "text": "first"}, {"k": later, "text": "later"}]
    monkeypatch.setattr(json_lines, "SAMPLE_BYTES", len(json.dumps(rows[0])))
    path = write_rows(tmp_path / "a.jsonl", rows)
    read = read_corpus(open_file(path, keep=("k",)))
    assert read.kept["k"][1] == written
    assert (read.unfit, read.errors) == ({}, {})


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1, "x", None, {"a": 1}], ["1", "x", None, '{"a": 1}']),
        ([1, 0.5], [1.0, 0.5]),
        ([2**64 - 1, 0.5], [None, 0.5]),
        ([True, 1], ["true", "1"]),
        ([[1], [0.5, None]], [[1.0], [0.5, None]]),
        ([{"a": 1}, {"a": 0.5, "b": "x"}], [{"a": 1.0, "b": None}, {"a": 0.5, "b": "x"}]),
        ([{"a": 1}, {"a": "x"}], ['{"a": 1}', '{"a": "x"}']),
        ([{"a": "\ud800"}, {"a": "x"}], [{"a": "\ufffd"}, {"a": "x"}]),
        ([2**70, -1], [2**70, -1]),
        ([{f"k{n}": n} for n in range(300)], [f'{{"k{n}": {n}}}' for n in range(300)]),
    ],
)
def test_a_kept_column_of_several_types_has_the_narrowest_that_holds_them(
    tmp_path, write_rows, read_corpus, values, kept
):
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a", "k": value} for value in values])
    read = read_corpus(open_file(path, keep=("k",)))
    assert (read.kept["k"], read.errors) == (kept, {})
    assert sum(read.unfit.values()) == kept.count(None) - values.count(None)


@pytest.mark.parametrize(("num_rows", "is_seen"), [(1000, True), (1100, False)])
def test_types_are_those_of_the_first_mebibyte(
    tmp_path, write_rows, read_corpus, num_rows, is_seen
):
    rows = [{"text": "a" * 1000, "k": 1}] * num_rows + [{"text": "end", "k": "late"}]
    read = read_corpus(open_file(write_rows(tmp_path / "a.jsonl", rows), keep=("k",)))
    assert read.kept["k"][-2:] == (["1", "late"] if is_seen else [1, None])
    assert read.unfit == ({} if is_seen else {"k": 1})


def test_kept_values_that_are_nested_deep_are_text_and_end_nothing(
    tmp_path, read_corpus, monkeypatch
):
    deep = "[" * 700 + "]" * 700
    first, later = f'{{"text": "a", "k": {deep}, "n": [1]}}\n', f'{{"text": "b", "n": {deep}}}\n'
    monkeypatch.setattr(json_lines, "SAMPLE_BYTES", len(first) - 1)
    (tmp_path / "a.jsonl").write_text(first + later)
    read = read_corpus(open_file(tmp_path, keep=("k", "n")))
    assert (read.texts, read.errors) == (["a", "b"], {})
    assert read.kept == {"k": [deep, None], "n": [[1], None]}
    assert read.unfit == {"n": 1}


def test_all_columns_are_kept_and_later_ones_are_counted(
    tmp_path, write_rows, read_corpus, monkeypatch
):
    rows = [{"text": "a", "k": 1}, {"text": "b", "new": 2, "other": None}, {"new": 3}]
    monkeypatch.setattr(json_lines, "SAMPLE_BYTES", 1)
    read = read_corpus(open_file(write_rows(tmp_path / "a.jsonl", rows), keep=("*",)))
    assert read.kept == {"text": ["a", "b", None], "k": [1, None, None]}
    assert read.unfit == {"*": 3}


def test_of_all_columns_one_whose_name_is_no_text_is_counted(tmp_path, read_corpus):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "k\\ud800": 1}\n')
    read = read_corpus(open_file(tmp_path, keep=("*",)))
    assert (read.kept, read.unfit) == ({"text": ["a"]}, {"*": 1})
