import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.corpus.slices
from cluster.corpus.slices import open_corpus
from fastformers.errors import InputError
from fastformers.formats import json_lines
from fastformers.formats.readers import ReadOptions
from tests.cluster.corpus.round_trip import SAMPLE, check_round_trip, encode_json, rows, sizes

BOM = b"\xef\xbb\xbf"


def open_file(path, *, keep=(), skip=False):
    return open_corpus(
        str(path),
        text_columns=("text",),
        keep_columns=keep,
        options=ReadOptions(skip_unreadable=skip),
    )


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
    monkeypatch.setattr(cluster.corpus.slices, "MAX_SLICE_BYTES", 100)
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
    """In the first rows it makes its row bad, or is refused with a message: never a traceback."""
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
