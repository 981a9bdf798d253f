"""Read pieces of Parquet, JSON lines and CSV files row by row, whatever is in them.

    slices -> [corpus_formats] -> rows, good and bad, in corpus order -> shards

A bad row (null, not text, undecodable, not JSON, too few fields) never stops a read: it keeps its
place and carries its reason. Parquet knows its types; a JSON lines file's kept columns take the
types of its first megabyte; CSV has no types, so its kept columns are strings.
"""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from fastformers.errors import InputError

_SAMPLE_BYTES = 2**20
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A part of a file as planned: see `corpus.Piece`."""

    start: int
    stop: int | None
    num_bytes: int
    num_rows: int | None = None
    max_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N rows as read.

    Attributes:
        texts: The one or two text columns, each N long; "" where the row is bad.
        errors: Why a row is bad, by its position.
        kept: The columns that pass through, N rows.
        rest_start: Byte where the next rows of this piece begin, or None if all were read.
    """

    texts: tuple[list[str], ...]
    errors: dict[int, str]
    kept: pa.Table
    rest_start: int | None = None


class FileReader(Protocol):
    """Reads files of one format; a frozen dataclass, so it travels to actors."""

    expansion: ClassVar[int]  # bytes of text in a byte of file, roughly

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The one or two columns that are scored."""
        ...

    @property
    def kept_schema(self) -> pa.Schema:
        """Names and types of the columns that pass through."""
        ...

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        """Check a file's columns; None if it holds no rows."""
        ...

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        """Cut a file into parts of about `part_bytes`, at most `limit` rows in all."""
        ...

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        """Read a part; may stop after `chunk_bytes` and say where the rest begins."""
        ...


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Row groups of Parquet files."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
    expansion: ClassVar[int] = 2

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        with pyarrow.parquet.ParquetFile(path, filesystem=filesystem) as file:
            schema = file.schema_arrow
            num_rows = file.metadata.num_rows
        check_columns(path, schema.names, text_columns, keep_columns)
        for name in text_columns:
            kind = schema.field(name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise _not_text(path, name, str(kind))
        if num_rows == 0:
            return None
        kept_schema = pa.schema([schema.field(name).remove_metadata() for name in keep_columns])
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=kept_schema,
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        with pyarrow.parquet.ParquetFile(path, filesystem=self.filesystem) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        for index, group in enumerate(groups):
            if limit is not None and limit <= 0:
                return
            num_rows = group.num_rows if limit is None else min(limit, group.num_rows)
            yield FilePart(
                start=index,
                stop=index + 1,
                num_bytes=group.total_byte_size * num_rows // max(1, group.num_rows),
                num_rows=num_rows,
                max_rows=None if limit is None else num_rows,
            )
            limit = None if limit is None else limit - num_rows

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        columns = [*self.text_columns, *self.kept_schema.names]
        with pyarrow.parquet.ParquetFile(path, filesystem=self.filesystem) as file:
            stop = file.metadata.num_row_groups if stop is None else stop
            num_rows = sum(file.metadata.row_group(i).num_rows for i in range(start, stop))
            num_rows = num_rows if max_rows is None else min(num_rows, max_rows)
            try:
                table = file.read_row_groups(
                    list(range(start, stop)), list(dict.fromkeys(columns)), use_threads=False
                ).slice(0, num_rows)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0]
                if not self.skip_unreadable:
                    raise InputError(
                        f"{path}: row groups {start}-{stop - 1} cannot be read ({reason}); repair "
                        "it, or pass --skip-unreadable-files to list their rows as dead letters"
                    ) from error
                return self._unreadable(num_rows, reason)
        errors: dict[int, str] = {}
        texts = tuple(_decode_column(table[name], name, errors) for name in self.text_columns)
        check_texts(texts, self.text_columns, errors)
        kept = table.select(self.kept_schema.names).cast(self.kept_schema)
        return Rows(texts=texts, errors=errors, kept=kept)

    def _unreadable(self, num_rows: int, reason: str) -> Rows:
        return Rows(
            texts=tuple([""] * num_rows for _ in self.text_columns),
            errors=dict.fromkeys(range(num_rows), f"unreadable row group: {reason}"),
            kept=pa.table(
                [pa.nulls(num_rows, field.type) for field in self.kept_schema],
                schema=self.kept_schema,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """Byte ranges of JSON lines files; a compressed file is one range."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
    expansion: ClassVar[int] = 1

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        with filesystem.open_input_stream(path) as file:
            lines = file.read(_SAMPLE_BYTES).splitlines()
        records = [record for line in lines if isinstance(record := _parse_json(line), dict)]
        if not records:
            if any(line.strip() for line in lines):
                raise InputError(f"{path}: no line of its first MiB is a JSON object")
            return None
        names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
        check_columns(path, names, text_columns, keep_columns)
        for name in text_columns:
            kinds = {type(r[name]).__name__ for r in records if r.get(name) is not None}
            if kinds and "str" not in kinds:
                raise _not_text(path, name, " or ".join(sorted(kinds)))
        try:
            fields = [
                (name, pa.array([r.get(name) for r in records]).type) for name in keep_columns
            ]
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: --keep-columns: mixed types: {error}") from error
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=pa.schema(fields),
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        [info] = self.filesystem.get_file_info([path])
        if limit is not None:
            with _open_lines(self.filesystem, path, 0) as file:
                num_rows = sum(1 for _ in itertools.islice(file, limit))
            yield FilePart(
                start=0, stop=None, num_bytes=info.size, num_rows=num_rows, max_rows=limit
            )
        elif _is_compressed(path):
            yield FilePart(start=0, stop=None, num_bytes=info.size)
        else:
            for start in range(0, info.size, part_bytes):
                stop = min(start + part_bytes, info.size)
                yield FilePart(start=start, stop=stop, num_bytes=stop - start)

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        records: list[dict[str, Any]] = []
        errors: dict[int, str] = {}
        for line in itertools.islice(self._lines(path, start, stop), max_rows):
            record = _parse_json(line)
            if isinstance(record, str):
                errors[len(records)] = record
            records.append(record if isinstance(record, dict) else {})
        texts = tuple([r.get(name) for r in records] for name in self.text_columns)
        clean = check_texts(texts, self.text_columns, errors)
        kept = [_convert([r.get(f.name) for r in records], f, errors) for f in self.kept_schema]
        return Rows(texts=clean, errors=errors, kept=pa.table(kept, schema=self.kept_schema))

    def _lines(self, path: str, start: int, stop: int | None) -> Iterator[bytes]:
        """Lines that begin inside the byte range; the last may end beyond it."""
        with _open_lines(self.filesystem, path, max(0, start - 1)) as file:
            position = max(0, start - 1)
            if start > 0:  # the line that holds the byte before belongs to the range before
                position += len(file.readline())
            for line in file:
                if stop is not None and position >= stop:
                    return
                position += len(line)
                yield line


@dataclass(frozen=True, kw_only=True)
class CsvReader:
    """CSV files with a header line, read in order: a quoted field may hold line breaks."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
    expansion: ClassVar[int] = 1

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        with _open_lines(filesystem, path, 0) as file:
            names = _header(file, [])
            if names is None or file.peek(1) == b"":
                return None
        check_columns(path, names, text_columns, keep_columns)
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=pa.schema([(name, pa.string()) for name in keep_columns]),
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        [info] = self.filesystem.get_file_info([path])
        num_rows = None
        if limit is not None:
            with _open_lines(self.filesystem, path, 0) as file:
                records = csv.reader(_decoded(file, []))
                num_rows = max(0, sum(1 for _ in itertools.islice(records, limit + 1)) - 1)
        yield FilePart(
            start=0, stop=None, num_bytes=info.size, num_rows=num_rows, max_rows=num_rows
        )

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        with _open_lines(self.filesystem, path, 0) as file:
            header_end = [0]
            names = _header(file, header_end) or []
        start = start or header_end[0]
        seekable = not _is_compressed(path) and max_rows is None
        position = [start]
        rows: list[list[str]] = []
        errors: dict[int, str] = {}
        rest_start = None
        with _open_lines(self.filesystem, path, start) as file:
            for fields in itertools.islice(csv.reader(_decoded(file, position)), max_rows):
                if len(fields) != len(names):
                    errors[len(rows)] = f"{len(fields)} fields, but the header has {len(names)}"
                    fields = [""] * len(names)
                rows.append(fields)
                if seekable and position[0] - start >= chunk_bytes and file.peek(1):
                    rest_start = position[0]
                    break
        columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        texts = tuple(list(columns.get(name, ())) for name in self.text_columns)
        kept = [_convert(columns.get(f.name, ()), f, errors) for f in self.kept_schema]
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=pa.table(kept, schema=self.kept_schema),
            rest_start=rest_start,
        )


def check_columns(
    path: str, names: Sequence[str], text_columns: Sequence[str], keep_columns: Sequence[str]
) -> None:
    """Raise an InputError that lists the columns there are, if one is missing or named twice."""
    for flags, wanted in (
        ("--text-column/--text-pair-column", text_columns),
        ("--keep-columns", keep_columns),
    ):
        for name in wanted:
            if name not in names:
                raise InputError(f"{path}: no column {name!r} ({flags}); it has {', '.join(names)}")


def check_texts(
    columns: Sequence[Sequence[Any]], names: Sequence[str], errors: dict[int, str]
) -> tuple[list[str], ...]:
    """Record rows that hold no text, and put "" in their place."""
    for name, values in zip(names, columns, strict=True):
        for row, value in enumerate(values):
            if isinstance(value, str) and value and not value.isspace():
                if not value.isascii() and not _is_unicode(value):
                    errors.setdefault(row, f"column {name!r}: invalid UTF-8")
                continue
            errors.setdefault(
                row,
                f"column {name!r}: null text"
                if value is None
                else f"column {name!r}: {type(value).__name__}, not text"
                if not isinstance(value, str)
                else f"column {name!r}: empty text",
            )
    return tuple(
        [value if row not in errors else "" for row, value in enumerate(values)]
        for values in columns
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate stands for an undecodable byte
        return False
    return True


def _decode_column(column: pa.ChunkedArray, name: str, errors: dict[int, str]) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        values: list[Any] = column.cast(pa.large_binary()).to_pylist()
        return [
            value if value is None else value.decode("utf-8", "surrogateescape") for value in values
        ]


def _parse_json(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or why there is none."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else f"not a JSON object but {type(value).__name__}"


def _convert(values: Sequence[Any], field: pa.Field, errors: dict[int, str]) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        converted: list[Any] = []
        for row, value in enumerate(values):
            try:
                converted.append(pa.scalar(value, field.type))
            except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
                errors.setdefault(row, f"column {field.name!r}: {value!r:.60} is not {field.type}")
                converted.append(pa.scalar(None, field.type))
        return pa.array([scalar.as_py() for scalar in converted], field.type)


def _not_text(path: str, name: str, kind: str) -> InputError:
    return InputError(f"{path}: column {name!r} holds {kind}, not text (--text-column)")


def _is_compressed(path: str) -> bool:
    return path.lower().endswith((".gz", ".bz2", ".zst"))


def _open_lines(filesystem: pyarrow.fs.FileSystem, path: str, start: int) -> io.BufferedReader:
    """Open a text file's bytes at an offset, decompressed."""
    if _is_compressed(path):
        stream = filesystem.open_input_stream(path)
        stream.read(start)
        return io.BufferedReader(stream, _SAMPLE_BYTES)
    file = filesystem.open_input_file(path)
    file.seek(start)
    return io.BufferedReader(file, _SAMPLE_BYTES)


def _decoded(file: io.BufferedReader, position: list[int]) -> Iterator[str]:
    """Lines as text, undecodable bytes as surrogates; counts the bytes in `position[0]`."""
    for line in file:
        if position:
            position[0] += len(line)
        yield line.replace(b"\0", b"").decode("utf-8", "surrogateescape")


def _header(file: io.BufferedReader, position: list[int]) -> list[str] | None:
    fields = next(csv.reader(_decoded(file, position)), None)
    if not fields:
        return None
    return [fields[0].removeprefix("\ufeff"), *fields[1:]]
