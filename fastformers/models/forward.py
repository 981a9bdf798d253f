"""Run a PyTorch model on tokenized rows, on the fastest device of this machine.

    model + rows -> [forward] -> logits

Rows of one length share a batch, so nothing is padded. This module knows nothing of labels,
training or bundles.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from fastformers.errors import InputError
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.architectures import architecture_of
from fastformers.models.loading import task_of

# Called with the name of the work, how much of it is done, and how much there is. It may raise
# `StoppedError`.
OnProgress = Callable[[str, int, int], None]

_TEACHER_BATCH_TOKENS = 4096


class StoppedError(Exception):
    """Whoever is told of the progress wants no more of it; a training keeps a checkpoint first."""


def takes_token_types(model: PreTrainedModel) -> bool:
    """Whether a model tells the two texts of a pair apart by a type of each token."""
    architecture = architecture_of(model.config)
    types = architecture.embeddings(model.base_model).token_types
    has_types = types is not None and types.num_embeddings > 1
    return has_types or architecture.pooling(model.config) == "texts"


def count_embeddings(model: PreTrainedModel) -> int:
    """Number of tokens that a model has embeddings for."""
    tokens = architecture_of(model.config).embeddings(model.base_model).tokens
    return int(tokens.num_embeddings)


def model_inputs(
    model: PreTrainedModel, rows: TokenizedRows, rows_B: NDArray[np.intp]
) -> dict[str, torch.Tensor]:
    """Inputs of a PyTorch model for rows of one length, on its device.

    Raises:
        InputError: A row has a token that the model has no embedding for.
    """
    ids_BT = rows.batch_ids(rows_B)
    largest, num_embeddings = int(ids_BT.max()), count_embeddings(model)
    if largest >= num_embeddings:
        raise InputError(
            f"a text has the token id {largest:,}, and the model has embeddings for "
            f"{num_embeddings:,} tokens: tokenizer.json is of another model"
        )
    inputs = {"input_ids": torch.from_numpy(ids_BT).to(model.device)}
    if takes_token_types(model):
        types_BT = torch.from_numpy(rows.batch_types(rows_B))
        inputs["token_type_ids"] = types_BT.to(model.device)
    if task_of(model).is_choice:  # (B, choices, T): each row is a question of one choice
        return {name: values[:, None] for name, values in inputs.items()}
    return inputs


def predict_logits(
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


@contextmanager
def on_fastest_device(model: nn.Module) -> Iterator[None]:
    """Move a model to the GPU while the block runs, if there is one and it is not there already."""
    if not torch.cuda.is_available() or next(model.parameters()).is_cuda:
        yield
        return
    model.to("cuda")
    try:
        yield
    finally:
        model.to("cpu")


def mixed_precision() -> torch.autocast:
    """Compute matrix products in bf16 where that is faster, as training does."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=has_fast_bf16())


def has_fast_bf16() -> bool:
    """Whether bf16 is faster than fp32 here: emulated on a CPU without it, it is 3x slower."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
