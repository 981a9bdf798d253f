"""One type for the values of a column in many files, and values of any type written into it.

    columns of some files -> [column_types] -> the narrowest type that holds them -> kept columns

Values of no common type are text: text stays as it is, all else is written as JSON. A value that
does not fit a column's type becomes null and is counted, and text is valid UTF-8 when it leaves.
This module knows no file and no format.
"""

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

# Errors that pyarrow raises for a value that does not fit its column, and Python for one that is
# nested too deep.
UNFIT = (pa.ArrowException, TypeError, UnicodeError, OverflowError, ValueError, RecursionError)
_MAX_FIELDS = 256  # of objects in a column of JSON, at all depths
_SURROGATES = re.compile("[\ud800-\udfff]")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """A type without how its values are laid out: dictionaries and views are their values' type."""

    def change(leaf: pa.DataType) -> pa.DataType:
        if kinds.is_dictionary(leaf) or kinds.is_run_end_encoded(leaf):
            return plain_type(leaf.value_type)
        if kinds.is_string_view(leaf):
            return pa.string()
        return pa.binary() if kinds.is_binary_view(leaf) else leaf

    return _map_leaves(kind, change)


def is_text(kind: pa.DataType) -> bool:
    """Whether a plain type is that of text."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a plain type is that of bytes, which may be text."""
    return bool(
        kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind)
    )


def merge_types(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds the values of both; text where there is no other."""
    one, other = plain_type(one), plain_type(other)
    pair = (one, other)
    if pa.uint64() in pair and any(map(kinds.is_signed_integer, pair)):
        return pa.decimal128(20, 0)
    try:
        unified = pa.unify_schemas(
            [pa.schema([("", kind)]) for kind in pair], promote_options="permissive"
        )
    except (pa.ArrowTypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.string()
    return unified.field(0).type


def infer_type(values: Sequence[Any]) -> pa.DataType:
    """Type of a column of values that were parsed from JSON.

    Objects whose keys are themselves values would have a field for each: they are text. So is what
    is nested too deep to be looked at.
    """
    with contextlib.suppress(RecursionError):
        kind = _infer(values)
        if _count_fields(kind) <= _MAX_FIELDS:
            return kind
    return pa.string()


def _infer(values: Sequence[Any]) -> pa.DataType:
    with contextlib.suppress(*UNFIT):
        return pa.array(values).type
    given = [_repair_value(value) for value in values if value is not None]
    with contextlib.suppress(*UNFIT):
        return pa.array(given).type
    if all(type(value) is int for value in given):
        return _type_of_integers(min(given), max(given))
    return reduce(merge_types, dict.fromkeys(map(_type_of, given)), pa.null())


def known_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column is written in: where nothing is known of its values, text."""
    has_no_fields = False

    def change(leaf: pa.DataType) -> pa.DataType:
        return pa.string() if kinds.is_null(leaf) else leaf

    def look(inner: pa.DataType) -> None:
        nonlocal has_no_fields
        has_no_fields |= kinds.is_struct(inner) and inner.num_fields == 0
        for number in range(inner.num_fields):
            look(inner.field(number).type)

    look(kind)  # Parquet cannot hold a struct without fields
    return pa.string() if has_no_fields else _map_leaves(kind, change)


def fit_array(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[Any, int]:
    """A typed column in another type, and how many values do not fit."""
    with contextlib.suppress(*UNFIT):
        column = column.cast(plain_type(column.type))
    if column.type == kind:
        return _repair_array(column)
    if is_text(column.type) and is_text(kind):
        repaired, num_unfit = _repair_array(column)
        return repaired.cast(kind), num_unfit
    if is_bytes(column.type) and is_text(kind):
        return fit_values([_decode(value) for value in column.to_pylist()], kind, column)
    is_one = not any(kinds.is_nested(k) or kinds.is_boolean(k) for k in (column.type, kind))
    is_parsed = is_text(column.type) and not is_bytes(kind)
    if (is_one and not is_parsed) or kinds.is_null(column.type):
        with contextlib.suppress(*UNFIT):
            cast = column.cast(kind)
            if is_text(kind) or cast.cast(column.type).equals(column):
                return cast, 0
    try:
        values = column.to_pylist()
    except UNFIT:  # text that is not UTF-8, times in nanoseconds
        values = [None] * len(column)
    return fit_values(values, kind, column)


def fit_values(
    values: Sequence[Any], kind: pa.DataType, column: pa.ChunkedArray | None = None
) -> tuple[pa.Array, int]:
    """Values in a type, null where one does not fit, and how many do not.

    Args:
        values: The values.
        kind: The type.
        column: The column that they come from, if some were lost on the way.
    """
    num_given = len(values) - (values.count(None) if column is None else column.null_count)
    with contextlib.suppress(*UNFIT):
        array = pa.array(values, kind)
        if _is_same(array.to_pylist(), list(values)):
            return array, num_given - (len(array) - array.null_count)
    array = pa.array([_fit(value, kind) for value in values], kind)
    return array, num_given - (len(array) - array.null_count)


def repair_text(text: str) -> str:
    """Text that is valid UTF-8: what stands for an undecodable byte becomes U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _count_fields(kind: pa.DataType) -> int:
    """Number of types inside a type, at all depths."""
    return sum(1 + _count_fields(kind.field(number).type) for number in range(kind.num_fields))


def _type_of_integers(least: int, most: int) -> pa.DataType:
    if least >= -(2**63) and most < 2**63:
        return pa.int64()
    if least >= 0 and most < 2**64:
        return pa.uint64()
    return pa.decimal128(38, 0) if least > -(10**38) and most < 10**38 else pa.string()


def _type_of(value: Any) -> pa.DataType:
    if type(value) is int:
        return _type_of_integers(value, value)
    if isinstance(value, str):
        return pa.string()
    with contextlib.suppress(*UNFIT):
        return pa.array([value]).type
    return pa.string()


def _map_leaves(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The same type with the types inside it changed."""

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(_map_leaves(field.type, change))

    if kinds.is_struct(kind):
        return pa.struct([inner(field) for field in kind])
    if kinds.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field))
    if kinds.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if kinds.is_large_list(kind) or kinds.is_large_list_view(kind):
        return pa.large_list(inner(kind.value_field))
    if kinds.is_list(kind) or kinds.is_list_view(kind):
        return pa.list_(inner(kind.value_field))
    return change(kind)


