"""Labeled examples from files, for fine-tuning, distillation, calibration and the quality gate.

    labeled files -> labeled_files -> [examples] -> Examples -> targets -> finetune, compress

The examples must fit in memory; the corpus that is scored is read by cluster/corpus instead. This
module knows nothing of models or tokens.
"""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastformers.data.labeled_files import read_rows, say_left_out
from fastformers.data.labels import Label, load_label_map, map_label, number_of, read_labels
from fastformers.digest import digest_of
from fastformers.errors import InputError
from fastformers.formats.column_types import is_text
from fastformers.formats.text_file_config import PLAIN_TEXT_FILES, TextFileConfig
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TEXT_CLASSIFICATION,
    Task,
)
from fastformers.options import names_given, option

# Tasks whose official files are known without naming columns; superglue.py reads them.
SUPERGLUE_TASKS = ("BoolQ", "RTE", "CB", "COPA", "WiC", "WSC", "MultiRC", "ReCoRD")

# Separates the labels of one row in a CSV file, which cannot hold lists.
LABEL_SEPARATOR = "|"

_LIST_TYPES = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a labeled file, or the SuperGLUE task that it is an official file of.

    Where rows are choices, each becomes one example for each choice, and its label says which is
    right, by name of the column or by position from 0. No label column is for files that need none.

    Attributes:
        text_files: How text files are written, by their own flags.
    """

    text: str = field(default="text", metadata=option("column with the text", name="text_column"))
    text_pair: str | None = field(
        default=None,
        metadata=option(
            "column with the second text, where rows are pairs (none)", name="text_pair_column"
        ),
    )
    choices: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "columns with second texts of which one is right (multiple choice); repeat it for "
            "names with commas (none)",
            name="choice_columns",
            metavar="A,B",
        ),
    )
    label: str | None = field(
        default="label",
        metadata=option("column with the label, a list of labels or a number", name="label_column"),
    )
    superglue: str | None = field(
        default=None,
        metadata=option(
            "official files of a SuperGLUE task, in place of columns: "
            + ", ".join(SUPERGLUE_TASKS)
            + " (none)",
            metavar="TASK",
        ),
    )
    label_map: Path | None = field(
        default=None,
        metadata=option(
            'JSON file that names the class of each value of a label: {"1": "good"} (none)',
            metavar="FILE",
        ),
    )
    text_files: TextFileConfig = PLAIN_TEXT_FILES

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", names_given(self.choices))


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N labeled texts or text pairs.

    Attributes:
        texts: First (or only) text of each example.
        text_pairs: Second text of each example, or None for single texts.
        labels: Content of the label column, unchanged unless a label map names the classes.
        cells: Content of the label column where a label map has named the classes; else None.
        groups: Number of the question that each example belongs to, ascending, where several
            examples are choices of or answers to one question. None where each stands alone.
        overlaps: F1 of the words that each example's answer shares with the right ones, where a
            question is answered by the example that scores highest. None for other examples.
        task: Task that the kind of the labels suggests; None for 1.0 and 2.0, which may be classes
            or numbers.
    """

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[Label]
    cells: list[Label] | None = None
    groups: list[int] | None = None
    overlaps: list[float] | None = None
    task: Task | None = TEXT_CLASSIFICATION

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """Identity of texts, labels, groups and overlaps."""
        overlaps = () if self.overlaps is None else (self.overlaps,)
        return digest_of(self.texts, self.text_pairs, self.labels, self.groups, *overlaps)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> "Examples":
        """The examples at the given positions, in that order."""
        return Examples(
            texts=[self.texts[row] for row in rows],
            text_pairs=None if self.text_pairs is None else [self.text_pairs[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            cells=None if self.cells is None else [self.cells[row] for row in rows],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            overlaps=None if self.overlaps is None else [self.overlaps[row] for row in rows],
            task=self.task,
        )

    def joined(self, others: "Examples") -> "Examples":
        """These examples followed by others, which have the same columns; groups are dropped."""
        pairs = self.text_pairs
        return Examples(
            texts=self.texts + others.texts,
            text_pairs=None if pairs is None else pairs + (others.text_pairs or []),
            labels=self.labels + others.labels,
            task=self.task,
        )

    def sample(self, num_rows: int) -> "Examples":
        """Evenly spaced examples, the same ones each time; all, if there are no more.

        Groups stay whole, so there may be a few examples fewer or more.
        """
        if self.groups is None:
            return self.take(_spread(len(self), num_rows))
        _, group_N = np.unique(self.groups, return_inverse=True)
        num_groups = int(group_N.max()) + 1
        wanted = max(1, round(num_groups * num_rows / len(self)))
        return self.take(np.flatnonzero(np.isin(group_N, _spread(num_groups, wanted))))


def load_examples(path: Path, columns: Columns) -> Examples:
    """Read labeled examples from a file, a directory or a glob of any format of a corpus.

    Rows with a bad text or without a label are left out, which is logged: they serve neither
    training nor evaluation.

    Raises:
        InputError: Nothing is there, a file is unreadable, lacks a column or has one of a wrong
            type; no row is left; or the columns contradict each other.
    """
    texts, cells = _read_columns(path, columns)
    labels = cells
    if columns.label is not None and columns.label_map is not None:
        classes = load_label_map(columns.label_map)
        labels = [map_label(cell, classes, str(path)) for cell in cells]
    if columns.choices:
        reading = read_labels(labels, columns.choices, str(path))
        rights = [reading.class_of[label] for label in labels]
        return choice_examples(texts[0], texts[1:], rights)
    return Examples(
        texts=texts[0],
        text_pairs=texts[1] if texts[1:] else None,
        labels=labels,
        cells=None if labels is cells else cells,
        task=EMBEDDING if columns.label is None else task_of_cells(labels),
    )


def choice_examples(
    texts: Sequence[str], choices: Sequence[Sequence[str]], rights: Sequence[int]
) -> Examples:
    """Examples of multiple choice: each text with each of its choices, text after text.

    Args:
        texts: Q texts.
        choices: Q choices for each position, as many positions as a text has choices.
        rights: Position of the right choice of each text.
    """
    places = range(len(choices))
    return Examples(
        texts=[text for text in texts for _ in places],
        text_pairs=list(chain.from_iterable(zip(*choices, strict=True))),
        labels=[int(place == right) for right in rights for place in places],
        groups=[group for group in range(len(texts)) for _ in places],
        task=MULTIPLE_CHOICE,
    )


def task_of_cells(labels: Sequence[Label]) -> Task | None:
    """Task that the content of a label column suggests; None for fractions that are all whole."""
    if any(isinstance(label, list) for label in labels):
        return MULTI_LABEL_CLASSIFICATION
    numbers = [_fraction_of(label) for label in labels]
    if None in numbers:
        return TEXT_CLASSIFICATION
    if all(number_of(label) is not None for label in labels):
        return None if any("." in str(label) for label in labels) else TEXT_CLASSIFICATION
    return REGRESSION


def _read_columns(path: Path, columns: Columns) -> tuple[list[list[str]], list[Label]]:
    """Texts, by column, and labels of the rows that have them; says which rows are left out."""
    if columns.choices and columns.text_pair is not None:
        raise InputError("--choice-columns and --text-pair-column: give one of them")
    seconds = columns.choices or (() if columns.text_pair is None else (columns.text_pair,))
    texts = (columns.text, *seconds)
    others = () if columns.label is None else (columns.label,)
    names = [*texts, *others]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: one column is given twice: {', '.join(map(repr, names))}")
    rows = read_rows(path, text_columns=texts, other_columns=others, text_files=columns.text_files)
    if columns.label is None:
        say_left_out(path, rows.left_out, len(rows.texts[0]), "a text")
        return [*rows.texts], [None] * len(rows.texts[0])
    column = rows.others[columns.label]
    labels = _labels_of(path, columns.label, column)
    labeled = [row for row, label in enumerate(labels) if label is not None]
    if len(labeled) < len(labels):
        is_unfit = rows.unfit[columns.label] > 0
        why = f"no label, or one that is not {column.type}" if is_unfit else "no label"
        rows.left_out[why] += len(labels) - len(labeled)
    say_left_out(path, rows.left_out, len(labeled), "both a text and a label")
    return [[t[row] for row in labeled] for t in rows.texts], [labels[row] for row in labeled]


def _labels_of(path: Path, name: str, column: pa.ChunkedArray) -> list[Label]:
    """The cells of a label column, None where one is empty.

    Raises:
        InputError: The column holds what is no label.
    """
    kind = inner = column.type
    if is_list := any(is_kind(kind) for is_kind in _LIST_TYPES):
        inner = kind.value_type
    cells: list[Any] = column.to_pylist()
    is_number = pa.types.is_integer(inner) or pa.types.is_boolean(inner)
    if pa.types.is_floating(inner) or pa.types.is_decimal(inner):
        is_number = not is_list or all(map(_is_whole, cells))
        cells = [_plain_numbers(cell) for cell in cells]
    if not (is_number or is_text(inner) or pa.types.is_null(inner)):
        raise InputError(
            f"{path}: column {name!r} holds {kind}; labels are text, whole numbers or lists of "
            "these, or a number"
        )
    if is_list and any(None in cell for cell in cells if cell):
        raise InputError(f"{path}: column {name!r} has a list with a null in it")
    if not is_list and is_text(kind):
        return _read_lists([cell if cell and not cell.isspace() else None for cell in cells])
    return [None if cell != cell else cell for cell in cells]  # NaN is no label either


def _is_whole(cell: list[Any] | None) -> bool:
    return all(part is None or float(part).is_integer() for part in cell or [])


def _plain_numbers(cell: Any) -> Any:
    """A number as float, or those of a list as int where they are whole: marks of classes."""
    if isinstance(cell, list):
        return [part if part is None else number_of(float(part)) for part in cell]
    return None if cell is None else float(cell)


def _read_lists(labels: list[Label]) -> list[Label]:
    """Labels that a CSV file holds as the text of lists, as pandas writes them; else the same.

    Where a column has several labels in a cell, an empty cell has none of them.
    """
    texts = [label.strip() for label in labels if isinstance(label, str)]
    if texts and all(text.startswith("[") and text.endswith("]") for text in texts):
        try:
            lists = [label and ast.literal_eval(str(label).strip()) for label in labels]
        except (ValueError, SyntaxError):
            return labels
        return lists if all(map(_is_flat, lists)) else labels
    if any(LABEL_SEPARATOR in text for text in texts):
        return [label or "" for label in labels]
    return labels


def _is_flat(cell: Any) -> bool:
    return cell is None or all(isinstance(part, str | int | float) for part in cell)


def _fraction_of(label: Label) -> float | None:
    """The number that a label is or spells."""
    try:
        number = math.nan if isinstance(label, bool | list | None) else float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _spread(num_rows: int, num_wanted: int) -> NDArray[np.intp]:
    """Evenly spaced positions, first and last included."""
    rows = np.linspace(0, num_rows - 1, min(num_wanted, num_rows)).astype(np.intp)
    return np.unique(rows)
