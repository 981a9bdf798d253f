"""Split the text of a CSV file into records, strictly.

    lines of a file -> [csv_records] -> fields of each record, or why there are none -> csv_files

The csv module splits; a line that no record can begin with is one bad record, and whatever else the
module has taken until it noticed is given to it again. This module knows nothing of files or
columns.
"""

import csv
from collections import deque
from collections.abc import Iterator

from fastformers.formats.records.record_stream import Lines, show_start
from fastformers.formats.text_file_config import TextFileConfig

# Stands for a carriage return inside a field while the csv module splits it, to which it would end
# the line; no text decodes to it.
_CARRIAGE_RETURN = "\ud800"
csv.field_size_limit(2**31 - 1)  # the csv module's own limit of a field is 128 KiB


def read_records(
    lines: Lines, encoding: str, delimiter: str, config: TextFileConfig
) -> Iterator[tuple[int, int, list[str] | str]]:
    """Fields of each record with the byte where it begins, or the reason why it has none.

    Blank lines are not records. A line that no record can begin with is one alone.
    """
    feed = _Feed(lines, encoding, config.max_row_bytes)
    quote, escape = config.quote, config.csv_escape
    reader = csv.reader(
        feed,
        delimiter=delimiter,
        quotechar=quote,
        escapechar=escape,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        begin = feed.begin()
        try:
            fields = next(reader, None)
        except _TooLongError:
            reason = f"longer than {config.max_row_bytes:,} bytes (--max-row-bytes)"
            if not lines.is_cut(feed.taken[0][0]):
                reason = f"a quoted field is {reason}; is its quote closed?"
            yield begin, feed.reject(), reason
        except csv.Error as error:
            escapes = f"\\{quote}".encode() if quote and escape is None else b"\n\n"
            hint = "; if backslashes escape quotes, name --csv-escape"
            first = feed.taken[0][0]
            reason = f"not CSV: {error}, in {show_start(first, encoding)}"
            reason += hint if escapes in first else ""
            yield begin, feed.reject(), reason
        else:
            if fields is None:
                return
            if fields:
                yield begin, feed.taken[-1][1] - begin, feed.restore(fields)


class _TooLongError(Exception):
    """The lines of a record are longer than a row may be."""


class _Feed:
    """Lines for the csv module, which take those of a record that is none back.

    Attributes:
        taken: Lines of the record that is read now, each with the byte behind it.
    """

    def __init__(self, lines: Lines, encoding: str, max_bytes: int) -> None:
        self.taken: list[tuple[bytes, int]] = []
        self._lines, self._encoding, self._max_bytes = lines, encoding, max_bytes
        self._position, self._num_bytes = lines.position, 0
        self._has_returns = False
        self._left: deque[tuple[bytes, int]] = deque()

    def begin(self) -> int:
        """Begin a record behind the lines that were taken; returns the byte where it begins."""
        if self.taken:
            self._position = self.taken[-1][1]
        self.taken, self._num_bytes, self._has_returns = [], 0, False
        return self._position

    def reject(self) -> int:
        """Take back all lines of a record but its first; returns the size of that one."""
        self._left.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]
        return self.taken[0][1] - self._position

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        self.taken.append(self._left.popleft() if self._left else self._read())
        line = self.taken[-1][0]
        self._num_bytes += len(line)
        if self._num_bytes - line.endswith(b"\n") > self._max_bytes:
            raise _TooLongError
        try:
            text = line.decode(self._encoding, "surrogateescape")
        except UnicodeDecodeError:  # not even the bytes that are no text can be told apart
            text = line.decode("ascii", "surrogateescape")
        if self._position == 0 and len(self.taken) == 1:
            text = text.removeprefix("\ufeff")
        if "\r" not in text:
            return text
        body = text.removesuffix("\n").removesuffix("\r")
        self._has_returns |= "\r" in body
        return body.replace("\r", _CARRIAGE_RETURN) + text[len(body) :]

    def restore(self, fields: list[str]) -> list[str]:
        """Fields with the carriage returns that they had."""
        if not self._has_returns:
            return fields
        return [field.replace(_CARRIAGE_RETURN, "\r") for field in fields]

    def _read(self) -> tuple[bytes, int]:
        line = next(self._lines)
        return line, self._lines.position
