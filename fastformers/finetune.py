"""Fine-tune a pretrained encoder on labelled texts: the teacher of a recipe.

    pretrained encoder + labelled texts -> [finetune] -> teacher -> compress -> bundle

Labels come from the file; for a small teacher the encoder is cut to its first layers. The loop
itself is training.py's.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForMultipleChoice,
    DataCollatorWithPadding,
    PreTrainedModel,
    set_seed,
)

from fastformers.errors import InputError
from fastformers.examples import Examples
from fastformers.targets import class_names_of, encode_targets
from fastformers.tasks import TaskName, has_labels
from fastformers.training import (
    PAD_MULTIPLE,
    OnProgress,
    TrainingConfig,
    train_model,
    use_fastest_attention,
    without_attention_dropout,
)

logger = logging.getLogger(__name__)

# What can be trained: an embedding model has no labels to train on.
TRAINABLE_TASKS: tuple[TaskName, ...] = (
    "text-classification",
    "multi-label-classification",
    "regression",
    "multiple-choice",
)
_PROBLEM_TYPES: dict[TaskName, str] = {
    "text-classification": "single_label_classification",
    "multi-label-classification": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How to fine-tune; the defaults suit a small encoder and ten thousand texts or more."""

    epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_rows: int = 16
    max_length: int = 256  # tokens, special tokens included
    num_layers: int | None = None  # keep only the first so many encoder layers
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.learning_rate <= 0 or self.batch_rows < 1:
            raise InputError("--epochs, --learning-rate and --batch-rows must be positive")
        if self.max_length < 8:
            raise InputError(f"--max-length {self.max_length}: give at least 8 tokens")

    @property
    def training(self) -> TrainingConfig:
        """The part that is the same for any training."""
        return TrainingConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_rows=self.batch_rows,
            seed=self.seed,
        )


def finetune(
    model_path: Path,
    train: Examples,
    train_path: Path,
    output: Path,
    config: FinetuneConfig,
    on_progress: OnProgress = lambda what, done, total: None,
    *,
    task: TaskName | None = None,
) -> list[str]:
    """Train a model on labelled texts and save it with its tokenizer.

    Rerunning the same call after an interruption resumes from the last checkpoint in
    `output/checkpoints`.

    Args:
        model_path: Directory of a pretrained Hugging Face encoder, or of a model fine-tuned for
            something else, whose head is then made anew.
        train: Labelled examples; their distinct labels, sorted, become the classes.
        train_path: Where they come from, for messages.
        output: Directory for the model, readable by `from_pretrained`.
        on_progress: Called after each step with steps done and in all.
        task: What to train for; None for what the labels look like (`Examples.task`).

    Returns:
        The class names by class index; none for scores.

    Raises:
        InputError: There are fewer than two classes, the labels do not suit the task, or there
            are more layers asked for than there are.
    """
    set_seed(config.seed)
    task = task or train.task
    if task not in TRAINABLE_TASKS:
        raise InputError(f"{train_path}: no labels to train on; give --label-column")
    names = class_names_of(train, task) if has_labels(task) else []
    if has_labels(task) and len(names) < 2:
        raise InputError(
            f"{train_path}: only one label ({', '.join(map(repr, names))}); a classifier needs two"
        )
    targets = encode_targets(train, task, names, train_path)
    _check_num_layers(model_path, config.num_layers)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = _new_model(model_path, task, names, config.num_layers)
    tokenizer.model_max_length = config.max_length
    encoded = tokenizer(
        train.texts, train.text_pairs, truncation=True, max_length=config.max_length
    )
    use_fastest_attention(model, sum(map(len, encoded["input_ids"])) / len(train))
    rows = _Rows(encoded, targets.tolist())
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)
    questions: _Questions | None = None
    if task == "multiple-choice":
        assert train.groups is not None
        questions = _Questions(rows, train.groups)
        collator = DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)
    train_model(
        model,
        questions or rows,
        collator,
        checkpoints=output / "checkpoints",
        config=config.training,
        what="fine-tune",
        on_progress=on_progress,
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return names


def _new_model(
    model_path: Path, task: TaskName, names: list[str], num_layers: int | None
) -> PreTrainedModel:
    """The encoder with a head for the task; a head of another size does not stand in the way."""
    changes = _config_changes(model_path, num_layers)
    if task == "multiple-choice":
        return AutoModelForMultipleChoice.from_pretrained(
            model_path, ignore_mismatched_sizes=True, **changes
        )
    names = names or ["score"]
    return AutoModelForSequenceClassification.from_pretrained(
        model_path,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=_PROBLEM_TYPES[task],
        ignore_mismatched_sizes=True,
        **changes,
    )


def _check_num_layers(model_path: Path, num_layers: int | None) -> None:
    available = AutoConfig.from_pretrained(model_path).num_hidden_layers
    if num_layers is not None and not 1 <= num_layers <= available:
        raise InputError(f"--num-layers {num_layers}: give 1 to {available}")


def _config_changes(model_path: Path, num_layers: int | None) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(model_path)
    changes: dict[str, Any] = without_attention_dropout(config)
    if num_layers is not None:
        changes["num_hidden_layers"] = num_layers
        if hasattr(config, "layer_types"):  # ModernBERT's: which of them see a window alone
            changes["layer_types"] = config.layer_types[:num_layers]
    return changes


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized examples with the length that groups them into batches."""

    def __init__(self, encoded: dict[str, list[list[int]]], labels: list[Any]) -> None:
        self._columns = {name: encoded[name] for name in encoded}
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example: dict[str, Any] = {name: column[row] for name, column in self._columns.items()}
        return {**example, "labels": self._labels[row]}


class _Questions(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of multiple choice put together by question; the label is the place of the right one."""

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
