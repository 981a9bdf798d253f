"""Which columns predictions have: those of the task, or those that the user names.

    names, task of the bundle, labels -> [columns] -> a PredictionColumn for each -> predictions

A column that the task does not have, or that asks for more labels than there are, is refused before
any work. This module knows nothing of files or of how outputs are computed.

Shape suffixes: U different texts, C classes, K labels of a row.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from fastformers.arrays import Floats
from fastformers.errors import InputError
from fastformers.inference.tasks import Cells, PredictionColumn, Task
from fastformers.options import split_names

COLUMNS_FLAG = "--columns"
TOP_K = "top_k"


def choose_columns(
    given: Sequence[str], task: Task, labels: tuple[str, ...]
) -> tuple[PredictionColumn, ...]:
    """The columns of predictions that a list of names means.

    Args:
        given: Names as the user wrote them, each of them one, or several separated by commas;
            `top_k=3` is the three most probable labels. Empty for the task's own columns.
        task: Task of the bundle.
        labels: Names of its classes.

    Raises:
        InputError: The task has no such column, or one is named twice.
    """
    known = {column.name: column for column in (*task.columns, *task.further)}
    chosen: dict[str, PredictionColumn] = {}
    for text in (name for names in given for name in split_names(names)):
        name, equals, number = text.partition("=")
        if name in chosen:
            raise InputError(f"{COLUMNS_FLAG} names the column {name!r} twice")
        if name == TOP_K and task.has_labels:
            chosen[name] = _plan_top_k(text, number, known["probabilities"], labels)
        elif name in known and not equals:
            chosen[name] = known[name]
        else:
            choice = [*known, *([f"{TOP_K}=N"] if task.has_labels else [])]
            raise InputError(
                f"{COLUMNS_FLAG} {text}: no column of the task {task}; choose from "
                f"{', '.join(choice)}"
            )
    if given and not chosen:
        raise InputError(f"{COLUMNS_FLAG} names no column; leave it out for those of the task")
    return tuple(chosen.values()) or task.columns


def _plan_top_k(
    text: str, number: str, probabilities: PredictionColumn, labels: tuple[str, ...]
) -> PredictionColumn:
    if not number.isdecimal() or not 1 <= int(number) <= len(labels):
        raise InputError(
            f"{COLUMNS_FLAG} {text}: say how many labels, from 1 to the {len(labels)} of the "
            f"bundle, as in {TOP_K}={min(3, len(labels))}"
        )
    read = partial(_rank, probabilities=probabilities, num_labels=int(number))
    return PredictionColumn(name=TOP_K, kind="ranked", read=read)


def _rank(
    outputs_UC: Floats,
    names: tuple[str, ...],
    *,
    probabilities: PredictionColumn,
    num_labels: int,
) -> Cells:
    """The most probable labels of each text with their probabilities, the first of equals first."""
    probabilities_UC = np.asarray(probabilities.read(outputs_UC, names))
    classes_UK = np.argsort(-probabilities_UC, axis=1, kind="stable")[:, :num_labels]
    found_UK = np.take_along_axis(probabilities_UC, classes_UK, axis=1)
    return [
        [
            {"label": names[number], "probability": probability}
            for number, probability in zip(classes, found, strict=True)
        ]
        for classes, found in zip(classes_UK.tolist(), found_UK.tolist(), strict=True)
    ]
