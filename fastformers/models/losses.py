"""Losses of distillation and pruning, by task.

    outputs + targets, or the teacher's outputs -> [losses] -> distill, prune

The table at the end is the only place that tells tasks apart: a task that is not there cannot be
distilled or pruned. A row of multiple choice is right or wrong only beside the other choices of its
question, so that task is not there. This module knows nothing of models.

Shape suffixes: B rows of a batch, C classes (or other outputs).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    REGRESSION,
    TEXT_CLASSIFICATION,
    Task,
)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TaskLosses:
    """The losses of one task; each takes two tensors of B rows and gives a number for each row.

    Attributes:
        hard: Distance of the outputs (B, C) from their targets; None where there are no targets.
        soft: Distance of the outputs (B, C) from the teacher's.
        has_temperature: Whether both are divided by a temperature before they are compared.
        is_relative: Whether a number added to all outputs of a row changes no answer.
    """

    hard: Loss | None
    soft: Loss
    has_temperature: bool = False
    is_relative: bool = False


def hard_loss(outputs_BC: torch.Tensor, targets_B: torch.Tensor, task: Task) -> torch.Tensor:
    """Loss of each row's outputs against its target, (B,).

    Cross entropy of the classes, or of all labels by themselves where several may hold (their sum);
    squared error of a regression.

    Args:
        outputs_BC: Outputs of the model.
        targets_B: Targets as `encode_targets` makes them; (B, C) where several labels may hold.
        task: Task that has targets.
    """
    loss = _LOSSES[task].hard
    assert loss is not None
    return loss(outputs_BC, targets_B)


def soft_loss(
    outputs_BC: torch.Tensor, teacher_BC: torch.Tensor, task: Task, *, temperature: float
) -> torch.Tensor:
    """Loss of each row's outputs against the teacher's, (B,).

    Kullback-Leibler divergence of the softened classes, times the squared temperature so that
    gradients keep their size, or of each label by itself where several may hold (up to a constant;
    their sum); squared error of a regression; cosine distance of embeddings.
    """
    losses = _LOSSES[task]
    if not losses.has_temperature:
        return losses.soft(outputs_BC, teacher_BC)
    return losses.soft(outputs_BC / temperature, teacher_BC / temperature) * temperature**2


def confidence(outputs_BC: torch.Tensor, task: Task) -> torch.Tensor:
    """Half the squared norm of each row's outputs, (B,), for pruning without targets.

    The mean of the classes is subtracted first, because it changes no probability.

    Source:
        Aljundi et al. 2018, arXiv:1711.09601.
    """
    if _LOSSES[task].is_relative:
        outputs_BC = outputs_BC - outputs_BC.mean(dim=1, keepdim=True)
    return 0.5 * outputs_BC.square().sum(dim=1)


def _class_entropy(outputs_BC: torch.Tensor, targets_B: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs_BC, targets_B, reduction="none")


def _class_divergence(outputs_BC: torch.Tensor, teacher_BC: torch.Tensor) -> torch.Tensor:
    return functional.kl_div(
        functional.log_softmax(outputs_BC, dim=-1),
        functional.log_softmax(teacher_BC, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)


def _label_entropy(outputs_BC: torch.Tensor, targets_BC: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(
        outputs_BC, targets_BC, reduction="none"
    ).sum(dim=-1)


def _label_divergence(outputs_BC: torch.Tensor, teacher_BC: torch.Tensor) -> torch.Tensor:
    return _label_entropy(outputs_BC, torch.sigmoid(teacher_BC))


def _squared_error(outputs_BC: torch.Tensor, targets_B: torch.Tensor) -> torch.Tensor:
    return (outputs_BC[:, 0] - targets_B).square()


def _squared_difference(outputs_BC: torch.Tensor, teacher_BC: torch.Tensor) -> torch.Tensor:
    return (outputs_BC - teacher_BC).square()[:, 0]


def _cosine_distance(outputs_BC: torch.Tensor, teacher_BC: torch.Tensor) -> torch.Tensor:
    return 1 - functional.cosine_similarity(outputs_BC.float(), teacher_BC, dim=-1)


_LOSSES: dict[Task, TaskLosses] = {
    TEXT_CLASSIFICATION: TaskLosses(
        hard=_class_entropy, soft=_class_divergence, has_temperature=True, is_relative=True
    ),
    MULTI_LABEL_CLASSIFICATION: TaskLosses(
        hard=_label_entropy, soft=_label_divergence, has_temperature=True
    ),
    REGRESSION: TaskLosses(hard=_squared_error, soft=_squared_difference),
    EMBEDDING: TaskLosses(hard=None, soft=_cosine_distance),
}
DISTILLABLE_TASKS = tuple(_LOSSES)
