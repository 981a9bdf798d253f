"""Read windows of a corpus, from all over it, for as long as somebody takes them.

    files and their reader -> [windows] -> texts of one window after the other -> transfer_sample

Files are cut into windows by the sizes in their listing, so that none is opened before it is read.
They come in an order of which any beginning is spread evenly over the whole, so that one may stop
wherever one has enough. A file that can only be read in order (a compressed one, an array of JSON)
gives its beginning, and the rest after all windows of the others. This module knows no format, and
nothing of what becomes of the texts.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastformers.formats.file_set import FileSet
from fastformers.formats.readers import FileReader, UnfitFileError

# Rough bytes of text of a window: some thousand rows, so that 128 windows are a sample of 256 MiB.
WINDOW_BYTES = 2 * 2**20


@dataclass(frozen=True, kw_only=True)
class WindowTexts:
    """Texts of a window.

    Attributes:
        path: Its file.
        texts: The text columns; "" where a row is bad.
        has_rest: Whether more of the file comes later, because it can only be read in order.
    """

    path: str
    texts: tuple[list[str], ...]
    has_rest: bool = False


@dataclass(frozen=True, kw_only=True)
class _Window:
    """One of the equal parts of a file, or the rest of a file from a place on."""

    path: str
    size_bytes: int
    part: int = 0
    num_parts: int = 1
    rest_start: int | None = None


def read_windows(files: FileSet, *, seed: int) -> Iterator[WindowTexts]:
    """Texts of all windows, each once, so that any number of them is spread over the corpus.

    Args:
        files: The corpus.
        seed: Decides which window is first; the others follow from it.

    Raises:
        InputError: A file cannot be read, or does not hold the columns.
    """
    reader = files.reader
    num_parts_F = np.array([_count_parts(reader, f.path, f.size_bytes) for f in files.files])
    ends_F = np.cumsum(num_parts_F)
    in_order: set[str] = set()
    rests: deque[_Window] = deque()
    for number in _spread(int(ends_F[-1]), seed):
        window = _window_at(files, num_parts_F, ends_F, number)
        if window.path in in_order:
            continue
        found = None if reader.is_read_whole(window.path) else _sample(reader, window)
        if found is None:
            in_order.add(window.path)
            window = replace(window, part=0, num_parts=1)
            found, rest = _read_on(reader, window)
            rests += [] if rest is None else [rest]
        yield found
    while rests:
        found, rest = _read_on(reader, rests.popleft())
        rests += [] if rest is None else [rest]
        yield found


def _count_parts(reader: FileReader, path: str, size_bytes: int) -> int:
    if reader.is_read_whole(path):
        return 1
    return max(1, round(size_bytes * reader.expansion / WINDOW_BYTES))


def _window_at(
    files: FileSet, num_parts_F: NDArray[np.int64], ends_F: NDArray[np.int64], number: int
) -> _Window:
    index = int(np.searchsorted(ends_F, number, side="right"))
    file, num_parts = files.files[index], int(num_parts_F[index])
    part = number - (int(ends_F[index]) - num_parts)
    return _Window(path=file.path, size_bytes=file.size_bytes, part=part, num_parts=num_parts)


def _spread(number: int, seed: int) -> Iterator[int]:
    """The numbers below `number`, each once, any first of them spread evenly.

    Source:
        Their bits in reverse count up: van der Corput 1935.
    """
    num_bits = (number - 1).bit_length()
    start = int(np.random.default_rng(seed).integers(number))
    for index in range(2**num_bits):
        place = int(f"{index:0{num_bits}b}"[::-1], 2)
        if place < number:
            yield (start + place) % number


def _sample(reader: FileReader, window: _Window) -> WindowTexts | None:
    """Texts of a window; None if its file turns out to be readable in order only."""
    try:
        size = reader.measure_file(window.path, window.size_bytes)
        start, stop = (size * at // window.num_parts for at in (window.part, window.part + 1))
        if start == stop:
            return WindowTexts(path=window.path, texts=tuple([] for _ in reader.text_columns))
        found = reader.sample_span(window.path, start, stop)
    except UnfitFileError as error:
        raise error.with_remedy(reader.options) from error
    if found.is_beginning or found.size != stop - start:
        return None
    return WindowTexts(path=window.path, texts=found.texts)


def _read_on(reader: FileReader, window: _Window) -> tuple[WindowTexts, _Window | None]:
    """The next texts of a file that is read in order, and what is left of it."""
    try:
        rows = reader.read(
            window.path,
            start=0,
            stop=None,
            max_rows=None,
            chunk_bytes=WINDOW_BYTES,
            rest_start=window.rest_start,
        )
    except UnfitFileError as error:
        raise error.with_remedy(reader.options) from error
    has_rest = rows.rest_start is not None
    rest = replace(window, rest_start=rows.rest_start) if has_rest else None
    return WindowTexts(path=window.path, texts=rows.texts, has_rest=has_rest), rest
