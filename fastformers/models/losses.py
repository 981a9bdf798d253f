"""What a wrong answer costs a model in training, by task.

    outputs + targets, or the teacher's outputs -> [losses] -> distill, prune

Shape suffixes: B rows of a batch, C classes (or other outputs).
"""

import torch
from torch.nn import functional

from fastformers.inference.tasks import TaskName

# A row of multiple choice is right or wrong only beside the other choices of its question.
DISTILLABLE_TASKS: tuple[TaskName, ...] = (
    "text-classification",
    "multi-label-classification",
    "regression",
    "embedding",
)


def hard_loss(outputs_BC: torch.Tensor, targets_B: torch.Tensor, task: TaskName) -> torch.Tensor:
    """How far each row's answer is from its target, (B,).

    Cross entropy of the classes, or of all labels by themselves where several may hold (their sum);
    squared error of a regression.

    Args:
        outputs_BC: Of the model.
        targets_B: As `targets.encode_targets` makes them; (B, C) where several labels may hold.
        task: One that has targets.
    """
    if task == "regression":
        return (outputs_BC[:, 0] - targets_B).square()
    if task == "multi-label-classification":
        return functional.binary_cross_entropy_with_logits(
            outputs_BC, targets_B, reduction="none"
        ).sum(dim=1)
    return functional.cross_entropy(outputs_BC, targets_B, reduction="none")


def soft_loss(
    outputs_BC: torch.Tensor, teacher_BC: torch.Tensor, task: TaskName, *, temperature: float
) -> torch.Tensor:
    """How far the student's answers are from the teacher's, (B,).

    Kullback-Leibler divergence of the softened classes, times the squared temperature so that
    gradients keep their size, or of each label by itself where several may hold (up to a constant;
    their sum); squared error of a regression; cosine distance of embeddings.
    """
    if task == "regression":
        return (outputs_BC - teacher_BC).square()[:, 0]
    if task == "embedding":
        return 1 - functional.cosine_similarity(outputs_BC.float(), teacher_BC, dim=-1)
    soft_BC, teacher_BC = outputs_BC / temperature, teacher_BC / temperature
    if task == "multi-label-classification":
        soft_BC = functional.binary_cross_entropy_with_logits(
            soft_BC, torch.sigmoid(teacher_BC), reduction="none"
        )
    else:
        soft_BC = functional.kl_div(
            functional.log_softmax(soft_BC, dim=-1),
            functional.log_softmax(teacher_BC, dim=-1),
            reduction="none",
            log_target=True,
        )
    return soft_BC.sum(dim=-1) * temperature**2


def confidence(outputs_BC: torch.Tensor, task: TaskName) -> torch.Tensor:
    """How much each row's answer says, (B,): half its squared norm, without any target.

    Of classes less their mean, which changes no probability.

    Source:
        Aljundi et al. 2018, arXiv:1711.09601.
    """
    if task == "text-classification":
        outputs_BC = outputs_BC - outputs_BC.mean(dim=1, keepdim=True)
    return 0.5 * outputs_BC.square().sum(dim=1)
