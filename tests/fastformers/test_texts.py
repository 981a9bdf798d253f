"""Columns of each library as values, and what of them is text."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from fastformers.errors import InputError
from fastformers.texts import check_texts, column_places, values_of

TEXTS = ["a cat", "ö, 猫", "", None]


def arrow_with_bytes(*values):
    """A column of text whose bytes need not be UTF-8."""
    offsets = np.cumsum([0, *map(len, values)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


@pytest.mark.parametrize(
    "column",
    [
        TEXTS,
        tuple(TEXTS),
        iter(TEXTS),
        (text for text in TEXTS),
        np.array(TEXTS, object),
        np.ma.array(["a cat", "ö, 猫", "", "x"], mask=[False, False, False, True]),
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    ],
    ids=lambda column: type(column).__name__,
)
def test_values_are_those_of_the_column(column):
    assert values_of(column) == TEXTS


@pytest.mark.parametrize("kind", [object, "string", "str", "category"])
def test_all_missing_values_of_pandas_are_none(kind):
    pd = pytest.importorskip("pandas")
    values = ["a cat", None, float("nan"), pd.NA]
    for column in (pd.Series(values, dtype=kind, index=[5, 3, 3, 1]), pd.Index(values, dtype=kind)):
        assert values_of(column) == ["a cat", None, None, None]


def test_a_column_of_polars_is_read():
    pl = pytest.importorskip("polars")
    assert values_of(pl.Series(TEXTS)) == TEXTS
    with pytest.raises(InputError, match="got a DataFrame: name one of its columns"):
        values_of(pl.DataFrame({"text": TEXTS}))


def test_a_text_of_numpy_is_a_text():
    values = values_of(np.array(["a", "cat"]))
    assert values == ["a", "cat"] and type(values[0]) is str


@pytest.mark.parametrize(
    "chunk", [lambda column: column, lambda column: pa.chunked_array([column])]
)
def test_what_is_not_utf8_in_arrow_is_found_and_the_rest_is_read(chunk):
    column = chunk(arrow_with_bytes(b"ok", b"\xff\xfe", "ö".encode()))
    errors: dict[int, str] = {}
    assert check_texts([values_of(column)], [""], errors) == (["ok", "", "ö"],)
    assert errors == {1: "invalid UTF-8"}


@pytest.mark.parametrize(
    ("column", "got"),
    [
        ("one text", "one text"),
        (b"bytes", "one text"),
        ({"text": ["a"]}, "a dict"),
        ({"a", "b"}, "a set"),
        (5, "a int"),
        (None, "a NoneType"),
        (np.array("alone"), "one text"),
        (np.array(5), "a ndarray"),
        (pa.table({"text": ["a"]}), "a Table: name one of its columns"),
        (pa.record_batch({"text": ["a"]}), "a RecordBatch: name one of its columns"),
    ],
)
def test_what_is_no_column_is_refused(column, got):
    with pytest.raises(InputError, match=f"give a list or a column of texts; got {got}"):
        values_of(column)


def test_a_bad_row_has_its_first_reason_and_no_text_in_any_column():
    errors: dict[int, str] = {4: "not JSON"}
    texts = check_texts(
        [["a", None, "c", Decimal(1), "e"], ["1", " ", "\udcff", None, "5"]],
        column_places(["body", "it's"]),
        errors,
    )
    assert texts == (["a", "", "", "", ""], ["1", "", "", "", ""])
    assert errors == {
        1: "column 'body': null text",
        2: 'column "it\'s": invalid UTF-8',
        3: "column 'body': Decimal, not text",
        4: "not JSON",
    }
