"""The labeled files of a training, read and split before any library that trains is loaded.

    labeled files, corpus without labels -> [training_files] -> TrainingFiles -> finetune, compress
    training rows -> train, select; evaluation rows -> the number

This module knows nothing of models.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from fastformers.data.examples import Columns, Examples
from fastformers.data.splitting import SelectConfig, SplitRows, split_rows
from fastformers.data.superglue import load_labeled
from fastformers.data.transfer_sample import (
    Locate,
    TransferConfig,
    TransferSample,
    locate_here,
    sample_transfer,
)

_NO_CORPUS = TransferConfig()


@dataclass(frozen=True, kw_only=True)
class TrainingFiles:
    """Examples of the files.

    Attributes:
        split: Those that train, and those that choose.
        evaluation: To measure quality on, once; None if there is no such file.
        transfer: Texts of a corpus without labels to distill on, too, or None.
    """

    split: SplitRows
    evaluation: Examples | None
    transfer: TransferSample | None


def load_training_files(
    train: Path,
    evaluation: Path | None,
    columns: Columns,
    select: SelectConfig,
    *,
    has_labels: bool = True,
    eval_limit: int | None = None,
    transfer: TransferConfig = _NO_CORPUS,
    locate: Locate = locate_here,
) -> TrainingFiles:
    """Read the files.

    Args:
        train, evaluation: Their paths.
        columns: Their columns.
        select: Which rows choose and train nothing.
        has_labels: Whether the model learns from labels.
        eval_limit: Rows to evaluate on, evenly spaced; None for all.
        transfer: A corpus without labels, if there is one. No row of the other files is taken from
            it, evaluated or not.
        locate: Finds the corpus.

    Raises:
        InputError: A file or the corpus cannot be used.
    """
    labeled = columns if has_labels else replace(columns, label=None)
    files = {"--eval": evaluation, "--train": train, "--select": select.file}
    read = {flag: load_labeled(path, labeled) for flag, path in files.items() if path is not None}
    examples = read.get("--eval")
    split = split_rows(
        select, read["--train"], train, given=read.get("--select"), evaluation=examples
    )
    sample = None
    if transfer.corpus is not None:
        sample = sample_transfer(transfer, columns, read, locate=locate)
    if examples is not None and eval_limit is not None:
        examples = examples.sample(eval_limit)
    return TrainingFiles(split=split, evaluation=examples, transfer=sample)
