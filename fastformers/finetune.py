"""Fine-tune a pretrained encoder into a sequence classifier: the teacher of a recipe.

    pretrained encoder + labelled texts -> [finetune] -> teacher -> compress -> bundle

The loop is Hugging Face's Trainer, so mixed precision, resuming and several GPUs are its own. What
this module adds: labels, length-grouped batches padded to multiples of 16, and, for a small
teacher, an encoder cut to its first layers.
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
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from fastformers.errors import InputError
from fastformers.examples import Examples, encode_labels

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


def finetune(
    model_path: Path, train: Examples, train_path: Path, output: Path, config: FinetuneConfig
) -> list[str]:
    """Train a classifier on labelled texts and save it with its tokenizer.

    Rerunning the same call after an interruption resumes from the last checkpoint in
    `output/checkpoints`.

    Args:
        model_path: Directory of a pretrained Hugging Face encoder.
        train: Labelled examples; their distinct labels, sorted, become the classes.
        train_path: Where they come from, for messages.
        output: Directory for the model, readable by `from_pretrained`.

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
        **_config_changes(model_path, config.num_layers),
    )
    tokenizer.model_max_length = config.max_length
    encoded = tokenizer(
        train.texts, train.text_pairs, truncation=True, max_length=config.max_length
    )
    labels = encode_labels(train.labels, names, train_path)
    trainer = Trainer(
        model=model,
        args=_training_arguments(output, config),
        train_dataset=_Rows(encoded, labels.tolist()),
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=16),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output / "checkpoints")))
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return names


def _check_num_layers(model_path: Path, num_layers: int | None) -> None:
    available = AutoConfig.from_pretrained(model_path).num_hidden_layers
    if num_layers is not None and not 1 <= num_layers <= available:
        raise InputError(f"--num-layers {num_layers}: give 1 to {available}")


def _config_changes(model_path: Path, num_layers: int | None) -> dict[str, Any]:
    """Fewer layers if asked for, and no dropout inside attention.

    On a CPU its random masks, and the unfused attention that they need, took a quarter of a step
    (MiniLM, 32 rows of 128 tokens: 3.1 s with them, 2.3 s without). Hidden dropout stays.
    """
    config = AutoConfig.from_pretrained(model_path)
    names = ("attention_probs_dropout_prob", "attention_dropout")
    changes: dict[str, Any] = {name: 0.0 for name in names if hasattr(config, name)}
    if num_layers is not None:
        changes["num_hidden_layers"] = num_layers
        if hasattr(config, "layer_types"):  # ModernBERT's: which of them see a window alone
            changes["layer_types"] = config.layer_types[:num_layers]
    return changes


def _has_fast_bf16() -> bool:
    """Whether bf16 is faster than fp32 here: emulated on a CPU without it, it is 3x slower."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _training_arguments(output: Path, config: FinetuneConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output / "checkpoints"),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_rows,
        lr_scheduler_type="linear",
        warmup_steps=0.06,
        weight_decay=0.01,
        bf16=_has_fast_bf16(),
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        logging_steps=50,
        save_strategy="steps",
        save_steps=500,
        save_total_limit=1,
        report_to="none",
        seed=config.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )


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
