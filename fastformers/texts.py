"""Texts as they come: columns of any library as Python values, and which of them can be scored.

    column -> [texts] -> values -> [texts] -> texts, good and bad -> formats, scorer

Files and Python are judged by one rule: a row whose text is missing, empty, no text or not UTF-8
keeps its place with a reason, and the others are scored. This module knows no file, no model, and
imports none of the libraries whose columns it reads.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from fastformers.errors import InputError


def values_of(column: Any) -> list[Any]:
    """Python values of a list, of any iterable, or of a column.

    Args:
        column: A list, an iterable, or a column of numpy, pandas, polars or pyarrow. Values that
            these mark as missing are None; a text of pyarrow that is not UTF-8 has surrogates.

    Raises:
        InputError: It is one text, a table, or has no order.
    """
    kind = type(column).__name__
    if hasattr(column, "columns"):
        raise InputError(f"give a list or a column of texts; got a {kind}: name one of its columns")
    if hasattr(column, "isna"):  # pandas, which has several values that stand for a missing one
        column = column.to_numpy(dtype=object, na_value=None)
    if hasattr(column, "to_pylist"):
        return _arrow_values(column)
    for name in ("to_list", "tolist"):  # polars; numpy
        if hasattr(column, name):
            column = getattr(column, name)()
    if isinstance(column, (str, bytes)):
        raise InputError("give a list or a column of texts; got one text")
    if isinstance(column, (Mapping, Set)) or not isinstance(column, Iterable):
        raise InputError(f"give a list or a column of texts; got a {kind}")
    return list(column)


def check_texts(
    columns: Sequence[Sequence[Any]], places: Sequence[str], errors: dict[int, str]
) -> tuple[list[str], ...]:
    """Record rows that hold no text, and put "" in their place.

    Args:
        columns: Values of each column, each N long.
        places: What the reasons of each column begin with, such as "column 'body': ".
        errors: Reason why a row is bad, by its position; those that are found here are added.
    """
    for place, values in zip(places, columns, strict=True):
        for row, value in enumerate(values):
            if isinstance(value, str) and value and not value.isspace():
                if not value.isascii() and not _is_unicode(value):
                    errors.setdefault(row, f"{place}invalid UTF-8")
                continue
            errors.setdefault(
                row,
                f"{place}null text"
                if is_missing(value)
                else f"{place}{type(value).__name__}, not text"
                if not isinstance(value, str)
                else f"{place}empty text",
            )
    return tuple(
        [value if row not in errors else "" for row, value in enumerate(values)]
        for values in columns
    )


def column_places(names: Iterable[str]) -> list[str]:
    """What the reasons of named columns begin with, for `check_texts`."""
    return [f"column {name!r}: " for name in names]


def is_missing(value: object) -> bool:
    """Whether a value stands for a text that is not there: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def decode_texts(values: Iterable[bytes | None]) -> list[str | None]:
    """Texts of bytes; those that are not UTF-8 have surrogates, which `check_texts` finds."""
    return [None if one is None else one.decode("utf-8", "surrogateescape") for one in values]


def _arrow_values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return decode_texts(column.cast("large_string").cast("large_binary").to_pylist())
    return values


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate stands for an undecodable byte
        return False
    return True
