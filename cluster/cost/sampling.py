"""Sample a corpus: windows as long as a shard, from all over it, and rows at random from each.

    corpus -> [sampling] -> lengths and repeats of some rows -> workload

Scoring finds equal texts within a shard, so the share of repeats only shows in stretches as long as
a shard. Reading such a stretch is cheap and tokenizing it is not: a window is read whole and its
texts compared, but only some of its rows are tokenized. One window is drawn from each of equal
strata of the corpus, with a given seed. Their size is in rows where a file says how many it has,
and in bytes elsewhere, where the number of rows is itself estimated
(`FileReader.sampled_in_rows`); this module knows no file format. Texts that differ but have equal
token ids (by case, or beyond the maximum length) count as different: the cost errs on the high
side.

Shape suffixes: N rows of a window, S rows of it that were tokenized.
"""

import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.corpus.reading import READ_THREADS
from fastformers.cluster.corpus.slices import OPEN_THREADS, Corpus
from fastformers.cluster.storage.ahead import map_ahead
from fastformers.errors import InputError
from fastformers.files.listing import SourceFile
from fastformers.formats.readers import FileReader, SampledRows, UnfitFileError
from fastformers.formats.records.record_stream import MAX_SAMPLE_BYTES
from fastformers.formatting import format_count
from fastformers.inference.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

NUM_WINDOWS = 32
MIN_SAMPLE_ROWS = 100
# A hundredth of the corpus, but no fewer rows than keep the interval narrow and no more than take a
# minute to tokenize.
DEFAULT_SHARE, DEFAULT_MIN_ROWS, DEFAULT_MAX_ROWS = 0.01, 5_000, 50_000
_PILOT_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of the corpus, as sampled.

    Attributes:
        size: Size of the window in rows or bytes, the unit of the sample.
        num_rows: Rows in it, N.
        num_bad: Of these, rows without a usable text.
        num_unique: Different usable texts in it.
        lengths_S: Tokens of the rows tokenized, 0 for a bad row.
        is_first_S: Whether the row is the first of its text in the window, so that it is scored.
    """

    size: int
    num_rows: int
    num_bad: int
    num_unique: int
    lengths_S: NDArray[np.int64]
    is_first_S: NDArray[np.bool_]

    @property
    def weights_S(self) -> NDArray[np.float64]:
        """Weight of each row tokenized in what is estimated of the texts that are scored.

        The mean of all weights is the share of the window's rows that are scored, which is known.
        Rows that are the first of their text have one; where a few texts fill the window and none
        of their first rows was drawn, all usable rows do.
        """
        stand_S = self.is_first_S if self.is_first_S.any() else self.lengths_S > 0
        weight = self.num_unique / self.num_rows / float(stand_S.mean()) if stand_S.any() else 0.0
        weights_S: NDArray[np.float64] = np.where(stand_S, weight, 0.0)
        return weights_S


@dataclass(frozen=True, kw_only=True)
class CorpusSample:
    """Windows of a corpus.

    Attributes:
        windows: Windows in corpus order.
        total_size: Size of the corpus, in the unit of `Window.size`.
        num_windows: Number of windows that the whole corpus would have.
        is_rows: Whether sizes are rows, so that the number of rows is known.
        text_bytes: Rough bytes of text, from the sizes of the files.
        max_length: Tokens a row is truncated to.
    """

    windows: tuple[Window, ...]
    total_size: int
    num_windows: int
    is_rows: bool
    text_bytes: int
    max_length: int

    @property
    def num_rows(self) -> int:
        """Number of rows that were tokenized."""
        return sum(len(window.lengths_S) for window in self.windows)


@dataclass(frozen=True, kw_only=True)
class _FileRange:
    """A window's place: a stretch of one file, in rows or bytes."""

    path: str
    start: int
    stop: int


