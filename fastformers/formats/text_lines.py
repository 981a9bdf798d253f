"""Turn the records of text files into rows.

    records of a file -> [text_lines] -> rows, good and bad -> json_lines, csv_files

Text carries no types, so a value that does not fit its column makes its row bad. This module knows
nothing of JSON or CSV.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fastformers.formats.readers import FileReader, Rows, check_texts

# Values by the names of their columns, or the reason why there are none.
Record = dict[str, Any] | str
# Errors that pyarrow raises for a value that does not fit its column.
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError)


def make_rows(reader: FileReader, found: Sequence[Record], rest_start: int | None) -> Rows:
    """Rows of N records.

    Args:
        reader: Reader that knows which columns they are to have.
        found: The records.
        rest_start: Place of the records behind them, see `Rows`.
    """
    errors = {row: record for row, record in enumerate(found) if isinstance(record, str)}
    records = [record if isinstance(record, dict) else {} for record in found]
    kept = [convert_values([r.get(f.name) for r in records], f, errors) for f in reader.kept_schema]
    texts = [[record.get(name) for record in records] for name in reader.text_columns]
    return Rows(
        texts=check_texts(texts, reader.text_columns, errors),
        errors=errors,
        kept=pa.table(kept, schema=reader.kept_schema),
        rest_start=rest_start,
    )


def texts_of(reader: FileReader, found: Sequence[Record]) -> tuple[list[str], ...]:
    """Text columns of N records, "" where a row is bad."""
    records = [record if isinstance(record, dict) else {} for record in found]
    texts = [[record.get(name) for record in records] for name in reader.text_columns]
    return check_texts(texts, reader.text_columns, {})


def convert_values(values: Sequence[Any], field: pa.Field, errors: dict[int, str]) -> pa.Array:
    """Values as a column of the field's type; a row whose value does not fit becomes bad.

    Args:
        values: N values as parsed, None where a row has none.
        field: Name and type of the column.
        errors: Reasons by row; the rows whose value does not fit are added.

    Returns:
        N values, null where the value did not fit.
    """
    with contextlib.suppress(*UNFIT):
        array = pa.array(values, field.type)
        if _is_same(array.to_pylist(), list(values)):
            return array
    converted: list[Any] = []
    for row, value in enumerate(values):
        fitted = None
        with contextlib.suppress(*UNFIT):
            fitted = pa.scalar(value, field.type).as_py()
        if not _is_same(fitted, value):
            fitted = None
            reason = f"column {field.name!r}: {value!r:.60} is not {field.type}"
            errors.setdefault(row, reason.encode("utf-8", "replace").decode())
        converted.append(fitted)
    return pa.array(converted, field.type)


def _is_same(stored: Any, given: Any) -> bool:
    """Whether a value kept its meaning: pyarrow turns 1.5 into 1 in a column of integers."""
    if isinstance(given, dict) and isinstance(stored, dict):
        return all(_is_same(stored.get(key), value) for key, value in given.items())
    if isinstance(given, list) and isinstance(stored, list):
        return len(given) == len(stored) and all(map(_is_same, stored, given))
    return bool(stored == given) or given != given
