"""Distill: train a small student to give its teacher's outputs.

    teacher -> student, teacher_outputs -> [distill] -> prune -> export

Task-specific distillation (Hinton et al. 2015, arXiv:1503.02531) with the layer losses of TinyBERT
(Jiao et al. 2020, arXiv:1909.10351), as FastFormers uses them (arXiv:2010.13382, section 3.1). The
student may be any model with the teacher's vocabulary: cut from it, pruned, or a checkpoint of its
own. Nothing is generated or augmented: rows are used as they are, with labels or without. This
module knows nothing of recipes, files of examples or graphs.

Shape suffixes: N rows, C classes, B rows of a batch, T padded tokens, K matched layers, D hidden
width of the teacher, S of the student.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from fastformers.compression.recipe_config import DistillConfig
from fastformers.errors import InputError, StageError
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.architectures import architecture_of
from fastformers.models.forward import OnProgress, takes_token_types
from fastformers.models.loading import max_positions, task_of
from fastformers.models.losses import hard_loss, soft_loss
from fastformers.models.teacher_outputs import (
    LayerOutputs,
    TeacherOutputs,
    compute_teacher_outputs,
)
from fastformers.models.trainer import PAD_MULTIPLE, fastest_attention, train_model


def distill(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    rows: TokenizedRows,
    targets_N: NDArray[np.generic] | None,
    *,
    config: DistillConfig,
    outputs: Path,
    checkpoints: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> PreTrainedModel:
    """Train a copy of the student on the teacher's outputs.

    The same call after an interruption resumes from what the two directories hold.

    Args:
        student: Model to start from; it is not changed.
        teacher: Model in eval mode, with the student's vocabulary and outputs.
        rows: Training rows.
        targets_N: Targets of the first N of them (`targets.encode_targets`); for the other rows,
            or for all if None, the teacher's outputs alone count.
        config: Weights of the losses, and the training.
        outputs: Directory for this teacher's outputs on these rows; other students may share it.
        checkpoints: Directory for the checkpoints of this training alone.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Returns:
        The trained student, in eval mode.

    Raises:
        InputError: Student and teacher have different vocabularies or labels, or the disk has no
            room for the teacher's outputs.
        StageError: The training diverged.
    """
    _check_alike(student, teacher)
    num_layers = student.config.num_hidden_layers
    # Vectors that know nothing of the tokens beside them cannot learn states that do.
    pairs = match_layers(num_layers, teacher.config.num_hidden_layers) if num_layers else []
    hidden = [at for _, at in pairs] if config.hidden_weight else []
    # The first match is that of the embeddings, which have no attention.
    attention = [at - 1 for _, at in pairs[1:]] if config.attention_weight else []
    teacher_outputs = compute_teacher_outputs(
        teacher,
        rows,
        outputs,
        hidden_layers=hidden,
        attention_layers=attention,
        on_progress=on_progress,
    )
    student = copy.deepcopy(student)
    mean_length = float(rows.lengths_N.mean())
    with fastest_attention(student, mean_length, with_maps=config.attention_weight > 0):
        train_model(
            _DistillationModel(
                student,
                teacher.config.hidden_size,
                temperature=config.temperature,
                hard_weight=config.hard_weight,
                hidden_weight=config.hidden_weight if hidden else 0.0,
                attention_weight=config.attention_weight if attention else 0.0,
            ),
            _Rows(rows),
            _Collator(
                rows=rows,
                targets_N=np.zeros(0, np.int64) if targets_N is None else targets_N,
                outputs=teacher_outputs,
                pad_id=student.config.pad_token_id or 0,
                max_length=max_positions(student.config),
                token_types=takes_token_types(student),
            ),
            checkpoints=checkpoints,
            config=config.training,
            what="distill",
            on_progress=on_progress,
        )
    if not all(bool(parameter.isfinite().all()) for parameter in student.parameters()):
        raise StageError("distillation diverged; lower --learning-rate")
    return student.eval()


def match_layers(num_student: int, num_teacher: int) -> list[tuple[int, int]]:
    """Match each hidden state of the student with one of the teacher's.

    The matches are spread evenly, as in TinyBERT: 0 is the embeddings, the last is the last layer.

    Returns:
        Pairs (student, teacher), num_student + 1 of them.
    """
    return [(at, round(at * num_teacher / num_student)) for at in range(num_student + 1)]


def replace_gelu(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model with ReLU where it had GELU in its feed-forward layers.

    ReLU takes a fifth of GELU's time, and a student that is trained with it loses nothing
    (arXiv:2010.13382, section 3.1); one that is not trained afterwards does.
    """
    model = copy.deepcopy(model)
    architecture = architecture_of(model.config)
    setting = architecture.activation_setting
    if str(getattr(model.config, setting)).startswith("gelu"):
        setattr(model.config, setting, "relu")
        for layer in architecture.layers(model.base_model):
            parts = architecture.parts(layer)
            setattr(parts.activated, parts.activation_name, nn.ReLU())
    return model