def _fit(value: Any, kind: pa.DataType) -> Any:
    """A value as a type holds it, None where it cannot."""
    if value is None:
        return None
    if is_text(kind):
        with contextlib.suppress(RecursionError):
            return _to_text(value)
        return None
    if isinstance(value, dict) and kinds.is_struct(kind):
        types = {field.name: field.type for field in kind}
        if value.keys() - types.keys():
            return None
        fitted = {name: _fit(inner, types[name]) for name, inner in value.items()}
        return fitted if all(fitted[n] is not None or value[n] is None for n in value) else None
    if isinstance(value, list) and (kinds.is_list(kind) or kinds.is_large_list(kind)):
        items = [_fit(item, kind.value_type) for item in value]
        is_whole = all(a is not None or b is None for a, b in zip(items, value, strict=True))
        return items if is_whole else None
    with contextlib.suppress(*UNFIT):
        stored = pa.scalar(value, kind).as_py()
        return stored if _is_same(stored, value) else None
    return None


def _is_same(stored: Any, given: Any) -> bool:
    """Whether a value kept its meaning: pyarrow turns 1.5 into 1 in a column of integers."""
    if isinstance(given, dict) and isinstance(stored, dict):
        return all(_is_same(stored.get(key), value) for key, value in given.items())
    if isinstance(given, list) and isinstance(stored, list):
        return len(given) == len(stored) and all(map(_is_same, stored, given))
    if isinstance(given, bool) is not isinstance(stored, bool):
        return False
    return bool(stored == given) or given != given


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return repair_text(value)
    if isinstance(value, (dict, list, bool, int, float)):
        return repair_text(json.dumps(value, ensure_ascii=False, default=str))
    return repair_text(str(value))


def _decode(value: bytes | None) -> str | None:
    with contextlib.suppress(UnicodeDecodeError):
        return None if value is None else value.decode()
    return None


def _repair_array(column: pa.ChunkedArray) -> tuple[Any, int]:
    """A column whose texts are valid UTF-8, and how many values could not be repaired."""
    with contextlib.suppress(pa.ArrowInvalid):
        column.validate(full=True)
        return column, 0

    def change(leaf: pa.DataType) -> pa.DataType:
        if kinds.is_string(leaf):
            return pa.binary()
        return pa.large_binary() if kinds.is_large_string(leaf) else leaf

    with contextlib.suppress(*UNFIT):
        values = column.cast(_map_leaves(column.type, change)).to_pylist()
        return pa.array([_repair_value(value) for value in values], column.type), 0
    return pa.nulls(len(column), column.type), len(column) - column.null_count


def _repair_value(value: Any) -> Any:
    """The same value with valid UTF-8 for its texts, and text for its bytes."""
    if isinstance(value, str):
        return repair_text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_repair_value(key): _repair_value(inner) for key, inner in value.items()}
    return [_repair_value(item) for item in value] if isinstance(value, list) else value
