"""Targets of labeled examples, encoded as the task of a model needs them.

    Examples -> [targets] -> finetune, distill, quality gate

This module knows nothing of models but their task and class names.

Shape suffixes: N examples, C classes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from fastformers.data.examples import LABEL_SEPARATOR, Examples
from fastformers.data.labels import (
    SHOWN_NAMES,
    Label,
    LabelReading,
    number_of,
    read_labels,
    text_of,
)
from fastformers.errors import InputError
from fastformers.inference.tasks import Task


@dataclass(frozen=True, kw_only=True)
class SettledLabels:
    """Labels that can be read in one way alone, because they are names of classes.

    Attributes:
        files: The examples of each file.
        meaning: What the labels were taken for, with the rows of each class in the first file.
    """

    files: tuple[Examples, ...]
    meaning: str


def task_of_labels(examples: Examples, path: Path) -> Task:
    """Task that the labels of a training file suggest.

    Raises:
        InputError: They may be classes or numbers.
    """
    if examples.task is None:
        raise InputError(
            f"{path}: the labels are whole numbers written as fractions ({examples.labels[0]}): "
            "give --task text-classification if they are classes, --task regression if not"
        )
    return examples.task


def class_names_of(examples: Examples, task: Task) -> list[str]:
    """Distinct labels, sorted: the classes of a model that is trained on the examples."""
    if num_marks := _num_marks(examples.labels):
        return [str(place) for place in range(num_marks)]
    labels: list[Label] = examples.labels
    if task.targets == "label set":
        labels = list(chain.from_iterable(_label_lists(labels)))
    numbers = {text_of(label): number_of(label) for label in labels}
    if None in numbers.values():
        return sorted(numbers)
    return sorted(numbers, key=lambda name: (numbers[name], name))


def classes_to_train(examples: Examples, task: Task, path: Path) -> list[str]:
    """Class names of a model to train, by class index; none for a task without classes.

    Raises:
        InputError: There are no labels, or those of one class alone; names `path`.
    """
    if not task.has_targets:
        raise InputError(f"{path}: no labels to train on; give --label-column")
    if not task.has_labels:
        return []
    names = class_names_of(examples, task)
    if len(names) < 2:
        raise InputError(
            f"{path}: only one label ({', '.join(map(repr, names))}); a classifier needs two"
        )
    return names


def settle_labels(
    files: Sequence[tuple[Path, Examples]],
    task: Task,
    names: Sequence[str],
    *,
    has_places: bool = True,
    new_names: Sequence[str] = (),
) -> SettledLabels:
    """Read the labels of several files alike, and put the names of the classes in their place.

    Args:
        files: The examples of each file.
        task: The model's task.
        names: The C class names of the model, by class index.
        has_places: Whether a number may be the place of a class (see `read_labels`).
        new_names: What the classes will be called. Where numbers may be places, labels may be these
            names, too, if all of them are.

    Raises:
        InputError: The labels do not suit the task or the model's classes.
    """
    for path, examples in files:
        _check_kind(examples, task, path)
    where = " and ".join(dict.fromkeys(str(path) for path, _ in files))
    if not task.has_labels:
        meaning = _describe_others([(path, examples.labels) for path, examples in files], task)
        return SettledLabels(files=tuple(examples for _, examples in files), meaning=meaning)
    if num_marks := _num_marks([label for _, examples in files for label in examples.labels]):
        rows, how = _unmark(files, task, names, num_marks), "marked by 0 and 1"
    else:
        lists = [_lists_of(examples, task, path) for path, examples in files]
        labels = list(chain.from_iterable(chain.from_iterable(lists)))
        is_renamed = has_places and bool(new_names)
        is_renamed = is_renamed and {text_of(label) for label in labels} <= {*new_names}
        known = new_names if is_renamed else names
        reading = read_labels(labels, known, where, has_places=has_places)
        for path, examples in files:
            _check_right_class(examples, reading, known, path)
        rows = [[[reading.class_of[x] for x in row] for row in of_file] for of_file in lists]
        how = reading.how
    settled = []
    for (_, examples), places_of_rows in zip(files, rows, strict=True):
        named: list[Label] = [[names[c] for c in places] for places in places_of_rows]
        if task.targets == "class":
            named = [names[place] for (place,) in places_of_rows]
        settled.append(replace(examples, labels=named))
    meaning = _describe_classes(settled[0], task, names, how)
    if new_names:
        shown = ", ".join(map(repr, new_names[:SHOWN_NAMES]))
        meaning += f"; called {shown}{', ...' * (len(new_names) > SHOWN_NAMES)}"
    return SettledLabels(files=tuple(settled), meaning=meaning)


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
    [examples] = settle_labels([(path, examples)], task, names).files
    index_of = {name: index for index, name in enumerate(names)}
    match task.targets:
        case "class":
            return np.array([index_of[str(label)] for label in examples.labels], np.int64)
        case "label set":
            targets_NC = np.zeros((len(examples), len(names)), np.float32)
            for row, labels in enumerate(_label_lists(examples.labels)):
                targets_NC[row, [index_of[str(label)] for label in labels]] = 1
            return targets_NC
        case "number":
            return _encode_numbers(examples.labels, path)
        case "choice":
            return np.array(examples.labels, np.int64)
        case "none":
            return np.zeros(len(examples), np.int64)
        case _:
            assert_never(task.targets)


def _check_kind(examples: Examples, task: Task, path: Path) -> None:
    """Refuse choices for a model that classifies, and the other way round."""
    has_choices = examples.task is not None and examples.task.is_choice
    if task.is_choice and not has_choices:
        raise InputError(f"{path}: the model chooses between texts; give --choice-columns")
    if has_choices and not task.is_choice:
        raise InputError(f"{path}: the model's task is {task}; leave --choice-columns out")


def _check_right_class(
    examples: Examples, reading: LabelReading, names: Sequence[str], path: Path
) -> None:
    """Refuse answers to questions whose right ones are not class 1, which metrics count."""
    if examples.groups is not None and reading.class_of.get(True, 1) != 1:
        raise InputError(
            f"{path}: right answers would be class 0 of the model, {names[0]!r}; "
            "class 1 must be that of right answers: change the model's id2label"
        )


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


def _lists_of(examples: Examples, task: Task, path: Path) -> list[list[Label]]:
    """Labels of each row: one, or where several may hold any number."""
    if task.targets == "label set":
        return _label_lists(examples.labels)
    if any(isinstance(label, list) for label in examples.labels):
        raise InputError(
            f"{path}: the label column holds lists, but the model gives one label per row"
        )
    return [[label] for label in examples.labels]


def _num_marks(labels: Sequence[Label]) -> int:
    """Number of classes that rows of 0 and 1 mark, one mark for each class; 0 for other labels.

    Lists of places ascend, so `[0, 1]` alone would be two of them, and `[1, 0]` is a row of marks.
    """
    rows = [label for label in labels if isinstance(label, list)]
    lengths = set(map(len, rows))
    if len(rows) < len(labels) or len(lengths) != 1 or lengths == {0}:
        return 0
    if any(isinstance(mark, str) or mark not in (0, 1) for row in rows for mark in row):
        return 0
    is_marked = any(row != sorted(set(row)) for row in rows)
    return lengths.pop() if is_marked else 0


def _unmark(
    files: Sequence[tuple[Path, Examples]], task: Task, names: Sequence[str], num_marks: int
) -> list[list[list[int]]]:
    """Places of the classes that each row of each file marks.

    Raises:
        InputError: There are more or fewer marks than classes, or a row of one class has several.
    """
    unmarked = []
    for path, examples in files:
        if num_marks != len(names):
            raise InputError(
                f"{path}: the label column holds lists of {num_marks} zeros and ones, but the "
                f"model has {len(names)} labels"
            )
        marked = [label for label in examples.labels if isinstance(label, list)]
        rows = [[place for place, mark in enumerate(row) if mark] for row in marked]
        if task.targets == "class" and any(len(row) != 1 for row in rows):
            raise InputError(
                f"{path}: the label column holds lists, but the model gives one label per row"
            )
        unmarked.append(rows)
    return unmarked


def _describe_classes(examples: Examples, task: Task, names: Sequence[str], how: str) -> str:
    """What the labels of a file are, with the rows of each class, for the user."""
    if task.targets == "class":
        found, kind = Counter(examples.labels), "classes"
    else:
        found = Counter(chain.from_iterable(_label_lists(examples.labels)))
        kind = f"labels in {len(examples):,} rows"
    shown = ", ".join(f"{name!r} {found[name]:,}" for name in names[:SHOWN_NAMES])
    others = sum(found[name] for name in names[SHOWN_NAMES:])
    more = f", and {others:,} of {len(names) - SHOWN_NAMES} more" if others else ""
    return f"{len(names)} {kind} {how}: {shown}{more}"


def _describe_others(files: Sequence[tuple[Path, Sequence[Label]]], task: Task) -> str:
    """The same for a task without names of classes.

    Raises:
        InputError: A label should be a number and is none.
    """
    match task.targets:
        case "number":
            numbers, *_ = [_encode_numbers(labels, path) for path, labels in files]
            return f"numbers from {numbers.min():g} to {numbers.max():g}"
        case "choice":
            labels = files[0][1]
            return f"{labels.count(1):,} questions with {len(labels):,} choices"
        case _:
            return "none are needed"


def _encode_numbers(labels: Sequence[Label], path: Path) -> NDArray[np.float32]:
    numbers = []
    for row, label in enumerate(labels):
        try:
            number = math.nan if isinstance(label, list | None) else float(label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{path}: label {label!r} of example {row} is not a finite number")
        numbers.append(number)
    return np.array(numbers, np.float32)