def _check_alike(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    for name, what in (("vocab_size", "vocabulary tokens"), ("num_labels", "labels")):
        ours, theirs = (getattr(model.config, name) for model in (student, teacher))
        if ours != theirs:
            raise InputError(
                f"the student has {ours:,} {what}, its teacher {theirs:,}; distillation needs one "
                "vocabulary and one set of labels for both: choose a student of the same family"
            )


class _DistillationModel(nn.Module):
    """The student with the losses it learns from, as one model for the Trainer."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher_width: int,
        *,
        temperature: float,
        hard_weight: float,
        hidden_weight: float,
        attention_weight: float,
    ) -> None:
        super().__init__()
        self.student = student
        self.task = task_of(student)
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.hidden_weight = hidden_weight
        self.attention_weight = attention_weight
        width = student.config.hidden_size
        num_matches = student.config.num_hidden_layers + 1
        # Where widths differ, learned projections map the student's states to the teacher's width.
        self.projections = nn.ModuleList(
            nn.Linear(width, teacher_width)
            for _ in range(num_matches if hidden_weight and width != teacher_width else 0)
        )

    def forward(
        self,
        targets: torch.Tensor,
        has_target: torch.Tensor,
        teacher_logits: torch.Tensor,
        teacher_hidden: torch.Tensor | None = None,
        teacher_attention: torch.Tensor | None = None,
        **inputs: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        out = self.student(
            **inputs,
            output_hidden_states=teacher_hidden is not None,
            output_attentions=teacher_attention is not None,
        )
        soft_B = soft_loss(out.logits, teacher_logits, self.task, temperature=self.temperature)
        loss = (1 - self.hard_weight) * soft_B.mean()
        if self.hard_weight and bool(has_target.any()):
            hard_B = hard_loss(out.logits[has_target], targets[has_target], self.task)
            loss = loss + self.hard_weight * hard_B.mean()
        mask_BT = inputs["attention_mask"].to(out.logits.dtype)
        if teacher_hidden is not None:
            states = self._project(out.hidden_states)
            error = _masked_error(states, teacher_hidden, mask_BT)
            loss = loss + self.hidden_weight * error / teacher_hidden.shape[-1]
        if teacher_attention is not None:
            maps = [attention.mean(dim=1) for attention in out.attentions]
            error = _masked_error(maps, teacher_attention, mask_BT)
            loss = loss + self.attention_weight * error
        return {"loss": loss}

    def _project(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not self.projections:
            return list(states)
        return [
            projection(state) for projection, state in zip(self.projections, states, strict=True)
        ]


def _masked_error(
    values: Sequence[torch.Tensor], teacher_BKTX: torch.Tensor, mask_BT: torch.Tensor
) -> torch.Tensor:
    """Squared error of a token, mean over real tokens and K layers; X is D, or T again."""
    error = mask_BT.new_zeros(())
    for at, value_BTX in enumerate(values):
        squares_BT = (value_BTX - teacher_BKTX[:, at].to(value_BTX.dtype)).square().sum(dim=-1)
        error = error + (squares_BT * mask_BT).sum() / mask_BT.sum()
    return error / len(values)


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Row numbers, and token ids, by whose count the Trainer groups rows."""

    def __init__(self, rows: TokenizedRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        start, stop = self._rows.offsets[row], self._rows.offsets[row + 1]
        return {"row": row, "input_ids": self._rows.ids[start:stop]}


@dataclass(frozen=True, kw_only=True)
class _Collator:
    """Turn rows into padded tensors, together with the teacher's outputs on them."""

    rows: TokenizedRows
    targets_N: NDArray[np.generic]
    outputs: TeacherOutputs
    pad_id: int
    max_length: int
    token_types: bool

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows_B = np.array([item["row"] for item in items])
        lengths_B = self.rows.lengths_N[rows_B]
        longest = -(-int(lengths_B.max()) // PAD_MULTIPLE) * PAD_MULTIPLE
        longest = min(longest, self.max_length)
        positions = np.arange(longest)
        mask_BT = positions < lengths_B[:, None]
        ids_BT = np.full(mask_BT.shape, self.pad_id, np.int64)
        ids_BT[mask_BT] = np.concatenate([item["input_ids"] for item in items])
        seconds_B = self.rows.second_lengths_N[rows_B].astype(np.int64)
        types_BT = mask_BT & (positions >= (lengths_B - seconds_B)[:, None])
        has_target_B = rows_B < len(self.targets_N)
        targets_B = np.zeros((len(rows_B), *self.targets_N.shape[1:]), self.targets_N.dtype)
        targets_B[has_target_B] = self.targets_N[rows_B[has_target_B]]
        batch = {
            "input_ids": ids_BT,
            "attention_mask": mask_BT.astype(np.int64),
            "targets": targets_B,
            "has_target": has_target_B,
            "teacher_logits": self.outputs.logits_NC[rows_B],
        }
        if self.token_types:
            batch["token_type_ids"] = types_BT.astype(np.int64)
        if self.outputs.hidden:
            batch["teacher_hidden"] = self._padded(self.outputs.hidden, rows_B, longest, None)
        if self.outputs.attention:
            batch["teacher_attention"] = self._padded(
                self.outputs.attention, rows_B, longest, longest
            )
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _padded(
        self,
        layers: Sequence[LayerOutputs],
        rows_B: NDArray[np.intp],
        longest: int,
        width: int | None,
    ) -> NDArray[np.float16]:
        """Values (B, K, T, width) of K layers, zero where a row has no token."""
        lengths = self.rows.lengths_N
        width = width or len(layers[0].row(int(rows_B[0]))) // int(lengths[rows_B[0]])
        padded = np.zeros((len(rows_B), len(layers), longest, width), np.float16)
        for at, row in enumerate(rows_B.tolist()):
            length = int(lengths[row])
            for layer, outputs in enumerate(layers):
                values = outputs.row(row).reshape(length, -1)
                padded[at, layer, :length, : values.shape[1]] = values
        return padded
