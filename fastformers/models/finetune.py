"""Fine-tune a pretrained encoder on labeled texts: the teacher of a recipe.

    pretrained encoder + labeled texts -> [finetune] -> teacher -> compress -> bundle

The classes are the labels of the file; for a small teacher, the encoder is cut to its first layers.
With a held-out file, each epoch is evaluated and the best one kept. The loop itself is in
trainer.py. This module knows nothing of compression.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForMultipleChoice,
    DataCollatorForMultipleChoice,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from fastformers.data.examples import Examples
from fastformers.data.held_out import hold_out
from fastformers.data.targets import (
    classes_to_train,
    encode_targets,
    settle_labels,
    task_of_labels,
)
from fastformers.digest import digest_of, library_versions
from fastformers.errors import InputError
from fastformers.files.hub import find_model
from fastformers.inference.description.label_names import check_label_names
from fastformers.inference.tasks import Task
from fastformers.inference.tokenizer import Tokenizer
from fastformers.models.architectures import (
    architecture_of,
    check_model_type,
    check_supported,
)
from fastformers.models.checkpoint import load_config, naming_file
from fastformers.models.forward import OnProgress, predict_logits, takes_token_types
from fastformers.models.loading import (
    max_positions,
    new_classifier,
    open_tokenizer,
    serialize_tokenizer,
)
from fastformers.models.model_files import (
    TEACHER_FILE,
    check_teacher_output,
    digest_checkpoint,
    read_config,
    read_json,
)
from fastformers.models.trainer import (
    PAD_MULTIPLE,
    Epoch,
    EpochEvaluator,
    fastest_attention,
    train_model,
    without_attention_dropout,
)
from fastformers.models.training_config import DEFAULT_MAX_LENGTH, FinetuneConfig


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

    Rerunning the same call after an interruption resumes from the last checkpoint, which is beside
    the output (`.NAME.work`) until the teacher is there. A call with other examples, labels,
    settings or libraries begins anew and replaces the teacher when it is done; one that is done
    already returns what it returned.

    Args:
        model_path: Directory of a pretrained Hugging Face encoder, or org/name of one on the hub,
            or of a model fine-tuned for another task, which then gets a new head.
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
            model could not be scored afterwards, it has fewer layers or positions than asked for,
            or the output holds something else.
    """
    task = task or task_of_labels(train, train_path)
    model_path = find_model(model_path).path
    names = classes_to_train(train, task, train_path)
    new_names = [*(config.label_names or names)]
    if config.label_names:
        check_label_names(new_names, names, flag="--label-names")
    files = [(train_path, train)]
    if evaluation is not None:
        files.append((eval_path or train_path, evaluation))
    settled = settle_labels(files, task, names, has_places=False, new_names=config.label_names)
    train, *held_out = settled.files
    on_labels(settled.meaning)
    targets = encode_targets(train, task, names, train_path)
    max_length = _check_encoder(model_path, config)
    evaluated = [examples.digest for examples in held_out]
    decisive = (train.digest, evaluated, task.name, asdict(config), library_versions())
    key = digest_of(digest_checkpoint(model_path), decisive)
    kept = _find_finished(output, model_path, key)
    if kept is not None:
        return kept
    set_seed(config.training.seed)
    model = _new_model(model_path, task, new_names, config.num_layers)
    check_supported(model, str(model_path))
    tokenizer = _open_for_training(model_path, model, max_length)
    encoded = tokenizer(train.texts, train.text_pairs, truncation=True, max_length=max_length)
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
    work = output.with_name(f".{output.name}.work")
    with fastest_attention(model, sum(map(len, encoded["input_ids"])) / len(train)):
        best = train_model(
            model,
            rows,
            collator,
            checkpoints=work / key[:16],
            config=config.training,
            what="fine-tune",
            on_progress=on_progress,
            evaluator=evaluator,
        )
    result = Finetuned(labels=new_names, best=best)
    _save(model, tokenizer, result, key, output, work)
    return result


def _find_finished(output: Path, model_path: Path, key: str) -> Finetuned | None:
    """What the same training left in its output; None if it has to be done.

    Raises:
        InputError: The output is the encoder itself, or holds what no fine-tuning made.
    """
    check_teacher_output(output, model_path)
    made = read_json(output / TEACHER_FILE)
    if not made or made["key"] != key:
        return None
    best = made["best"]
    return Finetuned(labels=made["labels"], best=None if best is None else Epoch(**best))


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    result: Finetuned,
    key: str,
    output: Path,
    work: Path,
) -> None:
    """Put the teacher in the place of an earlier one, whole, and remove what was for resuming."""
    made, old = work / "teacher", work / "old"
    for directory in (made, old):
        shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    fields = {"key": key, "labels": result.labels, "best": result.best and vars(result.best)}
    (made / TEACHER_FILE).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if output.exists():
        output.rename(old)
    made.rename(output)
    shutil.rmtree(work)


def _open_for_training(
    path: Path, model: PreTrainedModel, max_length: int
) -> PreTrainedTokenizerFast:
    """The encoder's tokenizer, as it will be kept with the teacher.

    Raises:
        InputError: It has no padding token, or more tokens than the encoder has embeddings.
    """
    tokenizer = open_tokenizer(path, may_convert=True)
    if tokenizer.pad_token is None:
        raise InputError(
            f"{path / 'tokenizer_config.json'}: names no pad_token, with which rows of a batch are "
            "made equally long"
        )
    tokenizer.model_max_length = max_length
    tokenizer.padding_side = "right"  # rows are scored unpadded, so positions start at their start
    if not takes_token_types(model):  # a tokenizer of another architecture may give them
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [name for name in names if name != "token_type_ids"]
    return tokenizer


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
    encode = Tokenizer(serialize_tokenizer(tokenizer), max_length=tokenizer.model_max_length).encode
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
    with naming_file(model_path):
        if task.is_choice:
            return AutoModelForMultipleChoice.from_pretrained(
                model_path, ignore_mismatched_sizes=True, **changes
            )
        return new_classifier(model_path, task, names or ["score"], **changes)


def _check_encoder(model_path: Path, config: FinetuneConfig) -> int:
    """Refuse an encoder that could not be scored later; return the tokens to truncate to."""
    check_model_type(read_config(model_path)["model_type"], str(model_path))
    encoder = load_config(model_path)
    available = encoder.num_hidden_layers
    if config.num_layers is not None and not 1 <= config.num_layers <= available:
        raise InputError(f"--num-layers {config.num_layers}: give 1 to {available}")
    positions = max_positions(encoder)
    if config.max_length is not None and config.max_length > positions:
        raise InputError(f"--max-length {config.max_length}: the encoder has {positions} positions")
    return config.max_length or min(DEFAULT_MAX_LENGTH, positions)


def _config_changes(model_path: Path, num_layers: int | None) -> dict[str, Any]:
    config = load_config(model_path)
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
