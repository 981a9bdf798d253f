"""The texts that whole jobs run on: different ones, and for each job as many as last long enough.

    corpus -> [texts] -> DifferentTexts -> Part of a job

All texts differ, so that what scoring equal texts once saves is no part of a comparison. A slow job
gets a part that has the lengths of all: every n-th text in the order of length. Its files are of
equal size, at most what Ray Data sorts well, and a multiple of the workers, so that no worker is
left without. This module knows nothing of jobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fastformers.cluster.corpus.reading import read_all
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.preparation import READ_CHUNK_BYTES
from fastformers.data.examples import Columns, load_examples
from fastformers.data.labels import read_labels
from fastformers.errors import InputError

ID_COLUMN, TEXT_COLUMN, LABEL_COLUMN = "id", "text", "label"
# Rows of a file at most, and so of a block in which Ray Data can sort; found by tuning that job.
_FILE_ROWS = 3125


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the texts, as files.

    Attributes:
        directory: Directory of the files alone.
        files: Paths of the Parquet files, with the columns `id` and `text`.
        ids: Position of each text among all.
    """

    directory: Path
    files: tuple[str, ...]
    ids: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """How many texts there are."""
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class DifferentTexts:
    """The first texts of a corpus that differ.

    Attributes:
        texts: The texts, in the order of the corpus.
        labels: The label of each; None where they have none.
        directory: Directory that parts are written to.
        num_unlabeled: Rows among them that were left out because they have no label.
    """

    texts: Sequence[str]
    labels: Sequence[Any] | None
    directory: Path
    num_unlabeled: int = 0
    _parts: dict[tuple[int, int], Part] = field(default_factory=dict)

    def first(self, num_rows: int) -> "DifferentTexts":
        """The first of them."""
        labels = None if self.labels is None else self.labels[:num_rows]
        return DifferentTexts(texts=self.texts[:num_rows], labels=labels, directory=self.directory)

    def part(self, num_rows: int, *, num_workers: int) -> Part:
        """Files of about `num_rows` texts of the lengths of all, in the order of the corpus.

        Args:
            num_rows: Number of texts; rounded up to whole files for each worker where there are as
                many.
            num_workers: The number of files is a multiple of this.
        """
        num_files = num_workers * -(-num_rows // (_FILE_ROWS * num_workers))
        num_rows = min(num_rows, len(self.texts))
        known = self._parts.get((num_rows, num_files))
        if known is None:
            known = self._write(num_rows, min(num_files, num_rows))
            self._parts[num_rows, num_files] = known
        return known

    def _write(self, num_rows: int, num_files: int) -> Part:
        lengths_N = np.array([len(text) for text in self.texts])
        by_length_N = np.argsort(lengths_N, kind="stable")
        places = ((np.arange(num_rows) + 0.5) * len(by_length_N) / num_rows).astype(np.intp)
        ids = np.sort(by_length_N[places])
        directory = self.directory / f"{num_rows}-in-{num_files}"
        directory.mkdir(parents=True)
        files = []
        for number, rows in enumerate(np.array_split(ids, num_files)):
            table = pa.table({ID_COLUMN: rows, TEXT_COLUMN: [self.texts[row] for row in rows]})
            files.append(str(directory / f"part-{number:05d}.parquet"))
            pyarrow.parquet.write_table(table, files[-1])
        return Part(directory=directory, files=tuple(files), ids=tuple(ids.tolist()))


def read_different_texts(
    uri: str,
    settings: CorpusSettings,
    *,
    num_rows: int,
    directory: Path,
    label_column: str | None = None,
) -> DifferentTexts:
    """Read the first rows of a corpus whose texts differ.

    Args:
        uri: The corpus.
        settings: Its text column, its limit, and whether unreadable files are skipped.
        num_rows: Number of texts; fewer are read if the corpus has no more.
        directory: Directory that parts are written to.
        label_column: Column with the labels, where rows without one are left out; None where there
            are none.

    Raises:
        InputError: A file cannot be read or lacks a column, or no row is good.
    """
    kept = () if label_column is None else (label_column,)
    corpus = open_corpus(
        uri,
        text_columns=(settings.text_column,),
        keep_columns=kept,
        keep_flag="--label-column",
        options=settings.read_options,
    )
    found: dict[str, Any] = {}
    num_unlabeled = 0
    reads = (
        rows
        for slice_ in corpus.plan_slices(limit=settings.limit)
        for rows in read_all(corpus.reader, slice_.pieces, chunk_bytes=READ_CHUNK_BYTES)
    )
    for rows in reads:
        labels = rows.kept.column(0).to_pylist() if kept else [None] * rows.num_rows
        for row, (text, label) in enumerate(zip(rows.texts[0], labels, strict=True)):
            if row in rows.errors:
                continue
            if kept and _is_missing(label):
                num_unlabeled += 1
            else:
                found.setdefault(text, label)
        if len(found) >= num_rows:
            break
    if not found:
        beside = "" if label_column is None else f" with a label in {label_column!r}"
        raise InputError(f"{uri}: no row has text in {settings.text_column!r}{beside}")
    return DifferentTexts(
        texts=list(found)[:num_rows],
        labels=list(found.values())[:num_rows] if kept else None,
        directory=directory,
        num_unlabeled=num_unlabeled,
    )


def _is_missing(label: Any) -> bool:
    """Whether a cell has no label: nothing, no number, or an empty field of a CSV file."""
    return label is None or label == "" or label != label


def classes_of(labels: Sequence[Any], names: Sequence[str], where: str) -> list[int]:
    """The class of each label, by its place among the names.

    Raises:
        InputError: The labels are not those of the model.
    """
    reading = read_labels(labels, names, where)
    return [reading.class_of[label] for label in labels]


def write_training_rows(
    path: Path, columns: Columns, names: Sequence[str], *, without: Sequence[str], directory: Path
) -> str:
    """Write labeled rows for a classifier that is trained here: `text`, and `label` as a number.

    Args:
        path: File, directory or glob of labeled rows.
        columns: Their columns.
        names: Names of the model's classes.
        without: Texts that are left out: those that accuracy is measured on.
        directory: Directory to write to.

    Returns:
        Path of the file.

    Raises:
        InputError: The file cannot be read, or its labels are not those of the model.
    """
    examples = load_examples(path, columns)
    classes = classes_of(examples.labels, names, str(path))
    unknown = set(without)
    rows = [
        (text, label)
        for text, label in zip(examples.texts, classes, strict=True)
        if text not in unknown
    ]
    if not rows:
        raise InputError(f"--peer-train {path}: has no text that the corpus has not; give others")
    written = directory / "training-rows.parquet"
    texts, labels = zip(*rows, strict=True)
    pyarrow.parquet.write_table(pa.table({TEXT_COLUMN: texts, LABEL_COLUMN: labels}), written)
    return str(written)
