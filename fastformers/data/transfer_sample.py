"""Draw texts without labels from a corpus of any size, for a student to learn from.

    corpus -> windows -> [transfer_sample] -> TransferSample -> distill

Every text has a number that follows from its content and the seed, and the texts with the least
numbers are kept: equal texts count once, and memory is that of twice the sample, whatever the
corpus. When the reading is done, every second in the order of their lengths is taken, so that the
sample's lengths are the corpus's more closely than chance would have it. Long texts are not raised
above their share: a student is judged on the rows of the corpus, and a long row costs as much
training as dozens of short ones. Texts are equal if they differ in case and white space alone: a
row of the evaluation file in other dress is still what the student must not have seen. This module
knows nothing of models or tokens; lengths are in characters.

Source:
    A sample by least hash: Broder 1997, On the resemblance and containment of documents; systematic
    sampling of an ordered list: Cochran, Sampling Techniques, chapter 8.

Shape suffixes: N texts of the sample, P texts that are kept to choose from.
"""

import heapq
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.fs

from fastformers.data.examples import Columns, Examples
from fastformers.errors import InputError
from fastformers.formats.file_set import open_files
from fastformers.formats.readers import ReadOptions
from fastformers.formats.windows import read_windows
from fastformers.formatting import format_count
from fastformers.options import check_at_least, option

logger = logging.getLogger(__name__)

# SST-2's students of three layers gained 1.7 points from 60,000 sentences, and next to nothing from
# 30,000 of another teacher (fastformers/README.md, 2026-11-25).
DEFAULT_ROWS = 60_000
# Text that is read of a large corpus: 128 windows, ten times the sample at 400 characters a row.
_READ_BYTES = 256 * 2**20
# Texts that are kept for each that is wanted, to choose from by length.
_KEPT_PER_TEXT = 2
_GOLDEN = (math.sqrt(5) - 1) / 2
_SHOWN_SHARES = (0.05, 0.95)

Row = tuple[str, ...]
# Filesystem and path in it of what a user wrote.
Locate = Callable[[str], tuple[pyarrow.fs.FileSystem, str]]


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """A corpus without labels, and how much of it a student learns from."""

    corpus: str | None = field(
        default=None,
        metadata=option(
            "corpus without labels, of any size: a sample of its texts is distilled on, too (none)",
            metavar="CORPUS",
            name="transfer",
        ),
    )
    rows: int | None = field(
        default=None,
        metadata=option(
            f"texts of the sample of --transfer ({DEFAULT_ROWS}, or all that there are)",
            metavar="ROWS",
            name="transfer_rows",
        ),
    )
    text_column: str | None = field(
        default=None,
        metadata=option(
            "column of --transfer with the text (--text-column)", name="transfer_text_column"
        ),
    )
    text_pair_column: str | None = field(
        default=None,
        metadata=option(
            "column of --transfer with the second text (--text-pair-column)",
            name="transfer_text_pair_column",
        ),
    )
    seed: int = field(
        default=0,
        metadata=option("seed of the choice of texts of --transfer", name="transfer_seed"),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "rows")
        check_at_least(self, 0, "seed")

    @property
    def num_wanted(self) -> int:
        """Texts that are taken, if there are as many."""
        return self.rows or DEFAULT_ROWS

    def columns_beside(self, labeled: Columns) -> Row:
        """The columns with texts of the corpus, beside labeled files of these columns.

        Raises:
            InputError: They are not known, or a row is more than two texts.
        """
        if labeled.choices:
            raise InputError("--transfer: no student learns from --choice-columns; leave it out")
        if labeled.superglue is not None and self.text_column is None:
            raise InputError(
                f"--transfer: beside --superglue {labeled.superglue}, name the corpus's column by "
                "--transfer-text-column, and that of second texts by --transfer-text-pair-column"
            )
        first = self.text_column or labeled.text
        second = self.text_pair_column or labeled.text_pair
        return (first,) if second is None else (first, second)


