"""The labeled files of a compression, read and checked before any library that trains is loaded.

    labeled files, corpus without labels -> [training_files] -> TrainingFiles -> compress

This module knows nothing of models.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from fastformers.data.examples import Columns, Examples
from fastformers.data.superglue import load_labeled
from fastformers.data.transfer_sample import (
    Locate,
    TransferConfig,
    TransferSample,
    locate_here,
    sample_transfer,
)


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """Examples of the files.

    Attributes:
        train: To distill, rank and calibrate on.
        evaluation: To measure quality on.
        transfer: Texts of a corpus without labels to distill on, too, or None.
        held_out: Ones to set the threshold of a cascade on, or None.
    """

    train: Examples
    evaluation: Examples
    transfer: TransferSample | None
    held_out: Examples | None = None


def load_training_files(
    train: Path,
    evaluation: Path,
    transfer: TransferConfig,
    columns: Columns,
    *,
    has_labels: bool,
    eval_limit: int | None,
    held_out: Path | None = None,
    locate: Locate = locate_here,
) -> TrainingFiles:
    """Read the files.

    Args:
        train, evaluation: Their paths.
        transfer: A corpus without labels, if there is one. No row of the other files is taken from
            it, evaluated or not.
        held_out: Path of rows that set the threshold of a cascade, if there are any.
        columns: Their columns.
        has_labels: Whether the teacher learns from labels.
        eval_limit: Rows to evaluate on, evenly spaced; None for all.
        locate: Finds the corpus.

    Raises:
        InputError: A file or the corpus cannot be used.
    """
    labeled = columns if has_labels else replace(columns, label=None)
    examples = load_labeled(evaluation, labeled)
    learned = load_labeled(train, labeled)
    set_aside = None if held_out is None else load_labeled(held_out, labeled)
    sample = None
    if transfer.corpus is not None:
        known = {"--eval": examples, "--train": learned}
        if set_aside is not None:
            known["--cascade-held-out"] = set_aside
        sample = sample_transfer(transfer, columns, known, locate=locate)
    return TrainingFiles(
        train=learned,
        evaluation=examples if eval_limit is None else examples.sample(eval_limit),
        transfer=sample,
        held_out=set_aside,
    )
