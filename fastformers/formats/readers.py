"""What every file format of a corpus must do, and the checks that all of them share.

    slices -> [readers] -> rows, good and bad, in corpus order -> shards
    spans of a file -> [readers] -> texts -> sampling

A format is a module with one `FileReader` and a line in the table of `recognize.py`. Files are cut
by their sizes alone and opened where they are read, so each read checks that its file holds what
the first file holds. A bad row (null, not text, undecodable, not JSON, too few fields) never stops
a read: it keeps its place and carries its reason. This module knows no format.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

import pyarrow as pa
import pyarrow.fs

from fastformers.errors import InputError
from fastformers.formats.text_file_config import PLAIN_TEXT_FILES, TextFileConfig

KEEP_FLAG = "--keep-columns"


class UnfitFileError(InputError):
    """A file that cannot be read, or does not hold the columns that the corpus holds.

    Attributes:
        path: The file.
        reason: What is wrong with it, without its name.
    """

    def __init__(self, path: str, reason: str) -> None:
        """Both are the error's arguments, so that it pickles."""
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def with_remedy(self, options: "ReadOptions") -> InputError:
        """The same with what the user may do."""
        return InputError(f"{self}; {options.remedy('score the others', 'repair or remove it')}")


class UnreadableFileError(UnfitFileError):
    """A file that cannot be read at all."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How files are read, whatever their columns.

    Attributes:
        skip_unreadable: Whether files that cannot be read are left out, instead of ending the run.
        can_skip: Whether the user's command has the flag for that, for messages.
        text_flags: The flags that name text columns, for messages.
        binary_text: Whether columns of bytes are read as text in UTF-8.
        when_empty: What is said of files without rows.
        text_files: How text files are written.
    """

    skip_unreadable: bool = False
    can_skip: bool = True
    text_flags: str = "--text-column/--text-pair-column"
    binary_text: bool = False
    when_empty: str = "the corpus is empty"
    text_files: TextFileConfig = PLAIN_TEXT_FILES

    def remedy(self, aim: str, mend: str = "repair it") -> str:
        """What to do about a file that cannot be read: mend it, or leave it out for some aim."""
        return f"{mend}, or pass --skip-unreadable-files to {aim}" if self.can_skip else mend


READ_STRICTLY = ReadOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class FilePart:
    """A planned part of a file, with its size; it becomes a `slices.Piece`.

    Attributes:
        start, stop: First byte, and the byte after the last; None for the end of the file.
        num_bytes: Rough bytes of text in it.
        num_rows: Rows in it, where they were counted.
    """

    start: int
    stop: int | None
    num_bytes: int
    num_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N rows as read.

    Attributes:
        texts: The text columns, each N long; "" where the row is bad.
        errors: Reason why a row is bad, by its position.
        kept: The columns that pass through, N rows.
        unfit: Number of values that have no place in the kept columns, by column; under "*" those
            of columns that no file had when the files were planned.
        rest_start: Place where the next rows of this part begin, for `FileReader.read`; None if all
            were read.
    """

    texts: tuple[list[str], ...]
    errors: dict[int, str]
    kept: pa.Table
    unfit: dict[str, int] = field(default_factory=dict)
    rest_start: int | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows, good and bad."""
        return len(self.texts[0])


