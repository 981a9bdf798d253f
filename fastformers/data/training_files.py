"""The labeled files of a compression, read and checked before any library that trains is loaded.

    labeled files -> [training_files] -> TrainingFiles -> compress

This module knows nothing of models.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from fastformers.data.examples import Columns, Examples
from fastformers.data.superglue import load_labeled


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """Examples of the files.

    Attributes:
        train: To distill, rank and calibrate on.
        evaluation: To measure quality on.
        transfer: Further ones without labels to distill on, or None.
        held_out: Ones to set the threshold of a cascade on, or None.
    """

    train: Examples
    evaluation: Examples
    transfer: Examples | None
    held_out: Examples | None = None


def load_training_files(
    train: Path,
    evaluation: Path,
    transfer: Path | None,
    columns: Columns,
    *,
    has_labels: bool,
    eval_limit: int | None,
    held_out: Path | None = None,
) -> TrainingFiles:
    """Read the files.

    Args:
        train, evaluation, transfer, held_out: Their paths.
        columns: Their columns.
        has_labels: Whether the teacher learns from labels; those of `transfer` never count.
        eval_limit: Rows to evaluate on, evenly spaced; None for all.

    Raises:
        InputError: A file cannot be used.
    """
    unlabeled = replace(columns, label=None)
    labeled = columns if has_labels else unlabeled
    examples = load_labeled(evaluation, labeled)
    return TrainingFiles(
        train=load_labeled(train, labeled),
        evaluation=examples if eval_limit is None else examples.sample(eval_limit),
        transfer=None if transfer is None else load_labeled(transfer, unlabeled),
        held_out=None if held_out is None else load_labeled(held_out, labeled),
    )