@dataclass(frozen=True, kw_only=True)
class TransferSample:
    """Texts of a corpus, and what became of the others.

    Attributes:
        corpus: The corpus, as the user wrote it.
        examples: The N texts, without labels; any first of them are spread over the lengths, too.
        num_read: Rows that were read.
        num_bad: Of these, rows without a usable text.
        num_known: Different texts that were left out because they are in a labeled file, by its
            name.
    """

    corpus: str
    examples: Examples
    num_read: int
    num_bad: int
    num_known: Mapping[str, int]

    @property
    def name(self) -> str:
        """Last part of the corpus's path: the rest of it is of this machine."""
        return self.corpus.rstrip("/").rpartition("/")[2]

    def describe(self) -> str:
        """The sample in one line."""
        texts = self.examples.texts
        seconds = self.examples.text_pairs or [""] * len(texts)
        lengths_N = [len(a) + len(b) for a, b in zip(texts, seconds, strict=True)]
        short, long = np.quantile(lengths_N, _SHOWN_SHARES)
        left_out = [
            f"{format_count(number, 'text')} of {name}" for name, number in self.num_known.items()
        ]
        if self.num_bad:
            left_out.append(format_count(self.num_bad, "bad row"))
        return (
            f"{format_count(len(texts), 'text')} out of {self.num_read:,} rows read of "
            f"{self.corpus}, 90% of them {short:,.0f} to {long:,.0f} characters long; left out: "
            f"{', '.join(left_out)}"
        )


