"""Targets of labeled examples, encoded as the task of a model needs them.

    Examples -> [targets] -> finetune, distill, quality gate

This module knows nothing of models but their task and class names.

Shape suffixes: N examples, C classes.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from fastformers.data.examples import Examples, Label, encode_labels
from fastformers.errors import InputError
from fastformers.inference.tasks import Task

# Separates the labels of one row in a CSV file, which cannot hold lists.
LABEL_SEPARATOR = "|"


def class_names_of(examples: Examples, task: Task) -> list[str]:
    """Distinct labels, sorted: the classes of a model that is trained on the examples."""
    labels: list[Label] = examples.labels
    if task.targets == "label set":
        labels = list(chain.from_iterable(_label_lists(labels)))
    return [str(label) for label in sorted(set(labels))]  # type: ignore[type-var]


def encode_targets(
    examples: Examples, task: Task, names: Sequence[str], path: Path
) -> NDArray[np.generic]:
    """Encode the labels as targets of a task, which the table in `tasks` describes.

    Args:
        examples: N labeled examples.
        task: The model's task.
        names: The C class names of the model, by class index.
        path: The file the examples come from, for the message.

    Returns:
        (N,) int64, or float32 for regression; (N, C) float32 for several labels; zeros for
        embeddings, which have no targets.

    Raises:
        InputError: The labels do not suit the task or the model's classes.
    """
    if task.is_choice and not examples.task.is_choice:
        raise InputError(f"{path}: the model chooses between texts; give --choice-columns")
    if examples.task.is_choice and not task.is_choice:
        raise InputError(f"{path}: the model's task is {task}; leave --choice-columns out")
    match task.targets:
        case "class":
            if examples.task.targets == "label set":
                raise InputError(
                    f"{path}: the label column holds lists, but the model gives one label per row"
                )
            return encode_labels(examples.labels, names, path)
        case "label set":
            return _encode_label_lists(examples.labels, names, path)
        case "number":
            return _encode_numbers(examples.labels, path)
        case "choice":
            return np.array(examples.labels, np.int64)
        case "none":
            return np.zeros(len(examples), np.int64)
        case _:
            assert_never(task.targets)


def _label_lists(labels: Sequence[Label]) -> list[list[Label]]:
    """Labels of each row, where a row may have several; text is split at the separator."""
    lists: list[list[Label]] = []
    for label in labels:
        if isinstance(label, list):
            lists.append([*label])
        elif isinstance(label, str):
            parts = (part.strip() for part in label.split(LABEL_SEPARATOR))
            lists.append([part for part in parts if part])
        else:
            lists.append([label])
    return lists


def _encode_label_lists(
    labels: Sequence[Label], names: Sequence[str], path: Path
) -> NDArray[np.float32]:
    lists = _label_lists(labels)
    targets_NC = np.zeros((len(lists), len(names)), np.float32)
    rows = np.repeat(np.arange(len(lists)), [len(row) for row in lists])
    targets_NC[rows, encode_labels(list(chain.from_iterable(lists)), names, path)] = 1
    return targets_NC


def _encode_numbers(labels: Sequence[Label], path: Path) -> NDArray[np.float32]:
    for row, label in enumerate(labels):
        if not isinstance(label, int | float) or not np.isfinite(label):
            raise InputError(f"{path}: label {label!r} of example {row} is not a finite number")
    return np.array(labels, np.float32)
