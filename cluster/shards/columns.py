"""Whether the columns of predictions and those of a corpus go together.

    columns of predictions and of the corpus -> [columns] -> nothing, or one line that says why

This module knows nothing of files or of how outputs are computed.
"""

from collections.abc import Sequence

from fastformers.cluster.corpus.inputs import LABEL_FLAG
from fastformers.errors import InputError
from fastformers.formats.readers import KEEP_FLAG
from fastformers.inference.outputs.columns import COLUMNS_FLAG
from fastformers.inference.tasks import PredictionColumn, Task


def check_kept(keep_columns: Sequence[str], columns: Sequence[PredictionColumn]) -> None:
    """Refuse to keep a column that has the name of a prediction.

    Raises:
        InputError: A kept column has such a name.
    """
    for name in (*(column.name for column in columns), "error"):
        if name in keep_columns:
            raise InputError(
                f"{KEEP_FLAG} {name}: the predictions have a column of that name; rename yours, "
                f"name the columns to keep, or leave it out of {COLUMNS_FLAG}"
            )


def check_label_column(label_column: str | None, task: Task) -> None:
    """Refuse labels for predictions that have none to be compared with.

    Raises:
        InputError: A column is named, and the task has no labels or several rows to a question.
    """
    if label_column is not None and (not task.has_targets or task.is_choice):
        raise InputError(
            f"{LABEL_FLAG} {label_column}: predictions of the task {task} are compared with no "
            "labels; leave it out"
        )