def locate_here(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """A path on this machine; URIs are for those who know buckets.

    Raises:
        InputError: It is a URI.
    """
    if "://" in path:
        raise InputError(f"{path}: give a path on this machine; the command reads URIs, too")
    return pyarrow.fs.LocalFileSystem(), str(Path(path).expanduser().absolute())


def sample_transfer(
    config: TransferConfig,
    columns: Columns,
    known: Mapping[str, Examples],
    *,
    locate: Locate = locate_here,
) -> TransferSample:
    """Draw texts of a corpus that are in no labeled file.

    Windows from all over the corpus are read until they hold 256 MiB of text and as many texts as
    wanted; a smaller corpus is read as a whole.

    Args:
        config: Corpus, number of texts and seed.
        columns: Columns of the labeled files.
        known: Examples whose texts are left out, by the name of their flag.
        locate: Finds the corpus.

    Raises:
        InputError: The corpus cannot be read, lacks a column, or has fewer texts than asked for.
    """
    assert config.corpus is not None
    names = config.columns_beside(columns)
    _check_alike(names, next(iter(known.values())))
    files = open_files(
        *locate(config.corpus),
        config.corpus,
        text_columns=names,
        options=ReadOptions(
            can_skip=False,
            text_flags="--transfer-text-column/--transfer-text-pair-column",
            binary_text=True,
            text_files=columns.text_files,
        ),
    )
    pool = _Pool(_KEPT_PER_TEXT * config.num_wanted, config.seed, known)
    unfinished: dict[str, bool] = {}
    for window in read_windows(files, seed=config.seed):
        pool.offer(zip(*window.texts, strict=True))
        unfinished[window.path] = window.has_rest
        if pool.num_bytes >= _READ_BYTES and len(pool) >= config.num_wanted:
            break
    _check_enough(config, len(pool))
    _tell_cut([path for path, has_rest in unfinished.items() if has_rest])
    rows = _take_by_length(pool.rows, min(config.num_wanted, len(pool)))
    return TransferSample(
        corpus=config.corpus,
        examples=Examples(
            texts=[row[0] for row in rows],
            text_pairs=[row[1] for row in rows] if names[1:] else None,
            labels=[None] * len(rows),
        ),
        num_read=pool.num_read,
        num_bad=pool.num_bad,
        num_known={name: len(found) for name, found in pool.known.items()},
    )


class _Pool:
    """The texts with the least numbers of all that were offered, each once.

    Attributes:
        num_read: Rows that were offered.
        num_bad: Of these, rows without a usable text.
        num_bytes: Rough size of their texts.
        known: Numbers of the texts that were offered and are in a labeled file, by its name.
    """

    def __init__(self, size: int, seed: int, known: Mapping[str, Examples]) -> None:
        """Begin with none.

        Args:
            size: Texts to keep.
            seed: Decides the numbers.
            known: Examples whose texts are not kept, by the name of their file.
        """
        self._size, self._salt = size, str(seed).encode()[-blake2b.SALT_SIZE :]
        self._rows: dict[int, Row] = {}
        self._largest: list[int] = []  # negative, because the root of a heap is its least number
        self._name_of = {
            self._number_of(row): name
            for name, examples in reversed(list(known.items()))
            for row in _rows_of(examples)
        }
        self.known: dict[str, set[int]] = {name: set() for name in known}
        self.num_read = self.num_bad = self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[Row]:
        """The texts in the order of their lengths, equal lengths in that of their numbers."""
        numbers = sorted(self._rows, key=lambda n: (sum(map(len, self._rows[n])), n))
        return [self._rows[number] for number in numbers]

    def offer(self, rows: Iterable[Row]) -> None:
        """Keep those of the rows that are among the least."""
        for row in rows:
            self.num_read += 1
            if not all(row):
                self.num_bad += 1
                continue
            self.num_bytes += sum(map(len, row))
            number = self._number_of(row)
            if (name := self._name_of.get(number)) is not None:
                self.known[name].add(number)
            elif number not in self._rows:
                self._keep(number, row)

    def _keep(self, number: int, row: Row) -> None:
        if len(self._rows) < self._size:
            heapq.heappush(self._largest, -number)
        elif number > -self._largest[0]:
            return
        else:
            del self._rows[-heapq.heapreplace(self._largest, -number)]
        self._rows[number] = row

    def _number_of(self, row: Row) -> int:
        """Number of a row's texts, whatever their case and white space."""
        content = "\0".join(" ".join(text.split()).casefold() for text in row)
        digest = blake2b(content.encode(), digest_size=16, salt=self._salt)
        return int.from_bytes(digest.digest(), "big")


def _rows_of(examples: Examples) -> Iterable[Row]:
    if examples.text_pairs is None:
        return ((text,) for text in examples.texts)
    return zip(examples.texts, examples.text_pairs, strict=True)


def _check_alike(names: Row, labeled: Examples) -> None:
    """Refuse single texts beside labeled pairs, and pairs beside single texts."""
    if labeled.text_pairs is not None and not names[1:]:
        raise InputError("--train holds pairs of texts: give --transfer-text-pair-column")
    if labeled.text_pairs is None and names[1:]:
        raise InputError(
            "--transfer-text-pair-column: --train holds single texts; leave the pair column out"
        )


def _check_enough(config: TransferConfig, num_found: int) -> None:
    if num_found >= (1 if config.rows is None else config.rows):
        return
    if num_found == 0:
        raise InputError(
            f"{config.corpus}: no text that is in no labeled file, too; leave --transfer out"
        )
    raise InputError(
        f"{config.corpus}: {num_found:,} texts that differ and are in no labeled file, "
        f"fewer than --transfer-rows {config.rows}; ask for fewer, or leave it out to take all"
    )


def _tell_cut(paths: list[str]) -> None:
    """Say that files stand in the sample by their beginnings alone."""
    if paths:
        others = f" and {format_count(len(paths) - 1, 'other file')}" if paths[1:] else ""
        logger.warning(
            "%s%s: read in order, so the sample has texts of the beginning alone; Parquet, or text "
            "that is not compressed, is sampled from all over",
            min(paths),
            others,
        )


def _take_by_length(rows_P: list[Row], num_wanted: int) -> list[Row]:
    """Evenly spaced ones of rows in the order of their lengths, and those in golden sections.

    So both the whole and any first of them have the lengths of all.
    """
    places_N = ((np.arange(num_wanted) + 0.5) * len(rows_P) / num_wanted).astype(np.intp)
    order_N = np.argsort(np.arange(num_wanted) * _GOLDEN % 1.0, kind="stable")
    return [rows_P[place] for place in places_N[order_N]]
