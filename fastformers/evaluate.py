"""The quality gate: how good a model is, and how far it still agrees with its teacher.

any stage -> [evaluate] -> quality and agreement -> bundle
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.batching import in_row_order, plan_batches
from fastformers.export import task_of
from fastformers.tasks import (
    TaskName,
    measure_agreement,
    measure_metric,
    measure_other_metrics,
)
from fastformers.tokenizer import TokenizedRows
from fastformers.training import OnProgress, on_fastest_device

_TEACHER_BATCH_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good a model is.

    Attributes:
        quality: Value of the task's metric (`tasks.metric_name`), at most 1.
        agreement: With the teacher (`tasks.measure_agreement`), at most 1.
        other_metrics: What is shown beside the metric, by name.
    """

    quality: float
    agreement: float
    other_metrics: dict[str, float] = field(default_factory=dict)


def measure_quality(
    logits_NC: NDArray[np.float32],
    *,
    teacher_logits_NC: NDArray[np.float32],
    labels_N: NDArray[np.generic],
    task: TaskName = "text-classification",
    groups_N: NDArray[np.int64] | None = None,
) -> Quality:
    """Compare a model's outputs with the targets and with its teacher's outputs.

    Args:
        logits_NC: Outputs of the model.
        teacher_logits_NC: Outputs of the teacher.
        labels_N: Targets, as `targets.encode_targets` makes them.
        task: What the outputs mean.
        groups_N: Question of each row, where several belong to one.
    """
    return Quality(
        quality=measure_metric(
            task, logits_NC, labels_N, teacher_outputs_NC=teacher_logits_NC, groups_N=groups_N
        ),
        agreement=measure_agreement(task, logits_NC, teacher_logits_NC, groups_N=groups_N),
        other_metrics=measure_other_metrics(task, logits_NC, labels_N, groups_N=groups_N),
    )


def quality_drop(quality: float, *, teacher_quality: float) -> float:
    """Points of 100 x the metric by which a quality (at most 1) is below the teacher's."""
    return round(100 * (teacher_quality - quality), 9)


def model_inputs(
    model: PreTrainedModel, rows: TokenizedRows, rows_B: NDArray[np.intp]
) -> dict[str, torch.Tensor]:
    """What a PyTorch model takes for rows of one length, on its device."""
    inputs = {"input_ids": torch.from_numpy(rows.batch_ids(rows_B)).to(model.device)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        types_BT = torch.from_numpy(rows.batch_types(rows_B))
        inputs["token_type_ids"] = types_BT.to(model.device)
    if task_of(model) == "multiple-choice":  # (B, choices, T): each row is asked by itself
        return {name: values[:, None] for name, values in inputs.items()}
    return inputs


def teacher_logits(
    model: PreTrainedModel,
    rows: TokenizedRows,
    on_progress: OnProgress = lambda what, done, total: None,
) -> NDArray[np.float32]:
    """Outputs (N, C) of a PyTorch model, in unpadded batches of one length."""
    batches = plan_batches(rows.lengths_N, max_batch_tokens=_TEACHER_BATCH_TOKENS)
    outputs: list[NDArray[np.float32]] = []
    num_done = 0
    with torch.inference_mode(), on_fastest_device(model):
        for rows_B in batches:
            logits = model(**model_inputs(model, rows, rows_B)).logits
            outputs.append(logits.float().cpu().numpy())
            num_done += len(rows_B)
            on_progress("evaluate", num_done, len(rows))
    return in_row_order(outputs, batches)
