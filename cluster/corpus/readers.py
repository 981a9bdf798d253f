"""What every file format of a corpus must do, and the checks that all of them share.

    slices -> [readers] -> rows, good and bad, in corpus order -> shards
    spans of a file -> [readers] -> texts -> sampling

A format is a module with one `FileReader` and a line in the table of `slices.py`. A bad row (null,
not text, undecodable, not JSON, too few fields) never stops a read: it keeps its place and carries
its reason. This module knows no format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import pyarrow as pa
import pyarrow.fs

from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A planned part of a file, with its size; it becomes a `slices.Piece`."""

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
        errors: Reason why a row is bad, by its position.
        kept: The columns that pass through, N rows.
        rest_start: Byte where the next rows of this piece begin, or None if all were read.
    """

    texts: tuple[list[str], ...]
    errors: dict[int, str]
    kept: pa.Table
    rest_start: int | None = None


class FileReader(Protocol):
    """Reads files of one format; a frozen dataclass, so it travels to actors.

    Attributes:
        expansion: Rough number of bytes of text per byte of a file.
        sampled_in_rows: Whether the spans of a sample are counted in rows, because a file says how
            many it has; else they are counted in bytes.
    """

    expansion: ClassVar[int]
    sampled_in_rows: ClassVar[bool]

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
        """Check a file's columns; None if it holds no rows.

        Raises:
            InputError: A column is missing or holds no text.
            OSError, ValueError: The file is damaged.
        """
        ...

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        """Cut a file into parts of about `part_bytes`, at most `limit` rows in all."""
        ...

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        """Read a part; may stop after `chunk_bytes` and say where the rest begins.

        Raises:
            InputError: The part is damaged, and unreadable files are not to be skipped.
        """
        ...

    def is_read_whole(self, path: str) -> bool:
        """Whether a file can only be read from its start to its end, so that it is one span."""
        ...

    def measure_file(self, path: str, size_bytes: int) -> int:
        """Size of a file in the unit of its spans: rows or bytes."""
        ...

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        """Texts of the rows that begin in a span, for samples; "" where a row is bad.

        Spans that tile a file hold each of its rows once. A file that is read whole gives all of
        its rows for any span.

        Raises:
            InputError: The file cannot be read there.
        """
        ...


def check_columns(
    path: str, names: Sequence[str], text_columns: Sequence[str], keep_columns: Sequence[str]
) -> None:
    """Raise an InputError that lists the columns there are, if one is missing or named twice."""
    for flags, wanted in (
        ("--text-column/--text-pair-column", text_columns),
        ("--keep-columns", keep_columns),
    ):
        for name in wanted:
            if list(names).count(name) > 1:
                raise InputError(f"{path}: two columns are called {name!r} ({flags}); rename one")
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


def not_text(path: str, name: str, kind: str) -> InputError:
    """The error that refuses a column whose values are not text; the caller raises it."""
    return InputError(f"{path}: column {name!r} holds {kind}, not text (--text-column)")
