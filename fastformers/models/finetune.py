"""Fine-tune a pretrained encoder on labeled texts: the teacher of a recipe.

    training rows -> train, select -> [finetune] -> teacher -> compress -> bundle
    teacher, evaluation rows -> [finetune] -> its quality

The classes are the labels of the file; for a small teacher, the encoder is cut to its first layers.
Selection rows, which train nothing, choose the best epoch, and evaluation rows say how good it is.
The loop itself is in trainer.py. This module knows nothing of compression.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorForMultipleChoice,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)

from fastformers.atomic_file import whole_file
from fastformers.data.examples import Examples
from fastformers.data.held_out import HeldOut, hold_out
from fastformers.data.resampling import Interval, interval_of, resample_metric
from fastformers.data.targets import (
    class_names_of,
    classes_to_train,
    encode_targets,
    settle_labels,
    task_of_labels,
)
from fastformers.digest import digest_of, library_versions
from fastformers.errors import InputError
from fastformers.files.file_lock import alone_in
from fastformers.files.hub import find_model
from fastformers.inference.description.label_names import check_label_names
from fastformers.inference.tasks import Task
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer
from fastformers.models.architectures import architecture_of, check_model_type, check_supported
from fastformers.models.checkpoint import load_config, naming_file
from fastformers.models.forward import OnProgress, predict_logits, takes_token_types
from fastformers.models.loading import (
    load_model,
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
from fastformers.models.training_config import DEFAULT_MAX_LENGTH, FinetuneConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """Result of fine-tuning.

    Attributes:
        labels: Class names by class index; none for scores.
        best: The epoch that was kept and its quality on the selection rows by the task's metric;
            None if there were none, and the last epoch was kept.
        quality: Quality on the evaluation rows; None if there are none.
        interval: 95% interval of it.
    """

    labels: list[str]
    best: Epoch | None
    quality: float | None = None
    interval: Interval | None = None


def finetune(
    model_path: Path,
    train: Examples,
    train_path: Path,
    output: Path,
    config: FinetuneConfig,
    on_progress: OnProgress = lambda what, done, total: None,
    *,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    select: Examples | None = None,
    select_path: Path | None = None,
    evaluation: Examples | None = None,
    eval_path: Path | None = None,
    on_labels: Callable[[str], None] = lambda meaning: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Finetuned:
    """Train a model on labeled texts and save it with its tokenizer.

    Rerunning the same call after an interruption resumes from the last checkpoint, which is beside
    the output (`.NAME.work`) until the teacher is there. A call with other examples, labels,
    settings or libraries begins anew and replaces the teacher when it is done; one that is done
    already returns what it returned, and other evaluation examples measure the teacher that is
    there.

    Args:
        model_path: Directory of a pretrained Hugging Face encoder, or org/name of one on the hub,
            or of a model fine-tuned for another task, which then gets a new head.
        train: Labeled examples; their distinct labels, sorted, become the classes.
        train_path: File that they come from, for messages.
        output: Directory for the model, readable by `from_pretrained`.
        config: Settings of the fine-tuning.
        on_progress: Called after each step with the steps done and their total.
        task: Task to train for; None for the one that the labels suggest (`Examples.task`).
        classes: Names of the classes, by class index; None for the labels of `train`.
        select: Examples by which the best epoch is kept; None to keep the last one.
        select_path: File that those come from, if it is not that of the others.
        evaluation: Examples that say how good the teacher is, and choose nothing; None if there are
            none.
        eval_path: File that those come from, for messages.
        on_labels: Called before training with what the labels were taken for.
        on_epoch: Called with each epoch after it was measured on the selection rows.

    Raises:
        InputError: There are fewer than two classes, the labels do not suit the task, the
            model could not be scored afterwards, it has fewer layers or positions than asked for,
            or the output holds something else.
        ClaimedError: Another run makes the same output.
        StageError: The training diverged; an earlier teacher stays.
    """
    task = task or task_of_labels(train, train_path)
    model_path = find_model(model_path).path
    names = [*(classes or classes_to_train(train, task, train_path))]
    if config.label_names:
        check_label_names(config.label_names, names, flag="--label-names")
    given = [(train_path, train)]
    given += [] if select is None else [(select_path or train_path, select)]
    given += [] if evaluation is None else [(eval_path or train_path, evaluation)]
    meaning, train, held_out = _settle(given, task, names, config.label_names)
    on_labels(meaning)
    choosing = None if select is None else held_out[0]
    targets = encode_targets(train, task, names, train_path)
    max_length = _check_encoder(model_path, config)
    chosen_by = "" if choosing is None else choosing.examples.digest
    decisive = (train.digest, chosen_by, task.name, asdict(config), library_versions())
    # Names that the rows that train tell by themselves are in their digest.
    further = (names,) if task.has_labels and names != class_names_of(train, task) else ()
    key = digest_of(digest_checkpoint(model_path), (*decisive, *further))
    result = _find_finished(output, model_path, key)
    if result is None:
        set_seed(config.training.seed)
        new_names = [*(config.label_names or names)]
        model = _new_model(model_path, config.num_layers, task, new_names)
        tokenizer = _open_for_training(model_path, model, max_length)
        work = output.with_name(f".{output.name}.work")
        with alone_in(work, output):
            best = _train(
                model,
                tokenizer,
                train,
                targets.tolist(),
                config.training,
                task=task,
                checkpoints=work / key[:16],
                evaluator=(
                    None if choosing is None else choosing.each_epoch(model, tokenizer, on_epoch)
                ),
                on_progress=on_progress,
            )
            result = Finetuned(labels=new_names, best=best)
            num_rows = {"train_rows": len(train), "select_rows": len(select or ())}
            _save(model, tokenizer, {"key": key, **num_rows, **asdict(result)}, output, work)
    return result if evaluation is None else _judge(result, output, held_out[-1], on_progress)


@dataclass(frozen=True)
class _HeldOutRows:
    """Rows that train nothing, with their targets."""

    examples: Examples
    held_out: HeldOut

    def tokenize(self, tokenizer: PreTrainedTokenizerFast) -> TokenizedRows:
        """Their token ids."""
        own = Tokenizer(serialize_tokenizer(tokenizer), max_length=tokenizer.model_max_length)
        return own.encode(self.examples.texts, self.examples.text_pairs)

    def each_epoch(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        on_epoch: Callable[[Epoch], None],
    ) -> EpochEvaluator:
        """What measures the model on these rows after each epoch."""
        rows = self.tokenize(tokenizer)

        def measure() -> float:
            outputs_NC = predict_logits(model, rows)
            return self.held_out.measure(outputs_NC, outputs_NC)

        return EpochEvaluator(measure=measure, on_epoch=on_epoch)


def _settle(
    given: list[tuple[Path, Examples]], task: Task, names: list[str], new_names: Sequence[str]
) -> tuple[str, Examples, list[_HeldOutRows]]:
    """What the labels were taken for, the rows that train, and those of each further file."""
    settled = settle_labels(given, task, names, has_places=False, new_names=new_names)
    train, *others = settled.files
    held_out = [
        _HeldOutRows(examples, hold_out(examples, task, names, path))
        for examples, (path, _) in zip(others, given[1:], strict=True)
    ]
    return settled.meaning, train, held_out


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    train: Examples,
    targets: list[Any],
    config: TrainingConfig,
    *,
    task: Task,
    checkpoints: Path,
    evaluator: EpochEvaluator | None,
    on_progress: OnProgress,
) -> Epoch | None:
    """Train the model in place; returns the best epoch, None without an evaluator."""
    encoded = tokenizer(
        train.texts, train.text_pairs, truncation=True, max_length=tokenizer.model_max_length
    )
    rows: _Rows | _Questions = _Rows(encoded, targets)
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)
    if task.is_choice:
        assert train.groups is not None and isinstance(rows, _Rows)
        rows = _Questions(rows, train.groups)
        collator = DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=PAD_MULTIPLE)
    with fastest_attention(model, sum(map(len, encoded["input_ids"])) / len(train)):
        return train_model(
            model,
            rows,
            collator,
            checkpoints=checkpoints,
            config=config,
            what="fine-tune",
            on_progress=on_progress,
            evaluator=evaluator,
        )


def _judge(
    result: Finetuned, output: Path, rows: _HeldOutRows, on_progress: OnProgress
) -> Finetuned:
    """Measure the teacher on the evaluation rows, unless it was, and write that beside it."""
    kept = read_json(output / TEACHER_FILE)
    if kept.get("evaluated") != rows.examples.digest:
        tokens = rows.tokenize(open_tokenizer(output, may_convert=True))
        outputs_NC = predict_logits(load_model(output), tokens, on_progress)
        values_R = resample_metric(rows.held_out, outputs_NC, outputs_NC)
        kept |= {
            "evaluated": rows.examples.digest,
            "evaluated_rows": rows.held_out.num_judged,
            "quality": rows.held_out.measure(outputs_NC, outputs_NC),
            "interval": interval_of(values_R),
        }
        with whole_file(output / TEACHER_FILE) as unfinished:
            unfinished.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    low, high = kept["interval"]
    return replace(result, quality=kept["quality"], interval=(low, high))


def _find_finished(output: Path, model_path: Path, key: str) -> Finetuned | None:
    """What the same training left in its output; None if it has to be done.

    Raises:
        InputError: The output is the encoder itself, or holds what no fine-tuning made.
    """
    check_teacher_output(output, model_path)
    made = read_json(output / TEACHER_FILE)
    if not made or made["key"] != key:
        return None
    return Finetuned(labels=made["labels"], best=made["best"] and Epoch(**made["best"]))


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    fields: dict[str, Any],
    output: Path,
    work: Path,
) -> None:
    """Put the teacher in the place of an earlier one, whole, and remove what was for resuming."""
    made, old = work / "teacher", work / "old"
    for directory in (made, old):
        shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
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


def _new_model(
    path: Path, num_layers: int | None, task: Task, names: Sequence[str]
) -> PreTrainedModel:
    """The encoder, or its first layers, with a new head for these classes."""
    config = load_config(path)
    changes: dict[str, Any] = without_attention_dropout(config)
    if num_layers is not None:
        changes["num_hidden_layers"] = num_layers
        for name in ("pruned_layers", *architecture_of(config).layer_settings):
            if (settings := getattr(config, name, None)) is not None:
                changes[name] = settings[:num_layers]
    with naming_file(path):
        model = new_classifier(path, task, names or ["score"], **changes)
    check_supported(model, str(path))
    return model


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
        example: dict[str, Any] = {name: [c[name] for c in choices] for name in choices[0]}
        return {**example, "labels": example["labels"].index(1)}
