"""Read the columns of labeled files into memory, by the readers of corpora.

    file, directory or glob -> [labeled_files] -> columns of the good rows -> examples

A row whose text is bad serves neither training nor evaluation: it is left out, counted and said.
This module knows nothing of labels or tasks.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs

from fastformers.errors import InputError
from fastformers.formats.file_set import open_files
from fastformers.formats.readers import FileReader, ReadOptions, Rows, UnfitFileError
from fastformers.formats.text_file_config import PLAIN_TEXT_FILES, TextFileConfig

logger = logging.getLogger(__name__)

# Text that is read at a time.
_CHUNK_BYTES = 64 * 2**20
_SHOWN_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class LabeledRows:
    """The N good rows of some files.

    Attributes:
        texts: The text columns, each N long.
        others: The other columns, in the types that they have in the files.
        left_out: Number of bad rows by what is wrong with them.
        unfit: Number of values of the other columns that are null because they are of another kind
            than the values before them, by column.
    """

    texts: tuple[list[str], ...]
    others: pa.Table
    left_out: Counter[str]
    unfit: Counter[str]


def read_rows(
    path: Path,
    *,
    text_columns: tuple[str, ...],
    other_columns: tuple[str, ...],
    text_files: TextFileConfig = PLAIN_TEXT_FILES,
) -> LabeledRows:
    """Read columns of a file, or of all files of a directory or glob, in the order of their names.

    Raises:
        InputError: Nothing is there, or a file is unreadable or lacks a column.
    """
    filesystem = pyarrow.fs.LocalFileSystem()
    options = ReadOptions(
        can_skip=False,
        text_flags="--text-column/--text-pair-column/--choice-columns",
        binary_text=True,
        when_empty="no labeled rows are in it",
        text_files=text_files,
    )
    file_set = open_files(
        filesystem,
        str(path),
        str(path),
        text_columns=text_columns,
        keep_columns=other_columns,
        keep_flag="--label-column",
        options=options,
    )
    texts: tuple[list[str], ...] = tuple([] for _ in text_columns)
    tables = [file_set.reader.kept_schema.empty_table()]
    left_out: Counter[str] = Counter()
    unfit: Counter[str] = Counter()
    for file in file_set.files:
        for rows in _read_file(file_set.reader, file.path, file.size_bytes, options):
            left_out.update(rows.errors.values())
            unfit.update(rows.unfit)
            for column, values in zip(texts, rows.texts, strict=True):
                column += [text for row, text in enumerate(values) if row not in rows.errors]
            is_good_N = np.ones(rows.kept.num_rows, bool)
            is_good_N[[row for row in rows.errors if other_columns]] = False
            tables.append(rows.kept.filter(pa.array(is_good_N)))
    return LabeledRows(
        texts=texts,
        others=pa.concat_tables(tables, promote_options="permissive"),
        left_out=left_out,
        unfit=unfit,
    )


def say_left_out(path: Path, left_out: Counter[str], num_rows: int, need: str) -> None:
    """Log in one line how many rows are left out, and why; refuse files of which none is left.

    Args:
        path: The files.
        left_out: Number of bad rows by what is wrong with them.
        num_rows: Number of the others.
        need: What a row must have, for the message.

    Raises:
        InputError: No row is left.
    """
    reasons = [f"{reason} ({n:,})" for reason, n in left_out.most_common(_SHOWN_REASONS)]
    if len(left_out) > _SHOWN_REASONS:
        reasons.append("...")
    num_bad = sum(left_out.values())
    if num_rows == 0:
        how = "; --encoding and the --csv flags say how text files are read"
        why = f": {', '.join(reasons)}{how}" if reasons else ""
        raise InputError(f"{path}: no row has {need}{why}")
    if num_bad:
        logger.warning(
            "%s: %s of %s rows are left out: %s",
            path,
            f"{num_bad:,}",
            f"{num_bad + num_rows:,}",
            ", ".join(reasons),
        )


def _read_file(
    reader: FileReader, path: str, size_bytes: int, options: ReadOptions
) -> Iterator[Rows]:
    """All rows of a file, a chunk at a time.

    Raises:
        InputError: It cannot be read, or does not hold the columns.
    """
    for part in reader.cut_file(path, size_bytes, _CHUNK_BYTES):
        rest_start: int | None = None
        while True:
            try:
                rows = reader.read(
                    path,
                    start=part.start,
                    stop=part.stop,
                    max_rows=None,
                    chunk_bytes=_CHUNK_BYTES,
                    rest_start=rest_start,
                )
            except UnfitFileError as error:
                raise error.with_remedy(options) from error
            yield rows
            rest_start = rows.rest_start
            if rest_start is None:
                break
