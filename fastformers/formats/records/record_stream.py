"""Read a file record by record, in chunks of a size, and go on where an earlier read stopped.

    text of a file -> [record_stream] -> lines -> records -> chunks of rows -> readers

A line has a bound, and so has a chunk, so that memory is bounded whatever a few bytes decompress
to. A read that stops in the middle of a file leaves it open for the next one in the same process:
a compressed file would have to be decompressed from its start again. Another process does just
that. This module knows no format.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from fastformers.errors import InputError
from fastformers.formats.readers import FileReader, ReadOptions

T = TypeVar("T")

# Bytes of a file that tell its columns and their types, and bytes that are read ahead at least.
SAMPLE_BYTES = 2**20
# Decoded bytes of a file that can only be read from its start that stand for it in a sample; few
# are read ahead of them, so that their share of the file is known.
MAX_SAMPLE_BYTES, SAMPLE_AHEAD_BYTES = 16 * 2**20, 2**16
# A row takes memory however short it is: about what this many bytes of text take.
_ROW_BYTES = 64
_MAX_OPEN = 4
_SKIPPED_BYTES = 2**16
# Bytes of a record that a message shows.
_SHOWN_BYTES = 40


class Lines:
    """Lines of an open file, none longer than a bound.

    A longer line is cut behind the bound, and the rest of it passed over.

    Attributes:
        position: Byte of the file after the last line that was taken.
    """

    def __init__(self, file: io.BufferedReader, position: int, *, max_bytes: int) -> None:
        """Begin with a file that is open at a position."""
        self._file, self._max_bytes = file, max_bytes
        self.position = position

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(self._max_bytes + 1)
        if not line:
            raise StopIteration
        self.position += len(line)
        tail = line
        while self.is_cut(line) and tail and not tail.endswith(b"\n"):
            tail = self._file.readline(_SKIPPED_BYTES)
            self.position += len(tail)
        return line

    def is_cut(self, line: bytes) -> bool:
        """Whether a line was longer than the bound."""
        return len(line) > self._max_bytes and not line.endswith(b"\n")


def show_start(line: bytes, encoding: str) -> str:
    """How a line begins, quoted and escaped, for the reason why it is no record."""
    return repr(line[:_SHOWN_BYTES].decode(encoding, errors="ignore").strip())


class RecordStream(Generic[T]):
    """Records of a part of a file, taken in chunks.

    Attributes:
        rest: Place of the next record; None before the first chunk and after the last.
    """

    def __init__(self, records: Iterator[tuple[int, int, T]]) -> None:
        """Begin with records, each behind its place and its size in bytes."""
        self._records = records
        self._next: tuple[int, int, T] | None = None
        self.rest: int | None = None

    def take(self, *, max_records: int | None, chunk_bytes: int) -> list[T]:
        """The next records, at least one if any is left.

        Args:
            max_records: Records to take at most, or None.
            chunk_bytes: Bytes after which no further record is taken.
        """
        taken: list[T] = []
        taken_bytes = 0
        while max_records is None or len(taken) < max_records:
            found = self._next or next(self._records, None)
            self._next = self.rest = None
            if found is None:
                break
            place, num_bytes, record = found
            if taken_bytes >= chunk_bytes:
                self._next, self.rest = found, place
                break
            taken.append(record)
            taken_bytes += max(num_bytes, _ROW_BYTES)
        return taken


class OpenStreams:
    """Streams that stopped in the middle of a file, for the read in this process that goes on."""

    def __init__(self) -> None:
        """Begin with none."""
        self._streams: OrderedDict[Hashable, tuple[object, RecordStream[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, key: Hashable, owner: object, stream: RecordStream[T]) -> None:
        """Keep a stream; the one that was kept longest is closed if there are many.

        Args:
            key: What the next read asks for.
            owner: Reader that it is of, which an equal one may use.
            stream: The stream.
        """
        with self._lock:
            self._streams[key] = owner, stream
            if len(self._streams) > _MAX_OPEN:
                self._streams.popitem(last=False)

    def take(self, key: Hashable, owner: object) -> RecordStream[Any] | None:
        """The stream that was kept for a key, or None."""
        with self._lock:
            found = self._streams.pop(key, None)
        return found[1] if found is not None and found[0] == owner else None


OPEN_STREAMS = OpenStreams()


def read_chunk(
    reader: FileReader,
    part: tuple[str, int, int | None],
    open_records: Callable[[], Iterator[tuple[int, int, T]]],
    *,
    rest_start: int | None,
    max_records: int | None,
    chunk_bytes: int,
) -> tuple[list[T], int | None]:
    """The next records of a part of a file, and the place of those behind them, or None.

    Args:
        reader: Reader that reads it.
        part: Path, first byte and byte after the last.
        open_records: What opens the file for `rest_start`, if it is not open.
        rest_start, chunk_bytes: As for `FileReader.read`.
        max_records: Records to take at most, or None.
    """
    stream: RecordStream[T] | None = None
    if rest_start is not None:
        stream = OPEN_STREAMS.take((*part, rest_start), reader)
    if stream is None:
        stream = RecordStream(open_records())
    taken = stream.take(max_records=max_records, chunk_bytes=chunk_bytes)
    if stream.rest is not None:
        OPEN_STREAMS.keep((*part, stream.rest), reader, stream)
    return taken, stream.rest


def until_damage(
    records: Iterator[tuple[int, int, T | str]], path: str, options: ReadOptions
) -> Iterator[tuple[int, int, T | str]]:
    """Records, and a reason in place of those behind the place where a file cannot be read.

    Raises:
        InputError: The file is damaged, and unreadable files are not to be skipped.
    """
    end = 0
    try:
        for place, num_bytes, record in records:
            yield place, num_bytes, record
            end = place + num_bytes
    except OSError as error:
        yield end, 0, unreadable_reason(path, error, options)


def unreadable_reason(path: str, error: OSError, options: ReadOptions) -> str:
    """Reason for the row from which on a file cannot be read, for example because it was cut off.

    Raises:
        InputError: The user did not ask to read damaged files in part.
    """
    if options.skip_unreadable:
        return f"the file cannot be read from here on: {error}"
    raise InputError(
        f"{path}: cannot be read to its end ({error}); {options.remedy('score what can be read')}"
    ) from error