def sample_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    num_shards: int,
    size: float | None,
    seed: int,
) -> CorpusSample:
    """Sample a corpus.

    Args:
        corpus: Corpus to sample.
        tokenizer: Tokenizer that gives the lengths.
        max_length: Tokens that the tokenizer truncates to.
        num_shards: About how many shards the corpus would be cut into.
        size: Share of the rows to tokenize (at most 1), or their number; None for a default that
            suits most corpora.
        seed: Seed of the random choice of windows and rows.

    Raises:
        InputError: The corpus or the sample is too small, or a file cannot be read.
    """
    rng = np.random.default_rng(seed)
    reader, paths = corpus.reader, [file.path for file in corpus.files]
    is_rows = reader.sampled_in_rows
    sizes = list(map_ahead(partial(_measure, reader), corpus.files, num_threads=OPEN_THREADS))
    rows_per_unit = 1.0 if is_rows else _pilot_rows_per_byte(corpus)
    expected_rows = max(1, round(sum(sizes) * rows_per_unit))
    wanted = _plan_sample_rows(size, expected_rows, paths[0])
    spans = _plan_spans(reader, paths, sizes, num_shards)
    num_read = min(len(spans), max(NUM_WINDOWS, -(-wanted * len(spans) // expected_rows)))
    chosen = _draw(len(spans), num_read, rng)
    share = wanted / max(1.0, sum(spans[i].stop - spans[i].start for i in chosen) * rows_per_unit)
    drawn = [spans[index] for index in chosen]
    read = map_ahead(partial(_read_span, reader), drawn, num_threads=READ_THREADS)
    windows, cut = [], set()
    for span, rows in zip(drawn, read, strict=True):
        windows.append(_sample_window(rows, tokenizer, share, rng))
        cut.update([span.path] if rows.is_beginning else [])
    _tell_cut(cut)
    return CorpusSample(
        windows=tuple(windows),
        total_size=sum(sizes),
        num_windows=len(spans),
        is_rows=is_rows,
        text_bytes=corpus.text_bytes,
        max_length=max_length,
    )


def _tell_cut(paths: Collection[str]) -> None:
    """Say that files are sampled at their beginnings alone."""
    if paths:
        others = "" if len(paths) == 1 else f" and {format_count(len(paths) - 1, 'other file')}"
        logger.warning(
            "%s%s: read in order, so only about the first %d MiB of text of each are sampled: if "
            "the rows behind are longer or shorter, the cost is another",
            min(paths),
            others,
            MAX_SAMPLE_BYTES // 2**20,
        )


def _measure(reader: FileReader, file: SourceFile) -> int:
    """Size of a file in the unit of the sample; 0 where it cannot be read and is left out."""
    try:
        return reader.measure_file(file.path, file.size_bytes)
    except UnfitFileError as error:
        if not reader.options.skip_unreadable:
            raise error.with_remedy(reader.options) from error
        return 0


def _read_span(reader: FileReader, span: _FileRange) -> SampledRows:
    """Texts of a window; none where its file does not fit and is left out."""
    try:
        return reader.sample_span(span.path, span.start, span.stop)
    except UnfitFileError as error:
        if not reader.options.skip_unreadable:
            raise error.with_remedy(reader.options) from error
        empty: tuple[list[str], ...] = tuple([] for _ in reader.text_columns)
        return SampledRows(texts=empty, size=span.stop - span.start)


def _plan_sample_rows(size: float | None, expected_rows: int, path: str) -> int:
    if size is None:
        wanted = round(DEFAULT_SHARE * expected_rows)
        return min(expected_rows, max(DEFAULT_MIN_ROWS, min(DEFAULT_MAX_ROWS, wanted)))
    if not 0 < size < np.inf or (size > 1 and size != int(size)):
        raise InputError(f"--sample {size:g}: give a share up to 1, or a whole number of rows")
    wanted = min(expected_rows, round(size * expected_rows) if size <= 1 else int(size))
    if wanted < min(MIN_SAMPLE_ROWS, expected_rows):
        raise InputError(
            f"{path}: corpus of about {expected_rows:,} rows is too small for --sample {size:g}: "
            f"{wanted} rows, and an estimate needs {MIN_SAMPLE_ROWS}; give --sample 1 to read all"
        )
    return wanted


def _plan_spans(
    reader: FileReader, paths: Sequence[str], sizes: Sequence[int], num_shards: int
) -> list[_FileRange]:
    """Cut files into windows of about a shard each; a file that is read whole is one window."""
    length = max(1, -(-sum(sizes) // max(1, num_shards)))
    spans: list[_FileRange] = []
    for path, size in zip(paths, sizes, strict=True):
        parts = 1 if reader.is_read_whole(path) else max(1, round(size / length))
        marks = np.linspace(0, size, parts + 1).astype(np.int64).tolist()
        spans.extend(
            _FileRange(path=path, start=start, stop=stop)
            for start, stop in itertools.pairwise(marks)
            if stop > start
        )
    return spans


def _draw(num_spans: int, num_read: int, rng: np.random.Generator) -> list[int]:
    """Draw one span from each of `num_read` equal strata."""
    edges = np.linspace(0, num_spans, num_read + 1).astype(np.int64)
    return [int(rng.integers(start, stop)) for start, stop in itertools.pairwise(edges.tolist())]


def _sample_window(
    sampled: SampledRows,
    tokenizer: Tokenizer,
    share: float,
    rng: np.random.Generator,
) -> Window:
    """Compare all texts of a window, and tokenize a share of them."""
    rows = list(zip(*sampled.texts, strict=True))
    num_rows = len(rows)
    first_of: dict[tuple[str, ...], int] = {}
    for index, row in enumerate(rows):
        if all(row):
            first_of.setdefault(row, index)
    num_taken = min(num_rows, max(2, round(share * num_rows)))
    taken = np.sort(rng.choice(num_rows, num_taken, replace=False)).tolist()
    good = [index for index in taken if all(rows[index])]
    texts = [[rows[index][column] for index in good] for column in range(len(sampled.texts))]
    tokens = tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
    length_of = dict(zip(good, tokens.lengths_N.tolist(), strict=True))
    return Window(
        size=sampled.size,
        num_rows=num_rows,
        num_bad=sum(not all(row) for row in rows),
        num_unique=len(first_of),
        lengths_S=np.array([length_of.get(index, 0) for index in taken], np.int64),
        is_first_S=np.array([first_of.get(rows[index]) == index for index in taken], bool),
    )


def _pilot_rows_per_byte(corpus: Corpus) -> float:
    """Rows per byte at the start of the first file with rows; only sizes the sample."""
    file = next(file for file in corpus.files if file.path == corpus.reader.first_path)
    stop = min(file.size_bytes, _PILOT_BYTES)
    sampled = corpus.reader.sample_span(file.path, 0, stop)
    return max(1, len(sampled.texts[0])) / max(1, sampled.size)
