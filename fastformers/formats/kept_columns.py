"""Which columns of a file a user means, and the kept ones of all files in one schema.

    names that a user gave, columns of some files -> [kept_columns] -> one schema for all files
    values of kept columns -> [kept_columns, column_types] -> a table of that schema -> shards

A name is that of a column, of a field inside one (`meta.lang`), of a directory (`year=2023/`), or
of what a row's file is called. A column that only passes through never decides whether a row is
scored. This module knows no format and opens no file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.types as kinds

from fastformers.errors import InputError
from fastformers.formats.column_types import (
    fit_array,
    fit_values,
    infer_type,
    known_type,
    merge_types,
    repair_text,
)
from fastformers.options import split_names

# Names that stand for every column of the files, for a row's file, and for its number in it from 0.
ALL_COLUMNS, FILE_COLUMN, ROW_COLUMN = "*", "__file__", "__row__"
_OWN_TYPES = {FILE_COLUMN: pa.string(), ROW_COLUMN: pa.int64()}
_PARTITION = re.compile(r"(?:^|/)([^/=]+)=([^/]*)(?=/)")
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_MISSING = object()


def candidates(given: Iterable[str], columns: Iterable[str]) -> list[str]:
    """Every name that a list of names may mean in a file with these columns."""
    names: list[str] = []
    for name in given:
        names += columns if name == ALL_COLUMNS else (name, *_split(name))
    return list(dict.fromkeys(names))


def choose_names(
    given: Sequence[str], known: Sequence[str], *, flag: str
) -> tuple[list[str], list[str]]:
    """Which columns a list of names means.

    Each is the name of a column, or several names separated by commas; a column of exactly that
    name comes first. "*" stands for all columns.

    Args:
        given: Names as the user wrote them.
        known: Columns that there are.
        flag: The flag, for messages.

    Returns:
        The columns, in the order given, and the names that no column has.

    Raises:
        InputError: A column is named twice.
    """
    chosen: list[str] = []
    for name in given:
        if name != ALL_COLUMNS:
            chosen += [name] if name in known else _split(name) or [name]
    for name, count in Counter(chosen).items():
        if count > 1:
            raise InputError(f"{flag} names the column {name!r} twice")
    names: list[str] = []
    for name in given:
        names += known if name == ALL_COLUMNS else [name] if name in known else _split(name)
    return list(dict.fromkeys(n for n in names if n in known)), [
        name for name in chosen if name not in known
    ]


def plan_schema(
    given: Sequence[str], schemas: Sequence[pa.Schema], paths: Iterable[str], *, flag: str
) -> tuple[pa.Schema, list[str]]:
    """One schema for the kept columns of all files.

    Args:
        given: Names as the user wrote them.
        schemas: Types of the kept columns in some of the files, as far as these have them.
        paths: All files; directories such as `year=2023` are a column of the files below them.
        flag: The flag that names the columns, for messages.

    Returns:
        The schema, and the names that no file has.

    Raises:
        InputError: A column is named twice.
    """
    explicit = candidates((name for name in given if name != ALL_COLUMNS), ())
    types = {name: kind for name, kind in _OWN_TYPES.items() if name in explicit}
    partitions = pa.schema(_partition_types(paths) if given else {})
    for schema in [*schemas, partitions]:
        for name, kind in zip(schema.names, schema.types, strict=True):
            types[name] = merge_types(types.get(name, pa.null()), kind)
    wanted = types if ALL_COLUMNS in given else [name for name in types if name in explicit]
    names, missing = choose_names(given, list(wanted), flag=flag)
    return pa.schema([(name, known_type(types[name])) for name in names]), missing


def keep_rows(
    schema: pa.Schema,
    columns: Mapping[str, Sequence[Any] | pa.ChunkedArray],
    path: str,
    *,
    num_rows: int,
    first_row: int,
) -> tuple[pa.Table, dict[str, int]]:
    """Rows of a file in the schema of the kept columns.

    Args:
        schema: Names and types of the kept columns.
        columns: Values of those that the file has, N each.
        path: The file.
        num_rows: Number of rows, N.
        first_row: Number of the first of them in the file.

    Returns:
        The kept columns, N rows, and the number of values that did not fit, by column.
    """
    partitions = read_directories(path)
    kept: list[pa.Array | pa.ChunkedArray] = []
    unfit: dict[str, int] = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        num_unfit = 0
        if isinstance(values := columns.get(name), pa.ChunkedArray):
            array, num_unfit = fit_array(values, kind)
        elif values is not None:
            array, num_unfit = fit_values(values, kind)
        elif name in partitions:
            array, num_unfit = fit_values([partitions[name]] * num_rows, kind)
        elif name == FILE_COLUMN:
            array = pa.repeat(repair_text(path), num_rows).cast(kind)
        elif name == ROW_COLUMN:
            array, _ = fit_values(range(first_row, first_row + num_rows), kind)
        else:
            array = pa.nulls(num_rows, kind)
        kept.append(array)
        if num_unfit:
            unfit[name] = num_unfit
    return pa.table(kept, schema=schema), unfit


def count_unknown(unfit: dict[str, int], num_values: int) -> None:
    """Count values of columns that no file had when the files were planned."""
    if num_values:
        unfit[ALL_COLUMNS] = unfit.get(ALL_COLUMNS, 0) + num_values


def read_nested(record: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The value of a column in a record of JSON, or of a field of a column as in `meta.lang`.

    A column of exactly that name comes first; `default` where there is none.
    """
    value = _find(record, name)
    return default if value is _MISSING else value


def has_nested(record: Mapping[str, Any], name: str) -> bool:
    """Whether a record of JSON has that column, or that field of a column."""
    return _find(record, name) is not _MISSING


def find_field(fields: Iterable[pa.Field], name: str) -> list[pa.Field]:
    """A column and the fields inside it that a name such as `meta.lang` leads to; else empty."""
    by_name = {field.name: field for field in fields}
    if name in by_name:
        return [by_name[name]]
    for head, tail in _splits(name):
        if head in by_name and kinds.is_struct(by_name[head].type):
            inner = find_field(by_name[head].type, tail)
            if inner:
                return [by_name[head], *inner]
    return []


def read_directories(path: str) -> dict[str, str | int | None]:
    """Columns that the directories of a path name, as in `year=2023/`."""
    found: dict[str, str | int | None] = {}
    for name, text in _PARTITION.findall(path):
        value = unquote(text)
        is_whole = value.removeprefix("-").isdecimal() and str(int(value)) == value
        found[unquote(name)] = (
            None if value == _NO_PARTITION else int(value) if is_whole else repair_text(value)
        )
    return found


def _split(name: str) -> tuple[str, ...]:
    return split_names(name) if "," in name else ()


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """A name cut at each of its dots."""
    for place, character in enumerate(name):
        if character == ".":
            yield name[:place], name[place + 1 :]


def _find(record: Mapping[str, Any], name: str) -> Any:
    if name in record or "." not in name:
        return record.get(name, _MISSING)
    for head, tail in _splits(name):
        inner = record.get(head)
        if isinstance(inner, dict) and (value := _find(inner, tail)) is not _MISSING:
            return value
    return _MISSING


def _partition_types(paths: Iterable[str]) -> dict[str, pa.DataType]:
    values: dict[str, dict[str | int | None, None]] = {}
    directories = dict.fromkeys(path.rpartition("/")[0] + "/" for path in paths)
    for directory in directories:
        for name, value in read_directories(directory).items():
            values.setdefault(name, {})[value] = None
    return {name: infer_type(list(found)) for name, found in values.items()}
