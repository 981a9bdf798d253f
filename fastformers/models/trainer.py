"""Train a PyTorch model: the loop that fine-tuning and distillation share.

    finetune, distill -> [trainer] -> trained weights

The loop is Hugging Face's Trainer, which brings mixed precision, resuming and several GPUs. This
module adds batches of rows of similar length, which callers pad to `PAD_MULTIPLE`; progress that is
reported to the caller; and, where an evaluator is given, the weights of the best epoch. It knows
nothing of losses: the model's forward returns the loss.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from fastformers.atomic_file import whole_file
from fastformers.errors import StageError, StorageError
from fastformers.models.architectures import architecture_of
from fastformers.models.forward import OnProgress, StoppedError, has_fast_bf16
from fastformers.models.training_config import TrainingConfig

# Called with the steps done and their total.
BeforeStep = Callable[[int, int], None]
PAD_MULTIPLE = 16
SAVE_STEPS = 200
_LONG_ROW = 192  # tokens
_BEST = "best.pt"
# How a full disk reads where it is no OSError any more: PyTorch's zip writer and its C++ streams.
_NO_ROOM = (*map(os.strerror, (errno.ENOSPC, errno.EDQUOT)), "inline_container", "iostream error")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Result of an epoch.

    Attributes:
        number: Number of the epoch, from 1; a last epoch that is cut short counts.
        quality: Quality that the evaluator measured; higher is better.
    """

    number: int
    quality: float


@dataclass(frozen=True, kw_only=True)
class EpochEvaluator:
    """Measures the quality of a model after each epoch.

    Attributes:
        measure: Function that measures the model that is being trained, which is in eval mode
            meanwhile and in the mixed precision of training.
        on_epoch: Function that is called with each epoch after its evaluation.
    """

    measure: Callable[[], float]
    on_epoch: Callable[[Epoch], None] = lambda epoch: None


def train_model(
    model: nn.Module,
    rows: torch.utils.data.Dataset[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    *,
    checkpoints: Path,
    config: TrainingConfig,
    what: str,
    on_progress: OnProgress,
    before_step: BeforeStep = lambda done, total: None,
    evaluator: EpochEvaluator | None = None,
) -> Epoch | None:
    """Train a model in place; the same call after an interruption resumes from a checkpoint.

    Args:
        model: Model whose forward takes the result of `collate` and returns a dict or output with
            `loss`.
        rows: Training rows with `input_ids`, whose lengths group the rows into batches.
        collate: Function that makes tensors of the rows of one batch.
        checkpoints: Directory for checkpoints.
        config: Length and speed of the training.
        what: Name of the training in its progress.
        on_progress: Called after each step with the steps done and their total.
        before_step: Called before each step with the same.
        evaluator: Evaluates each epoch; the model ends with the weights of the best one. None to
            end with the weights of the last.

    Returns:
        The best epoch; None without an evaluator.

    Raises:
        StoppedError: `on_progress` raised it; a checkpoint of the step is kept.
        StageError: The training diverged.
        StorageError: A checkpoint could not be written; the one before it is kept.
    """
    set_seed(config.seed)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_rows,
        lr_scheduler_type="linear",
        warmup_steps=0.06,
        weight_decay=0.01,
        bf16=has_fast_bf16(),
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        logging_steps=50,
        save_strategy="steps",
        save_steps=SAVE_STEPS,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    report = _Report(what, on_progress, before_step)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collate,
        callbacks=[report],
    )
    trainer.remove_callback(PrinterCallback)  # stdout is for the job's own result
    best = None if evaluator is None else _BestEpoch(model, evaluator, checkpoints / _BEST, what)
    if best is not None:
        trainer.add_callback(best)
    with _full_disk_in_one_line(checkpoints):
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(checkpoints))
    if report.stopped is not None:
        raise report.stopped
    model.to("cpu")
    epoch = None if best is None else best.restore(math.ceil(config.epochs))
    _check_finite(model, what)
    return epoch


