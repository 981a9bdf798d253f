"""Split the text of a JSON array into its elements, without holding more than one of them.

    text of a file -> [json_array] -> text of each element -> json_lines -> rows

No element is parsed here, so that one that is not JSON is one bad row. This module knows nothing of
files or columns.
"""

import io
import re
from collections.abc import Iterator

_BLOCK_BYTES = 2**16  # read at a time
# What matters inside a string, between elements, and inside an element. A string of JSON holds no
# line break: it marks that a quote is missing.
_IN_STRING = re.compile(rb'["\n\\]')
_BETWEEN = re.compile(rb'["\[\]{},]')
_IN_ELEMENT = re.compile(rb'["\[\]{}]')


def split_array(
    file: io.BufferedReader, position: int, *, is_inside: bool, max_bytes: int
) -> Iterator[tuple[int, int, bytes]]:
    """Elements of an array, each with the byte where it begins and its size.

    An element begins with the comma before it, so that who goes on behind the last one sees how the
    array ends. One that is too long is cut behind `max_bytes`; one with a line break inside a
    string ends there, and the next one begins behind it.

    Args:
        file: File that is open there.
        position: Byte where it is open: before the array, or behind an element.
        is_inside: Whether it is inside the array.
        max_bytes: Bytes of an element, with the white space around it.

    Raises:
        OSError: The array has no end, or something follows it.
    """
    splitter = _Splitter(position, is_inside=is_inside, max_bytes=max_bytes)
    # Only what is buffered, for behind it the file may be damaged; to look at it copies all of it.
    while num_buffered := len(file.peek()):
        for start in range(0, num_buffered, _BLOCK_BYTES):
            yield from splitter.split(file.read(min(num_buffered - start, _BLOCK_BYTES)))
    if not splitter.is_closed:
        raise OSError("the JSON array has no end, so the file may be cut off")


class _Splitter:
    """Where a reader of an array is.

    Attributes:
        is_closed: Whether the array has ended.
    """

    def __init__(self, position: int, *, is_inside: bool, max_bytes: int) -> None:
        self.is_closed = False
        self._position = self._begin = position
        self._max_bytes = max_bytes
        self._depth = int(is_inside)
        self._in_string = self._is_escaped = False
        self._element = bytearray()

    def split(self, block: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Elements that end in the next block of the file."""
        place, taken = int(self._is_escaped and not block.startswith(b"\n")), 0
        self._is_escaped = False
        while not self.is_closed and (found := self._pattern.search(block, place)) is not None:
            place = found.end()
            if found[0] == b"\\":
                self._is_escaped = place == len(block)
                place += block[place : place + 1] != b"\n"
            elif self._ends_element(found[0]):
                self._add(block[taken : found.start()])
                taken = place
                end = self._position + found.start()
                if found[0] != b"[" and self._element.strip():
                    yield self._begin, end - self._begin, bytes(self._element)
                self._element.clear()
                self._begin = end + (found[0] == b"[")
        if self.is_closed and block[taken:].strip():
            raise OSError("something follows the end of the JSON array")
        self._add(block[taken:])
        self._position += len(block)

    @property
    def _pattern(self) -> re.Pattern[bytes]:
        return _IN_STRING if self._in_string else _BETWEEN if self._depth <= 1 else _IN_ELEMENT

    def _ends_element(self, mark: bytes) -> bool:
        """Move on behind a mark; returns whether an element ends there, or the array begins."""
        if self._in_string:
            if mark == b"\n":
                self._depth = 1
            self._in_string = mark not in (b'"', b"\n")
            return mark == b"\n"
        if mark == b'"':
            self._in_string = True
        elif mark in b"[{":
            self._depth += 1
            return self._depth == 1
        elif self._depth > 1:
            self._depth -= 1
        elif mark == b"]":
            self.is_closed = True
            return True
        return mark == b","

    def _add(self, text: bytes) -> None:
        self._element += text[: self._max_bytes + 1 - len(self._element)]
