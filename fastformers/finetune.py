"""Fine-tune a pretrained encoder into a sequence classifier: the teacher of a recipe.

    pretrained encoder + labelled texts -> [finetune] -> teacher -> compress -> bundle

Labels come from the file; for a small teacher the encoder is cut to its first layers. The loop
itself is training.py's.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    set_seed,
)

from fastformers.errors import InputError
from fastformers.examples import Examples, encode_labels
from fastformers.training import (
    PAD_MULTIPLE,
    OnProgress,
    TrainingConfig,
    train_model,
    without_attention_dropout,
)

logger = logging.getLogger(__name__)


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
) -> list[str]:
    """Train a classifier on labelled texts and save it with its tokenizer.

    Rerunning the same call after an interruption resumes from the last checkpoint in
    `output/checkpoints`.

    Args:
        model_path: Directory of a pretrained Hugging Face encoder.
        train: Labelled examples; their distinct labels, sorted, become the classes.
        train_path: Where they come from, for messages.
        output: Directory for the model, readable by `from_pretrained`.
        on_progress: Called after each step with steps done and in all.

    Returns:
        The class names by class index.

    Raises:
        InputError: There are fewer than two classes, or more layers asked for than there are.
    """
    set_seed(config.seed)
    names = [str(label) for label in sorted(set(train.labels))]
    if len(names) < 2:
        raise InputError(f"{train_path}: only one label ({names[0]!r}); a classifier needs two")
    _check_num_layers(model_path, config.num_layers)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        model_path,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        attn_implementation="sdpa",
        **_config_changes(model_path, config.num_layers),
    )
    tokenizer.model_max_length = config.max_length
    encoded = tokenizer(
        train.texts, train.text_pairs, truncation=True, max_length=config.max_length
    )
    labels = encode_labels(train.labels, names, train_path)
    train_model(
        model,
        _Rows(encoded, labels.tolist()),
        DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_MULTIPLE),
        checkpoints=output / "checkpoints",
        config=config.training,
        what="fine-tune",
        on_progress=on_progress,
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return names


def _check_num_layers(model_path: Path, num_layers: int | None) -> None:
    available = AutoConfig.from_pretrained(model_path).num_hidden_layers
    if num_layers is not None and not 1 <= num_layers <= available:
        raise InputError(f"--num-layers {num_layers}: give 1 to {available}")


def _config_changes(model_path: Path, num_layers: int | None) -> dict[str, float]:
    changes = without_attention_dropout(AutoConfig.from_pretrained(model_path))
    return changes if num_layers is None else {**changes, "num_hidden_layers": num_layers}


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized examples with the length that groups them into batches."""

    def __init__(self, encoded: dict[str, list[list[int]]], labels: list[int]) -> None:
        self._columns = {name: encoded[name] for name in encoded}
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        example: dict[str, Any] = {name: column[row] for name, column in self._columns.items()}
        return {**example, "labels": self._labels[row]}