def _check_finite(model: nn.Module, what: str) -> None:
    """Refuse weights that are no numbers: they answer each row alike, and so may look as good."""
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise StageError(f"{what}: the training diverged; lower --learning-rate")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw new weights by a seed in the block, whatever was drawn before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _full_disk_in_one_line(directory: Path) -> Iterator[None]:
    """Say which directory has no room, whichever library wrote to it."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not any(text in str(error) for text in _NO_ROOM):
            raise
        raise StorageError(
            f"{directory}: no room for a checkpoint; free space and run the same command again"
        ) from error


def _last_whole_checkpoint(directory: Path) -> str | None:
    """The last checkpoint, without those that a full disk or a kill left half written.

    Trainer writes the state last, so a checkpoint that has it has everything.
    """
    found: str | None
    while (found := get_last_checkpoint(str(directory))) is not None:
        try:
            json.loads((Path(found) / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            shutil.rmtree(found)
        else:
            break
    return found


def without_attention_dropout(config: PretrainedConfig) -> dict[str, float]:
    """The setting that turns off dropout inside attention, for `from_pretrained`.

    On a CPU its random masks, and the unfused attention that they need, took a quarter of a step
    (MiniLM, 32 rows of 128 tokens: 3.1 s with them, 2.3 s without). Hidden dropout stays.

    Raises:
        InputError: The architecture is not known.
    """
    return {architecture_of(config).attention_dropout_setting: 0.0}


@contextmanager
def fastest_attention(
    model: PreTrainedModel, mean_length: float, *, with_maps: bool = False
) -> Iterator[None]:
    """Choose how attention is computed while a model is trained, by the tokens of a row.

    On a CPU PyTorch's fused attention pays only for long rows: a step of MiniLM at 16 tokens takes
    1.42 times as long with it as with plain attention (all lengths: fastformers/README.md).

    Args:
        model: Model to train; when the block ends, it computes attention as before.
        mean_length: Mean number of tokens of a row.
        with_maps: Whether its forward returns the attention maps, which the fused kernels do not.
    """
    before = model.config._attn_implementation
    if with_maps or (not torch.cuda.is_available() and mean_length < _LONG_ROW):
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class _Report(TrainerCallback):  # type: ignore[misc]
    """Reports the steps of the Trainer to the caller, who may stop it.

    Attributes:
        stopped: What the caller stopped it by; None if it was not.
    """

    def __init__(self, what: str, on_progress: OnProgress, before_step: BeforeStep) -> None:
        self._what = what
        self._on_progress = on_progress
        self.stopped: StoppedError | None = None
        self._before_step = before_step

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self._before_step(state.global_step, state.max_steps)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        try:
            self._on_progress(self._what, state.global_step, state.max_steps)
        except StoppedError as stop:
            self.stopped = stop
            control.should_save = control.should_training_stop = True


class _BestEpoch(TrainerCallback):  # type: ignore[misc]
    """Evaluates each epoch and keeps the weights of the best in a file that outlives a restart."""

    def __init__(self, model: nn.Module, evaluator: EpochEvaluator, path: Path, what: str) -> None:
        self._model = model
        self._what = what
        self._evaluator = evaluator
        self._path = path
        self._best = Epoch(**self._load()["epoch"]) if path.is_file() else None

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self._evaluate(math.ceil(state.epoch))

    def restore(self, last_epoch: int) -> Epoch:
        """Give the model the weights of its best epoch.

        If the training ended before there was an evaluator, these are the model's current weights.
        """
        best = self._best or self._evaluate(last_epoch)
        self._model.load_state_dict(self._load()["weights"])
        return best

    def _evaluate(self, number: int) -> Epoch:
        _check_finite(self._model, self._what)
        self._model.eval()
        epoch = Epoch(number=number, quality=self._evaluator.measure())
        self._model.train()
        self._evaluator.on_epoch(epoch)
        if self._best is None or epoch.quality > self._best.quality:
            with whole_file(self._path) as unfinished:
                torch.save({"epoch": vars(epoch), "weights": self._model.state_dict()}, unfinished)
            self._best = epoch
        return epoch

    def _load(self) -> dict[str, Any]:
        kept: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        return kept
