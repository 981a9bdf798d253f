"""Distill: train a small student to give its teacher's outputs.

    teacher -> student, teacher_outputs -> [distill] -> prune -> export

Task-specific distillation (Hinton et al. 2015, arXiv:1503.02531) with the layer losses of TinyBERT
(Jiao et al. 2020, arXiv:1909.10351), as FastFormers uses them (arXiv:2010.13382, section 3.1). The
student may be any model with the teacher's vocabulary: cut from it, pruned, or a checkpoint of its
own. One that drops or pools tokens learns the hidden states of those that it has left, and may drop
them softly at first. Nothing is generated or augmented: rows are used as they are, with labels or
without. This module knows nothing of recipes, files of examples or graphs.

Shape suffixes: N rows, C classes, B rows of a batch, T padded tokens, K matched layers, D hidden
width of the teacher, S of the student.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from fastformers.compression.recipe_config import DistillConfig
from fastformers.errors import InputError
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
from fastformers.models.trainer import (
    PAD_MULTIPLE,
    fastest_attention,
    seeded,
    train_model,
)
from fastformers.models.variants.reduced_layers import reduced_layers, run_with_states
from fastformers.models.variants.token_reduction import TokenPool, reduction_of
from fastformers.models.variants.token_states import TokenStates, match_states


def distill(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    rows: TokenizedRows,
    targets_N: NDArray[np.generic] | None,
    *,
    config: DistillConfig,
    outputs: Path,
    checkpoints: Path,
    soft_share: float = 0.0,
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
        soft_share: Share (0-1) of the steps in which tokens that the student is to drop stay, with
            less and less weight.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Returns:
        The trained student, in eval mode.

    Raises:
        InputError: Student and teacher have different vocabularies or labels, or the disk has no
            room for the teacher's outputs.
        StageError: The training diverged.
    """
    _check_alike(student, teacher)
    hidden, attention = _taught_layers(student, teacher, config)
    teacher_outputs = compute_teacher_outputs(
        teacher,
        rows,
        outputs,
        hidden_layers=hidden,
        attention_layers=attention,
        on_progress=on_progress,
    )
    student = copy.deepcopy(student)
    layers = reduced_layers(student)

    def soften(done: int, total: int) -> None:
        if layers is not None:
            layers.dropped_weight = weight_of_dropped(done, soft_share * total)

    with seeded(config.training.seed):  # new weights: projections, where widths differ
        in_training = _with_losses(student, teacher, config, hidden, attention)
    mean_length = float(rows.lengths_N.mean())
    with fastest_attention(student, mean_length, with_maps=config.attention_weight > 0):
        train_model(
            in_training,
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
            before_step=soften,
        )
    if layers is not None:
        layers.dropped_weight = 0.0
    return student.eval()


def _taught_layers(
    student: PreTrainedModel, teacher: PreTrainedModel, config: DistillConfig
) -> tuple[list[int], list[int]]:
    """Numbers of the teacher's hidden states and attention maps that the student learns."""
    num_layers = student.config.num_hidden_layers
    # Vectors that know nothing of the tokens beside them cannot learn states that do.
    pairs = match_layers(num_layers, teacher.config.num_hidden_layers) if num_layers else []
    hidden = [at for _, at in pairs] if config.hidden_weight else []
    # The first match is that of the embeddings, which have no attention.
    attention = [at - 1 for _, at in pairs[1:]] if config.attention_weight else []
    return hidden, attention


def match_layers(num_student: int, num_teacher: int) -> list[tuple[int, int]]:
    """Match each hidden state of the student with one of the teacher's.

    The matches are spread evenly, as in TinyBERT: 0 is the embeddings, the last is the last layer.

    Returns:
        Pairs (student, teacher), num_student + 1 of them.
    """
    return [(at, round(at * num_teacher / num_student)) for at in range(num_student + 1)]


def weight_of_dropped(done: int, soft_steps: float) -> float:
    """Weight (0-1) of tokens that are to be dropped: 1 before the first step, then falling to 0."""
    return max(0.0, 1 - done / soft_steps) if soft_steps else 0.0


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
        for parts in architecture.parts_of(architecture.layers(model.base_model)):
            setattr(parts.activated, parts.activation_name, nn.ReLU())
    return model