@dataclass(frozen=True, kw_only=True)
class SampledRows:
    """Rows of a sample.

    Attributes:
        texts: The text columns; "" where a row is bad.
        size: How much of the file they are, in rows or bytes as for `FileReader.measure_file`.
        is_beginning: Whether they are the beginning of a file that can only be read in order, whose
            rest is not sampled.
    """

    texts: tuple[list[str], ...]
    size: int
    is_beginning: bool = False


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
        """Names and types of the columns that pass through.

        As `open` returns it, of those that its file has; null where the file has no value.
        """
        ...

    @property
    def keeps_all(self) -> bool:
        """Whether a column of a file that is not among the kept ones counts as unfit."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the file that it was opened for."""
        ...

    @property
    def first_path(self) -> str:
        """File that it was opened for."""
        ...

    @property
    def options(self) -> ReadOptions:
        """How files are read."""
        ...

    @property
    def guesses(self) -> tuple[str, ...]:
        """What was guessed about the files, a line each, for the user to see."""
        ...

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        options: ReadOptions,
    ) -> Self | None:
        """Check a file's text columns, and find the kept ones; None if it holds no rows.

        Args:
            filesystem: Where it is.
            path: The file.
            text_columns: Columns, or fields of columns as in `meta.text`, that hold text.
            keep_columns: Names as the user wrote them, see `kept_columns.candidates`.
            options: How files are read.

        Raises:
            UnfitFileError: It cannot be read, lacks a text column, or has one that holds no text.
        """
        ...

    def keep(self, kept_schema: pa.Schema, *, keeps_all: bool) -> Self:
        """The same reader for kept columns of these types, which no file needs to have.

        Args:
            kept_schema: Names and types.
            keeps_all: See the attribute.
        """
        ...

    def cut_file(self, path: str, size_bytes: int, part_bytes: int) -> Iterator[FilePart]:
        """Cut a file into parts of about `part_bytes` of text, from its size, without opening it.

        Each row is in exactly one part, and the parts hold the rows in the file's order.
        """
        ...

    def cut_rows(
        self, path: str, size_bytes: int, part_bytes: int, limit: int
    ) -> Iterator[FilePart]:
        """Cut the first `limit` rows of a file, or somewhat more, into parts with their rows.

        Raises:
            UnfitFileError: It cannot be read, or does not hold the columns.
            InputError: It is damaged, and unreadable files are not to be skipped.
        """
        ...

    def read(
        self,
        path: str,
        *,
        start: int,
        stop: int | None,
        max_rows: int | None,
        chunk_bytes: int,
        rest_start: int | None = None,
        first_row: int = 0,
    ) -> Rows:
        """Read a part; may stop after `chunk_bytes` of text and say where the rest begins.

        A file that turns out to be readable in order only is in its first part as a whole.

        Args:
            path: The file.
            start, stop: First byte, and the byte after the last; None for the end of the file.
            max_rows: Rows to read at most, or None.
            chunk_bytes: Bytes of text after which to stop.
            rest_start: Where an earlier read of this part stopped; None at its beginning.
            first_row: Number in the file of the first row, where the parts of a file are read one
                after the other and the file itself does not tell.

        Raises:
            UnfitFileError: The file cannot be read, or does not hold the columns.
            InputError: The part is damaged, and unreadable files are not to be skipped.
        """
        ...

    def is_read_whole(self, path: str) -> bool:
        """Whether a file's name says that it can only be read in order, so that it is one span."""
        ...

    def measure_file(self, path: str, size_bytes: int) -> int:
        """Size of a file in the unit of its spans: rows or bytes.

        Raises:
            UnfitFileError: It cannot be read.
        """
        ...

    def sample_span(self, path: str, start: int, stop: int) -> SampledRows:
        """Texts of the rows that begin in a span, for samples.

        Spans that tile a file hold each of its rows once. A file that can only be read in order
        gives its beginning for any span, and says how much of the file that is.

        Raises:
            InputError: The file cannot be read there.
        """
        ...


def no_rows(reader: FileReader) -> Rows:
    """What is read of a file that has no rows."""
    return Rows(
        texts=tuple([] for _ in reader.text_columns),
        errors={},
        kept=reader.kept_schema.empty_table(),
    )


@contextmanager
def opening(path: str) -> Iterator[None]:
    """Say which file it was that could not be opened.

    Raises:
        UnreadableFileError: The block could not read or parse it.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise UnreadableFileError(path, f"cannot be read ({str(error).splitlines()[0]})") from error


def cut_evenly(size_bytes: int, part_bytes: int, expansion: int) -> Iterator[FilePart]:
    """Cut a file into equal byte ranges; the last goes on to wherever the file ends.

    Args:
        size_bytes: Size of the file.
        part_bytes: Bytes of text that a part holds at most.
        expansion: Bytes of text per byte of the file.
    """
    num_parts = max(1, -(-size_bytes * expansion // part_bytes))
    num_parts = min(num_parts, max(1, size_bytes))
    marks = [size_bytes * number // num_parts for number in range(num_parts)]
    for start, stop in zip(marks, [*marks[1:], None], strict=True):
        end = size_bytes if stop is None else stop
        yield FilePart(start=start, stop=stop, num_bytes=(end - start) * expansion)


def check_columns(path: str, names: Sequence[str], wanted: Sequence[str], *, flag: str) -> None:
    """Check that a file has no column twice of those that are wanted, which a flag names.

    Raises:
        UnfitFileError: It has; names the column.
    """
    counts = Counter(names)
    for name in wanted:
        if counts[name] > 1:
            raise UnfitFileError(path, f"two columns are called {name!r} ({flag}); rename one")


def check_text_columns(
    path: str, names: Sequence[str], text_columns: Sequence[str], *, flags: str
) -> None:
    """Check that a file has the columns that hold text, once; `flags` name them.

    Raises:
        UnfitFileError: One is missing or named twice; lists the columns.
    """
    check_columns(path, names, text_columns, flag=flags)
    for name in text_columns:
        if name not in names:
            raise no_column(path, names, name, flag=flags)


def no_column(path: str, names: Sequence[str], name: str, *, flag: str) -> UnfitFileError:
    """The error that refuses a file without a column; the caller raises it."""
    shown = [name if name == name.strip() != "" else repr(name) for name in names[:50]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown):,} more")
    return UnfitFileError(path, f"no column {name!r} ({flag}); it has {', '.join(shown)}")


def not_text(path: str, name: str, kind: str, *, flags: str) -> UnfitFileError:
    """The error that refuses a column whose values are not text; the caller raises it."""
    return UnfitFileError(path, f"column {name!r} holds {kind}, not text ({flags})")
