"""Fine-tune a pretrained encoder on labeled texts: the teacher of a recipe.

    pretrained encoder + labeled texts -> [finetune] -> teacher -> compress -> bundle

The classes are the labels of the file; for a small teacher, the encoder is cut to its first layers.
With a held-out file, each epoch is evaluated and the best one kept. The loop itself is in
trainer.py. This module knows nothing of compression.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoTokenizer,
    DataCollatorForMultipleChoice,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from fastformers.data.examples import Examples
from fastformers.data.held_out import hold_out
from fastformers.data.targets import (
    class_names_of,
    encode_targets,
    settle_labels,
    task_of_labels,
)
from fastformers.errors import InputError
from fastformers.inference.tasks import Task
from fastformers.inference.tokenizer import Tokenizer
from fastformers.models.architectures import architecture_of, check_supported
from fastformers.models.forward import OnProgress, predict_logits
from fastformers.models.loading import new_classifier
from fastformers.models.trainer import (
    PAD_MULTIPLE,
    Epoch,
    EpochEvaluator,
    fastest_attention,
    train_model,
    without_attention_dropout,
)
from fastformers.models.training_config import FinetuneConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """Result of fine-tuning.

    Attributes:
        labels: Class names by class index; none for scores.
        best: The epoch that was kept and its quality by the task's metric; None if no epoch was
            evaluated.
    """

    labels: list[str]
    best: Epoch | None


def finetune(
    model_path: Path,
    train: Examples,
    train_path: Path,
    output: Path,
    config: FinetuneConfig,
    on_progress: OnProgress = lambda what, done, total: None,
    *,
    task: Task | None = None,
    evaluation: Examples | None = None,
    eval_path: Path | None = None,
    on_labels: Callable[[str], None] = lambda meaning: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Finetuned:
    """Train a model on labeled texts and save it with its tokenizer.

    Rerunning the same call after an interruption resumes from the last checkpoint in
    `output/checkpoints`.

    Args:
        model_path: Directory of a pretrained Hugging Face encoder, or of a model fine-tuned for
            another task, which then gets a new head.
        train: Labeled examples; their distinct labels, sorted, become the classes.
        train_path: File that they come from, for messages.
        output: Directory for the model, readable by `from_pretrained`.
        config: Settings of the fine-tuning.
        on_progress: Called after each step with the steps done and their total.
        task: Task to train for; None for the one that the labels suggest (`Examples.task`).
        evaluation: Held-out examples by which the best epoch is kept; None to keep the last one.
        eval_path: File that those come from, for messages.
        on_labels: Called before training with what the labels were taken for.
        on_epoch: Called with each epoch after its evaluation.

    Raises:
        InputError: There are fewer than two classes, the labels do not suit the task, the
            architecture could not be scored afterwards, or more layers are asked for than there
            are.
    """
    set_seed(config.training.seed)
    task = task or task_of_labels(train, train_path)
    names = _class_names(train, task, train_path)
    files = [(train_path, train)]
    if evaluation is not None:
        files.append((eval_path or train_path, evaluation))
    settled = settle_labels(files, task, names, has_places=False)
    train, *held_out = settled.files
    on_labels(settled.meaning)
    targets = encode_targets(train, task, names, train_path)
    _check_encoder(model_path, config.num_layers)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = _new_model(model_path, task, names, config.num_layers)
    tokenizer.model_max_length = config.max_length
    encoded = tokenizer(
        train.texts, train.text_pairs, truncation=True, max_length=config.max_length
    )
    rows: _Rows | _Questions = _Rows(encoded, targets.tolist())
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)
    if task.is_choice:
        assert train.groups is not None and isinstance(rows, _Rows)
        rows = _Questions(rows, train.groups)
        collator = DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)
    evaluator: EpochEvaluator | None = None
    if held_out:
        measure = _measure_of(model, tokenizer, task, names, held_out[0], eval_path or train_path)
        evaluator = EpochEvaluator(measure=measure, on_epoch=on_epoch)
    with fastest_attention(model, sum(map(len, encoded["input_ids"])) / len(train)):
        best = train_model(
            model,
            rows,
            collator,
            checkpoints=output / "checkpoints",
            config=config.training,
            what="fine-tune",
            on_progress=on_progress,
            evaluator=evaluator,
        )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return Finetuned(labels=names, best=best)


def _class_names(train: Examples, task: Task, path: Path) -> list[str]:
    """Class names by class index; none for a task without classes."""
    if not task.has_targets:
        raise InputError(f"{path}: no labels to train on; give --label-column")
    if not task.has_labels:
        return []
    names = class_names_of(train, task)
    if len(names) < 2:
        raise InputError(
            f"{path}: only one label ({', '.join(map(repr, names))}); a classifier needs two"
        )
    return names


def _measure_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    names: list[str],
    evaluation: Examples,
    path: Path,
) -> Callable[[], float]:
    """Make the function that measures the model's quality on held-out examples."""
    held_out = hold_out(evaluation, task, names, path)
    encode = Tokenizer(
        tokenizer.backend_tokenizer.to_str(), max_length=tokenizer.model_max_length
    ).encode
    rows = encode(evaluation.texts, evaluation.text_pairs)

    def measure() -> float:
        outputs_NC = predict_logits(model, rows)
        return held_out.measure(outputs_NC, outputs_NC)

    return measure


def _new_model(
    model_path: Path, task: Task, names: list[str], num_layers: int | None
) -> PreTrainedModel:
    """The encoder with a head for the task; a head of another size is replaced."""
    changes = _config_changes(model_path, num_layers)
    if task.is_choice:
        return AutoModelForMultipleChoice.from_pretrained(
            model_path, ignore_mismatched_sizes=True, **changes
        )
    return new_classifier(model_path, task, names or ["score"], **changes)


def _check_encoder(model_path: Path, num_layers: int | None) -> None:
    config = AutoConfig.from_pretrained(model_path)
    check_supported(config.model_type, str(model_path))
    available = config.num_hidden_layers
    if num_layers is not None and not 1 <= num_layers <= available:
        raise InputError(f"--num-layers {num_layers}: give 1 to {available}")


def _config_changes(model_path: Path, num_layers: int | None) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(model_path)
    changes: dict[str, Any] = without_attention_dropout(config)
    if num_layers is not None:
        changes["num_hidden_layers"] = num_layers
        for name in architecture_of(config).layer_settings:
            changes[name] = getattr(config, name)[:num_layers]
    return changes


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized examples with their labels."""

    def __init__(self, encoded: dict[str, list[list[int]]], labels: list[Any]) -> None:
        self._columns = {name: encoded[name] for name in encoded}
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example: dict[str, Any] = {name: column[row] for name, column in self._columns.items()}
        return {**example, "labels": self._labels[row]}


class _Questions(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of multiple choice by question; the label is the position of the right choice."""

    def __init__(self, rows: _Rows, groups: list[int]) -> None:
        self._rows = rows
        starts = np.unique(groups, return_index=True)[1]
        self._questions = np.split(np.arange(len(rows)), starts[1:])

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, question: int) -> dict[str, Any]:
        choices = [self._rows[row] for row in self._questions[question].tolist()]
        example: dict[str, Any] = {
            name: [choice[name] for choice in choices] for name in choices[0]
        }
        return {**example, "labels": example["labels"].index(1)}
