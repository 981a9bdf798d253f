"""Labelled examples from a file: what fine-tuning, calibration and the quality gate read.

    Parquet, CSV or JSON lines -> Examples -> finetune / quantize / evaluate

Small enough to sit in memory; the corpus that is scored never comes this way (cluster/corpus.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from fastformers.errors import InputError

# A row must fit one block of the CSV and JSON readers; theirs is 1 MiB.
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N labelled texts or text pairs.

    Attributes:
        texts: First (or only) text of each example.
        text_pairs: Second text of each example, or None for single texts.
        labels: What the label column holds, as it is: str, int or bool.
    """

    texts: list[str]
    text_pairs: list[str] | None
    labels: list[str | int | bool | None]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> "Examples":
        """The examples at the given positions, in that order."""
        return Examples(
            texts=[self.texts[row] for row in rows],
            text_pairs=None if self.text_pairs is None else [self.text_pairs[row] for row in rows],
            labels=[self.labels[row] for row in rows],
        )

    def joined(self, others: "Examples") -> "Examples":
        """These examples and then the others, which have the same columns."""
        pairs = self.text_pairs
        return Examples(
            texts=self.texts + others.texts,
            text_pairs=None if pairs is None else pairs + (others.text_pairs or []),
            labels=self.labels + others.labels,
        )

    def sample(self, num_rows: int) -> "Examples":
        """Evenly spaced examples, the same ones each time; all, if there are no more."""
        rows = np.linspace(0, len(self) - 1, min(num_rows, len(self))).astype(int)
        return self.take(np.unique(rows))


def load_examples(
    path: Path, *, text_column: str, text_pair_column: str | None, label_column: str | None
) -> Examples:
    """Read labelled examples from a Parquet, CSV or JSON lines file.

    Rows without a text or a label are left out: they can neither teach nor be judged.

    Raises:
        InputError: The file is missing, unreadable or empty, or lacks a column.
    """
    table = _read_table(path)
    texts = [name for name in (text_column, text_pair_column) if name is not None]
    wanted = texts if label_column is None else [*texts, label_column]
    for name in wanted:
        if name not in table.column_names:
            raise InputError(
                f"{path}: no column {name!r}; it has {', '.join(table.column_names)} "
                "(see --text-column, --text-pair-column, --label-column)"
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
    if label_column is not None and pa.types.is_nested(
        kind := table.schema.field(label_column).type
    ):
        raise InputError(f"{path}: column {label_column!r} holds {kind}, not one label a row")
    return Examples(
        texts=table[text_column].to_pylist(),
        text_pairs=table[text_pair_column].to_pylist() if text_pair_column else None,
        labels=[None] * len(table) if label_column is None else table[label_column].to_pylist(),
    )


def _read_table(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        match path.suffix.lower():
            case ".parquet":
                return pyarrow.parquet.read_table(path)
            case ".csv":
                return pyarrow.csv.read_csv(
                    path,
                    read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
                    parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                )
            case ".jsonl" | ".json" | ".ndjson":
                options = pyarrow.json.ReadOptions(block_size=_BLOCK_BYTES)
                table = pyarrow.json.read_json(path, read_options=options)
                table.validate(full=True)  # it takes any bytes for text
                return table
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}".splitlines()[0]) from error
    raise InputError(f"{path}: expected a .parquet, .csv or .jsonl file")


def encode_labels(
    labels: Sequence[str | int | bool | None], names: Sequence[str], path: Path
) -> NDArray[np.int64]:
    """Class index of each label: by name where it is a class name, else as an index.

    Args:
        labels: N labels as read from a file.
        names: The C class names of the model, by class index.
        path: The file the labels come from, for the message.

    Raises:
        InputError: A label is neither a class name nor an index below C.
    """
    by_name = {name: index for index, name in enumerate(names)}
    index_of: dict[str | int | bool | None, int] = {}
    for label in dict.fromkeys(labels):
        name = str(label)
        if isinstance(label, bool) and name not in by_name:
            name = name.lower()  # readers take "true" for a bool
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
