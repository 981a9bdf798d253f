"""CSV that is not well formed: each line that is no row is one bad row, and none is joined."""

import itertools
import logging

import pytest

from fastformers.errors import InputError
from fastformers.formats import csv_files
from fastformers.formats.readers import ReadOptions
from fastformers.formats.text_file_config import TextFileConfig
from tests.fastformers.formats.files import open_file

HEADER = b"text,k\n"
ENDS, STRAY = "not CSV: unexpected end of data", "not CSV: ',' expected after '\"'"


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'one,1\n"two,2\nthree,3\n', ["one", f"{ENDS}, in '\"two,2'", "three"]),
        (b'one,1\n"two,2\nthree,"3"\n', ["one", f"{STRAY}, in '\"two,2'", "three"]),
        (b'"one" two,1\nend,2\n', [f"{STRAY}, in '\"one\" two,1'", "end"]),
        (b'5" pipe,1\nend,2\n', ['5" pipe', "end"]),  # a quote inside an unquoted field is one
        (b'"a ""b"" c",1\n"d\ne",2\n', ['a "b" c', "d\ne"]),
        (b"one,1,\ntwo\nend,2\n", None),
        (b"\n\none,1\n\nend,2\n", ["one", "end"]),
        (b"o\rne,1\nend,2\r\n", ["o\rne", "end"]),
    ],
)
def test_a_line_that_is_no_row_is_one_bad_row(read, body, rows):
    if rows is None:
        rows = [
            "3 fields, the last of them empty, but the header has 2",
            "1 fields, but the header has 2",
            "end",
        ]
    assert read("a.csv", HEADER + body) == rows


def test_a_backslash_escapes_only_if_told(read):
    content = HEADER + b'"say \\"hi\\"",1\nend,2\n'
    bad, end = read("a.csv", content)
    assert "name --csv-escape" in bad
    assert end == "end"
    assert read("a.csv", content, csv_escape="\\") == ['say "hi"', "end"]


@pytest.mark.parametrize("size", [9, 10])
def test_a_row_has_a_bound(read, size):
    rows = read("a.csv", HEADER + b'short,1\n12345678,1\n"a\nb",1\nend,2\n', max_row_bytes=size)
    second = "longer than 9 bytes (--max-row-bytes)" if size == 9 else "12345678"
    assert rows == ["short", second, "a\nb", "end"]


def test_a_quoted_field_beyond_the_bound_ends_with_its_first_line(read):
    rows = read("a.csv", HEADER + b'"open,1\nx,2\ny,3\nz,"4\n', max_row_bytes=12)
    assert "is its quote closed?" in rows[0]
    assert rows[1:] == ["x", "y", f"{ENDS}, in 'z,\"4'"]


@pytest.mark.parametrize("body", [b"one,1,\ntwo,2,\n", b'"one,1\n"two,2\n"three', b"a;b\nc;d\n"])
def test_a_file_none_of_whose_rows_fits_is_refused(read, body):
    with pytest.raises(InputError, match=r"none of the first [23] rows fits the header line: "):
        read("a.csv", HEADER + body)


def test_a_file_is_refused_for_its_first_mebibyte_and_not_for_a_single_row(read, monkeypatch):
    assert read("a.csv", HEADER + b"a,b,c\n") == ["3 fields, but the header has 2"]
    monkeypatch.setattr(csv_files, "SAMPLE_BYTES", 20)
    with pytest.raises(InputError, match="none of the first 4 rows fits the header line: "):
        read("a.csv", HEADER + b"a,b,c\n" * 9 + b"good,1\n")


@pytest.mark.parametrize(("name", "mark"), [("a.csv", "\t"), ("a.csv", ";"), ("a.csv", "|")])
def test_a_delimiter_is_guessed_by_the_header_line_and_said(read, caplog, name, mark):
    content = f'id{mark}text\n1{mark}"a, b"\n'.encode()
    with caplog.at_level(logging.WARNING):
        assert read(name, content) == ["a, b"]
    assert f"{mark!r} separates its columns" in caplog.text
    caplog.clear()
    assert read(name, content, csv_delimiter=mark) == ["a, b"]
    assert caplog.text == ""


def test_a_comma_is_taken_where_the_header_line_has_it(read, caplog):
    assert read("a.csv", b"text,a;b\nx;y,1\n") == ["x;y"]
    assert read("a.csv", b"text\nx;y\n") == ["x;y"]
    assert caplog.text == ""


def test_quotes_may_mean_nothing(read):
    assert read("a.tsv", b'text\tk\n"one\t1\ntwo"\t2\n', csv_quote="none") == ['"one', 'two"']


@pytest.fixture
def spans(tmp_path):
    """Opens a CSV file of some bytes: the texts of the rows from one byte to another."""

    def open_spans(content, **options):
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        reader = open_file(path, ReadOptions(text_files=TextFileConfig(**options)))

        def texts_between(start, stop):
            sampled = reader.sample_span(str(path), start, stop)
            assert (sampled.size, sampled.is_beginning) == (stop - start, False)
            return sampled.texts[0]

        return texts_between

    return open_spans


def test_a_window_has_the_rows_that_begin_in_it(spans):
    """Wherever it is cut: at the first byte of a row or behind it, in the header or at the end."""
    lines = [f"text {row},{'9' * (row % 4)}\n".encode() for row in range(9)]
    begins = list(itertools.accumulate(map(len, lines), initial=len(HEADER)))
    texts_between = spans(HEADER + b"".join(lines))
    for start, size in itertools.product(range(begins[-1]), (1, 7, 30)):
        stop = min(start + size, begins[-1])
        expected = [f"text {row}" for row in range(9) if start <= begins[row] < stop]
        assert texts_between(start, stop) == expected, (start, stop)


def test_lines_inside_a_text_begin_no_window(spans):
    """Four lines as of two fields each are too few to be taken for rows."""
    long = b'"one\n' + b"a,b\n" * 4 + b'the end, of it",1\n'
    texts_between = spans(HEADER + long + b"two,2\n" * 6)
    second = len(HEADER + long)
    for start in range(len(HEADER) + 1, second + 1):
        assert texts_between(start, second + 1) == ["two"], start
    assert len(texts_between(len(HEADER), second)) == 1


def test_windows_tile_a_file_whose_every_other_row_is_bad(spans, monkeypatch):
    """Nowhere do several good rows follow each other, and yet no window has them all."""
    monkeypatch.setattr(csv_files, "SAMPLE_BYTES", 100)
    body = b"".join(b"text %d,1\nno, row, at all\n" % row for row in range(90))
    texts_between = spans(HEADER + body)
    size = len(HEADER + body)
    edges = [size * mark // 10 for mark in range(11)]
    windows = [texts_between(start, stop) for start, stop in itertools.pairwise(edges)]
    every = [text for row in range(90) for text in (f"text {row}", "")]
    assert list(itertools.chain.from_iterable(windows)) == every
    assert all(0 < len(texts) < 30 for texts in windows)
    assert {texts[1] for texts in windows} == {""}  # each begins with a row that fits


def test_no_window_begins_inside_a_row_that_is_too_long(spans):
    texts_between = spans(b"text\none\n" + b"x" * 60 + b"\n" + b"two\n" * 6, max_row_bytes=20)
    long, second = len(b"text\none\n"), len(b"text\none\n") + 61
    for start in range(long + 1, second + 1):
        assert texts_between(start, second + 1) == ["two"], start