def _check_alike(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    alike = {"vocab_size": "vocabulary tokens", "num_labels": "labels"}
    if not task_of(teacher).has_labels:  # what the configuration of an encoder says of labels
        del alike["num_labels"]
    for name, what in alike.items():
        ours, theirs = (getattr(model.config, name) for model in (student, teacher))
        if ours != theirs:
            raise InputError(
                f"the student has {ours:,} {what}, its teacher {theirs:,}; distillation needs one "
                "vocabulary and one set of labels for both: choose a student of the same family"
            )
    ours_pool, theirs_pool = (reduction_of(model.config).pool for model in (student, teacher))
    if (
        ours_pool
        and theirs_pool
        and replace(ours_pool, before_layer=theirs_pool.before_layer) != (theirs_pool)
    ):
        raise InputError(
            f"the student pools {ours_pool.every} tokens ({ours_pool.how}), its teacher "
            f"{theirs_pool.every} ({theirs_pool.how}); leave --pool-tokens out"
        )


def _with_losses(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    config: DistillConfig,
    hidden: Sequence[int],
    attention: Sequence[int],
) -> "_DistillationModel":
    """The student with the losses of these hidden states and attention maps of the teacher."""
    return _DistillationModel(
        student,
        teacher.config.hidden_size,
        [reduction_of(teacher.config).pool_of_state(at) for at in hidden],
        temperature=config.temperature,
        hard_weight=config.hard_weight,
        hidden_weight=config.hidden_weight if hidden else 0.0,
        attention_weight=config.attention_weight if attention else 0.0,
    )


class _DistillationModel(nn.Module):
    """The student with the losses it learns from, as one model for the Trainer."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher_width: int,
        teacher_pools: Sequence[TokenPool | None],
        *,
        temperature: float,
        hard_weight: float,
        hidden_weight: float,
        attention_weight: float,
    ) -> None:
        super().__init__()
        self.student = student
        self.task = task_of(student)
        self.teacher_pools = teacher_pools
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
        maps = {"output_attentions": teacher_attention is not None}
        if teacher_hidden is None:  # static vectors have no states to record
            out = self.student(**inputs, **maps)
        else:
            out, states = run_with_states(self.student, **inputs, **maps)
        soft_B = soft_loss(out.logits, teacher_logits, self.task, temperature=self.temperature)
        loss = (1 - self.hard_weight) * soft_B.mean()
        if self.hard_weight and bool(has_target.any()):
            hard_B = hard_loss(out.logits[has_target], targets[has_target], self.task)
            loss = loss + self.hard_weight * hard_B.mean()
        mask_BT = inputs["attention_mask"].to(out.logits.dtype)
        if teacher_hidden is not None:
            error = self._hidden_error(states, teacher_hidden, mask_BT)
            loss = loss + self.hidden_weight * error / teacher_hidden.shape[-1]
        if teacher_attention is not None:
            errors = [
                _masked_error(attention.mean(dim=1), teacher_attention[:, at], mask_BT)
                for at, attention in enumerate(out.attentions)
            ]
            loss = loss + self.attention_weight * sum(errors) / len(errors)
        return {"loss": loss}

    def _hidden_error(
        self, states: Sequence[TokenStates], teacher_BKTD: torch.Tensor, mask_BT: torch.Tensor
    ) -> torch.Tensor:
        """Squared error of a token that the student has left, mean over tokens and K layers."""
        error = mask_BT.new_zeros(())
        for at, (state, pool) in enumerate(zip(states, self.teacher_pools, strict=True)):
            if self.projections:
                state = replace(state, values_BKD=self.projections[at](state.values_BKD))
            teacher = TokenStates(
                values_BKD=teacher_BKTD[:, at].to(state.values_BKD.dtype),
                weights_BK=mask_BT,
                pool=pool,
            )
            error = error + _masked_error(*match_states(state, teacher))
        return error / len(states)


def _masked_error(
    value_BTX: torch.Tensor, teacher_BTX: torch.Tensor, weights_BT: torch.Tensor
) -> torch.Tensor:
    """Squared error of a token, weighted mean over tokens; X is D, or T again."""
    squares_BT = (value_BTX - teacher_BTX.to(value_BTX.dtype)).square().sum(dim=-1)
    return (squares_BT * weights_BT).sum() / weights_BT.sum()


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
            batch["teacher_hidden"] = _padded(self.outputs.hidden, rows_B, longest)
        if self.outputs.attention:
            batch["teacher_attention"] = _padded(self.outputs.attention, rows_B, longest)
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def _padded(
    layers: Sequence[LayerOutputs], rows_B: NDArray[np.intp], longest: int
) -> NDArray[np.float16]:
    """Values (B, K, T, X) of K layers, zero where a row has no token."""
    width = layers[0].width or longest
    padded = np.zeros((len(rows_B), len(layers), longest, width), np.float16)
    for at, row in enumerate(rows_B.tolist()):
        for layer, outputs in enumerate(layers):
            values_TX = outputs.row(row)
            padded[at, layer, : len(values_TX), : values_TX.shape[1]] = values_TX
    return padded
