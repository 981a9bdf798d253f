from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.formats.column_types import (
    fit_array,
    fit_values,
    infer_type,
    known_type,
    merge_types,
)
from tests.fastformers.formats.files import binary_as_text

VIEW = pa.string_view()


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        (pa.null(), pa.int8(), pa.int8()),
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.int64(), pa.uint64(), pa.decimal128(20, 0)),
        (pa.uint8(), pa.uint64(), pa.uint64()),
        (pa.string(), VIEW, pa.string()),
        (pa.large_string(), VIEW, pa.large_string()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string(), pa.large_string()),
        (pa.list_(VIEW), pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.list_(pa.string())),
        (pa.decimal128(10, 2), pa.int64(), pa.decimal128(20, 2)),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.bool_(), pa.int64(), pa.string()),
        (pa.int64(), pa.string(), pa.string()),
        (pa.timestamp("s", "UTC"), pa.timestamp("s"), pa.string()),
        (pa.list_(pa.int64()), pa.int64(), pa.string()),
    ],
)
def test_the_merged_type_holds_both(one, other, merged):
    assert merge_types(one, other) == merge_types(other, one) == merged


@pytest.mark.parametrize(
    ("values", "kind", "fitted"),
    [
        (pa.array([1, None, 2**53 + 1]), pa.float64(), [1.0, None, None]),
        (pa.array([1.0, 0.5]), pa.int64(), [1, None]),
        (pa.array([-1, 5]), pa.uint64(), [None, 5]),
        (pa.array([300, 3]), pa.int8(), [None, 3]),
        (pa.array([0.1]), pa.float32(), [None]),
        (pa.array([1, 2]), pa.string(), ["1", "2"]),
        (pa.array([True, None]), pa.string(), ["true", None]),
        (pa.array([True]), pa.int64(), [None]),
        (pa.array(["12"]), pa.int64(), [None]),
        (pa.array(["ä"]), pa.binary(), ["ä".encode()]),
        (pa.array([b"a", b"\xff"]), pa.string(), ["a", None]),
        (pa.array([{"a": 1}, None]), pa.string(), ['{"a": 1}', None]),
        (pa.array([[1, 2], [3]]), pa.list_(pa.float64()), [[1.0, 2.0], [3.0]]),
        (pa.array([Decimal("1.5")]), pa.float64(), [1.5]),
        (pa.nulls(2), pa.int64(), [None, None]),
        (pa.array([datetime(2026, 1, 1)]), pa.timestamp("ns"), [datetime(2026, 1, 1)]),
        (pa.array([10**9 + 1], pa.timestamp("ns")), pa.timestamp("us"), [None]),
        (pa.array(["x"]).dictionary_encode(), pa.large_string(), ["x"]),
    ],
)
def test_a_typed_column_in_another_type(values, kind, fitted):
    array, num_unfit = fit_array(pa.chunked_array([values]), kind)
    assert array.type == kind
    shown = array.cast(pa.timestamp("us")) if kind == pa.timestamp("ns") else array
    assert shown.to_pylist() == fitted
    assert num_unfit == fitted.count(None) - values.null_count


def test_text_is_valid_when_it_leaves_however_deep():
    texts = binary_as_text([b"good", b"bad \xff"])
    lists = pa.ListArray.from_arrays([0, 1, 2], texts)
    objects = pa.StructArray.from_arrays([texts, pa.array([1, 2])], ["a", "b"])
    for column, fixed in (
        (texts, ["good", "bad \ufffd"]),
        (lists, [["good"], ["bad \ufffd"]]),
        (objects, [{"a": "good", "b": 1}, {"a": "bad \ufffd", "b": 2}]),
    ):
        array, num_unfit = fit_array(pa.chunked_array([column]), column.type)
        array.validate(full=True)
        assert (array.to_pylist(), num_unfit) == (fixed, 0)
    array, _ = fit_array(pa.chunked_array([texts]), pa.large_string())
    assert array.to_pylist() == ["good", "bad \ufffd"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**45), 10**45)
    | st.floats(allow_nan=False)
    | st.text(st.characters(), max_size=5),  # with lone surrogates
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=6), st.lists(JSON, max_size=6))
def test_any_json_is_kept_as_valid_parquet(early, late):
    """Values that a type was inferred from, and others that come later."""
    kind = known_type(infer_type(early))
    array, num_unfit = fit_values([*early, *late], kind)
    array.validate(full=True)
    assert num_unfit == array.null_count - [*early, *late].count(None)
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"a": array}), sink)
    back = pyarrow.parquet.read_table(pa.BufferReader(sink.getvalue()))["a"]
    assert back.to_pylist() == array.to_pylist()


@pytest.mark.parametrize(
    ("least", "most", "kind"),
    [
        (-(2**63), 2**63 - 1, pa.int64()),
        (0, 2**64 - 1, pa.uint64()),
        (-1, 2**63, pa.decimal128(38, 0)),
        (0, 2**64, pa.decimal128(38, 0)),
        (-(10**38) + 1, 10**38 - 1, pa.decimal128(38, 0)),
        (-(10**38), 0, pa.string()),
        (0, 10**38, pa.string()),
    ],
)
def test_whole_numbers_have_the_narrowest_type_that_holds_them(least, most, kind):
    assert infer_type([least, None, most]) == kind
    array, num_unfit = fit_values([least, most], kind)
    assert (list(map(int, array.to_pylist())), num_unfit) == ([least, most], 0)


def test_times_as_text():
    column = pa.chunked_array([pa.array([datetime(2026, 1, 2, tzinfo=UTC)])])
    array, _ = fit_array(column, pa.string())
    assert array.to_pylist()[0].startswith("2026-01-02 00:00:00")
