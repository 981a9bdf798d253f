"""The quality gate: how good a model is, and how often it still agrees with its teacher.

any stage -> [evaluate] -> accuracy and agreement -> bundle
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.batching import plan_batches
from fastformers.tokenizer import TokenizedRows
from fastformers.training import OnProgress, on_fastest_device

_TEACHER_BATCH_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Accuracy against the labels and agreement with the teacher, each 0-1."""

    accuracy: float
    agreement: float


def measure_quality(
    logits_NC: NDArray[np.float32],
    *,
    teacher_logits_NC: NDArray[np.float32],
    labels_N: NDArray[np.int64],
) -> Quality:
    """Compare a model's logits with the labels and with its teacher's logits."""
    classes_N = logits_NC.argmax(axis=1)
    return Quality(
        accuracy=float((classes_N == labels_N).mean()),
        agreement=float((classes_N == teacher_logits_NC.argmax(axis=1)).mean()),
    )


def accuracy_drop(accuracy: float, *, teacher_accuracy: float) -> float:
    """Points (0-100) by which an accuracy (0-1) is below the teacher's."""
    return round(100 * (teacher_accuracy - accuracy), 9)


def model_inputs(
    model: PreTrainedModel, rows: TokenizedRows, rows_B: NDArray[np.intp]
) -> dict[str, torch.Tensor]:
    """What a PyTorch model takes for rows of one length, on its device."""
    inputs = {"input_ids": torch.from_numpy(rows.batch_ids(rows_B)).to(model.device)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        types_BT = torch.from_numpy(rows.batch_types(rows_B))
        inputs["token_type_ids"] = types_BT.to(model.device)
    return inputs


def teacher_logits(
    model: PreTrainedModel,
    rows: TokenizedRows,
    on_progress: OnProgress = lambda what, done, total: None,
) -> NDArray[np.float32]:
    """Logits (N, C) of a PyTorch classifier, in unpadded batches of one length."""
    logits_NC = np.empty((len(rows), model.config.num_labels), np.float32)
    num_done = 0
    with torch.inference_mode(), on_fastest_device(model):
        for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=_TEACHER_BATCH_TOKENS):
            logits = model(**model_inputs(model, rows, rows_B)).logits
            logits_NC[rows_B] = logits.float().cpu().numpy()
            num_done += len(rows_B)
            on_progress("evaluate", num_done, len(rows))
    return logits_NC
