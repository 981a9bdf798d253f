"""Labeled examples from a file, for fine-tuning, distillation, calibration and the quality gate.

    labeled file -> [examples] -> Examples -> finetune, compress

The examples must fit in memory; the corpus that is scored is read by cluster/corpus instead. This
module knows nothing of models or tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from fastformers.errors import InputError
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TEXT_CLASSIFICATION,
    Task,
)
from fastformers.options import option, split_names

# Cell of a label column; None where a task needs no labels.
Label = str | int | bool | float | list[str | int] | None

# Tasks whose official files are known without naming columns; superglue.py reads them.
SUPERGLUE_TASKS = ("BoolQ", "RTE", "CB", "COPA", "WiC", "WSC", "MultiRC")

# A row must fit one block of the CSV and JSON readers, which is 1 MiB by default.
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of a labeled file, or the SuperGLUE task that it is an official file of.

    Where rows are choices, each becomes one example for each choice, and its label says which is
    right, by name of the column or by position from 0. No label column is for files that need none.
    """

    text: str = field(default="text", metadata=option("column with the text", name="text_column"))
    text_pair: str | None = field(
        default=None,
        metadata=option(
            "column with the second text, where rows are pairs", name="text_pair_column"
        ),
    )
    choices: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "columns with second texts of which one is right (multiple choice); repeat it for "
            "names with commas",
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
            + ", ".join(SUPERGLUE_TASKS),
            metavar="TASK",
        ),
    )

    def __post_init__(self) -> None:
        if len(self.choices) == 1:  # a flag that was given once is a list
            object.__setattr__(self, "choices", split_names(self.choices[0]))


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N labeled texts or text pairs.

    Attributes:
        texts: First (or only) text of each example.
        text_pairs: Second text of each example, or None for single texts.
        labels: Content of the label column, unchanged.
        groups: Number of the question that each example belongs to, ascending, where several
            examples are choices of or answers to one question. None where each stands alone.
        task: Task that the kind of the labels suggests.
    """

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[Label]
    groups: list[int] | None = None
    task: Task = TEXT_CLASSIFICATION

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> "Examples":
        """The examples at the given positions, in that order."""
        return Examples(
            texts=[self.texts[row] for row in rows],
            text_pairs=None if self.text_pairs is None else [self.text_pairs[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
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
    """Read labeled examples from a file of one of `LABELED_FORMATS`.

    Rows without a text or a label are left out: they serve neither training nor evaluation.

    Raises:
        InputError: The file is missing, unreadable or empty, lacks a column, or has one of a wrong
            type; or the columns contradict each other.
    """
    table = read_table(path)
    texts = [name for name in (columns.text, columns.text_pair) if name is not None]
    texts += columns.choices
    wanted = texts if columns.label is None else [*texts, columns.label]
    for name in wanted:
        if name not in table.column_names:
            raise InputError(
                f"{path}: no column {name!r}; it has {', '.join(table.column_names)} "
                "(see --text-column, --text-pair-column, --choice-columns, --label-column)"
            )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{path}: one column is given twice: {', '.join(map(repr, wanted))}")
    table = table.select(wanted).drop_null()
    if table.num_rows == 0:
        raise InputError(f"{path}: no row has both a text and a label")
    for name in texts:
        kind = table.schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{path}: column {name!r} holds {kind}, not text")
    task = _task_of(path, table, columns.label)
    labels = [None] * len(table) if columns.label is None else table[columns.label].to_pylist()
    if columns.choices:
        if columns.text_pair is not None:
            raise InputError("--choice-columns and --text-pair-column: give one of them")
        choices = [table[name].to_pylist() for name in columns.choices]
        rights = encode_labels(labels, columns.choices, path).tolist()
        return choice_examples(table[columns.text].to_pylist(), choices, rights)
    return Examples(
        texts=table[columns.text].to_pylist(),
        text_pairs=table[columns.text_pair].to_pylist() if columns.text_pair else None,
        labels=labels,
        task=task,
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


def _task_of(path: Path, table: pa.Table, label_column: str | None) -> Task:
    """Task that the type of the label column suggests."""
    if label_column is None:
        return EMBEDDING
    kind = table.schema.field(label_column).type
    if pa.types.is_floating(kind):
        return REGRESSION
    if not pa.types.is_nested(kind):
        return TEXT_CLASSIFICATION
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
        if is_text or pa.types.is_integer(inner) or pa.types.is_null(inner):
            if pc.list_flatten(table[label_column].combine_chunks()).null_count:
                raise InputError(f"{path}: column {label_column!r} has a list with a null in it")
            return MULTI_LABEL_CLASSIFICATION
    raise InputError(
        f"{path}: column {label_column!r} holds {kind}; labels are text, whole numbers or lists of "
        "these, or a number"
    )


def _spread(num_rows: int, num_wanted: int) -> NDArray[np.intp]:
    """Evenly spaced positions, first and last included."""
    rows = np.linspace(0, num_rows - 1, min(num_wanted, num_rows)).astype(np.intp)
    return np.unique(rows)


def read_table(path: Path) -> pa.Table:
    """Read a whole labeled file.

    Raises:
        InputError: The file is missing, unreadable or of another format.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    read = LABELED_FORMATS.get(path.suffix.lower())
    if read is None:
        *others, last = LABELED_FORMATS
        raise InputError(f"{path}: expected a {', '.join(others)} or {last} file")
    try:
        return read(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}".splitlines()[0]) from error


def _read_csv(path: Path) -> pa.Table:
    return pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
    )


def _read_json_lines(path: Path) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES)
    table = pyarrow.json.read_json(path, read_options=options)
    table.validate(full=True)  # the reader accepts any bytes as text
    return table


# Every format of a labeled file, by the end of its name; a new one is a line here.
LABELED_FORMATS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": pyarrow.parquet.read_table,
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
}


def encode_labels(labels: Sequence[Label], names: Sequence[str], path: Path) -> NDArray[np.int64]:
    """Class index of each label: by name where it is a class name, else as an index.

    Args:
        labels: N labels as read from a file.
        names: The C class names of the model, by class index.
        path: The file the labels come from, for the message.

    Raises:
        InputError: A label is neither a class name nor an index below C.
    """
    by_name = {name: index for index, name in enumerate(names)}
    index_of: dict[Label, int] = {}
    for label in dict.fromkeys(labels):
        name = str(label)
        if isinstance(label, bool) and name not in by_name:
            name = name.lower()  # readers turn "true" into a bool
        if name in by_name:
            index_of[label] = by_name[name]
        elif isinstance(label, int) and 0 <= int(label) < len(names):
            index_of[label] = int(label)
        else:
            known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise InputError(
                f"{path}: label {label!r} is not one of the model's {len(names)} labels ({known}); "
                "fix the label column or the model's id2label"
            )
    return np.array([index_of[label] for label in labels], np.int64)
