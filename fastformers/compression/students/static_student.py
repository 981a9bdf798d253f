"""Make a student without layers out of its teacher: static vectors, and a head on their mean.

    teacher + token counts -> [static_student] -> distill -> export

A token's vector begins as what the teacher gives for that token alone, between its special tokens;
the vectors are rotated to their principal components, so that a narrower student keeps what tells
tokens apart, and a token that is frequent in the training texts begins with little weight, because
it says little. This is Model2Vec's start; distillation then trains vectors and head on the task,
which Model2Vec does not. This module knows nothing of training or recipes.

Source:
    Model2Vec (Tulkens and van Dongen 2024, github.com/MinishLab/model2vec); the weights are those
    of smooth inverse frequency (Arora, Liang and Ma 2017, openreview.net/forum?id=SyK00v5xx).

Shape suffixes: V vocabulary, D width of the teacher's vectors, W of the student's.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel

from fastformers.arrays import Floats
from fastformers.errors import InputError
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.forward import (
    OnProgress,
    count_embeddings,
    mixed_precision,
    model_inputs,
    on_fastest_device,
)
from fastformers.models.loading import max_positions, output_settings, with_own_outputs
from fastformers.models.sentence_encoder import SentenceEncoder
from fastformers.models.trainer import seeded
from fastformers.models.variants.static_vectors import (
    StaticVectorsConfig,
    StaticVectorsForSequenceClassification,
    StaticVectorsModel,
)

_BATCH_ROWS = 1024
# A token of this share of the training texts' tokens begins with half of the weight of a rare one.
_HALF_WEIGHT_SHARE = 1e-3


def make_static_student(
    teacher: PreTrainedModel,
    tokenizer_json: str,
    counts_V: NDArray[np.int64],
    *,
    width: int | None,
    text_pairs: bool,
    seed: int,
    on_progress: OnProgress = lambda what, done, total: None,
) -> PreTrainedModel:
    """A student of static vectors with the teacher's task, vocabulary and outputs; train it.

    Args:
        teacher: A classifier, or a `SentenceEncoder`; it is not changed.
        tokenizer_json: Its serialized tokenizer.
        counts_V: Number of times that each token occurs in the training texts.
        width: Values of a vector; None for as many as the teacher's.
        text_pairs: Whether a row is two texts.
        seed: Seed of the head's first weights.
        on_progress: Called with the name of the work, tokens done and tokens in all.

    Raises:
        InputError: The width is more than the teacher's.
    """
    vectors_VD = compute_token_vectors(teacher, tokenizer_json, on_progress)
    full_width = vectors_VD.shape[1]
    if width is not None and width > full_width:
        raise InputError(f"--student-width {width}: the teacher's vectors have {full_width} values")
    weights_V = inverse_frequency(counts_V)
    if isinstance(teacher, SentenceEncoder):
        return _embedder(teacher, vectors_VD, weights_V, width or full_width)
    return _classifier(
        teacher, vectors_VD, weights_V, width or full_width, text_pairs=text_pairs, seed=seed
    )


def compute_token_vectors(
    teacher: PreTrainedModel, tokenizer_json: str, on_progress: OnProgress
) -> Floats:
    """What the teacher gives for each token alone (V, D).

    That is the mean of the last hidden states, special tokens included, or of a `SentenceEncoder`
    its own vector before it is normalized.
    """
    if isinstance(teacher, SentenceEncoder):
        teacher = copy.deepcopy(teacher)
        teacher.normalize = False
    start_ids, end_ids = _special_ids(tokenizer_json)
    num_tokens = count_embeddings(teacher)
    outputs: list[Floats] = []
    with torch.inference_mode(), on_fastest_device(teacher), mixed_precision():
        for first in range(0, num_tokens, _BATCH_ROWS):
            tokens = range(first, min(first + _BATCH_ROWS, num_tokens))
            rows = _rows([[*start_ids, token, *end_ids] for token in tokens])
            inputs = model_inputs(teacher, rows, np.arange(len(rows)))
            outputs.append(_vectors(teacher, inputs).float().cpu().numpy())
            on_progress("token vectors", tokens.stop, num_tokens)
    return np.concatenate(outputs)


def inverse_frequency(counts_V: NDArray[np.int64]) -> Floats:
    """Weight of each token in a mean (V,): 1 for a token that does not occur, less for others."""
    shares_V = counts_V / max(1, int(counts_V.sum()))
    return (_HALF_WEIGHT_SHARE / (_HALF_WEIGHT_SHARE + shares_V)).astype(np.float32)


def principal_components(vectors_VD: Floats, width: int) -> Floats:
    """Directions (D, W) in which the vectors are largest, the largest first."""
    _, directions_DD = np.linalg.eigh((vectors_VD.T @ vectors_VD).astype(np.float64))
    return np.ascontiguousarray(directions_DD[:, ::-1][:, :width], np.float32)


def _vectors(teacher: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    if not isinstance(teacher, SentenceEncoder):
        hidden_BTD: torch.Tensor = teacher.base_model(**inputs).last_hidden_state
        return hidden_BTD.mean(dim=1)
    vectors_BD: torch.Tensor = teacher(**inputs).logits
    return vectors_BD


def _special_ids(tokenizer_json: str) -> tuple[list[int], list[int]]:
    """Ids of the special tokens before and after a single text."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    probe = next(
        text for text in ("a", "0", ".", *tokenizer.get_vocab()) if _reads(tokenizer, text)
    )
    encoding = tokenizer.encode(probe)
    of_text = [at for at, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
    return encoding.ids[: of_text[0]], encoding.ids[of_text[-1] + 1 :]


def _reads(tokenizer: Tokenizer, text: str) -> bool:
    return bool(tokenizer.encode(text, add_special_tokens=False).ids)


def _rows(ids: list[list[int]]) -> TokenizedRows:
    """Rows of one length."""
    return TokenizedRows(
        ids=np.array(ids, np.uint32).ravel(),
        offsets=np.arange(len(ids) + 1, dtype=np.int64) * len(ids[0]),
        second_lengths_N=np.zeros(len(ids), np.uint16),
    )


def _start_vectors(vectors_VW: Floats, weights_V: Floats) -> torch.Tensor:
    """Weighted vectors of which a value is about 1 before the weight, as suits the training."""
    size = float(np.sqrt(np.square(vectors_VW).mean()))
    return torch.from_numpy(vectors_VW / max(size, 1e-12) * weights_V[:, None])


def _classifier(
    teacher: PreTrainedModel,
    vectors_VD: Floats,
    weights_V: Floats,
    width: int,
    *,
    text_pairs: bool,
    seed: int,
) -> PreTrainedModel:
    centered_VD = vectors_VD - vectors_VD.mean(axis=0)
    vectors_VW = centered_VD @ principal_components(centered_VD, width)
    config = StaticVectorsConfig(
        **_sizes(teacher, width),
        head_width=width,
        text_pairs=text_pairs,
        **output_settings(teacher),
    )
    with seeded(seed):
        student = StaticVectorsForSequenceClassification(config)
    _set_vectors(student.vectors, _start_vectors(vectors_VW, weights_V))
    return with_own_outputs(student).eval()


def _embedder(
    teacher: SentenceEncoder, vectors_VD: Floats, weights_V: Floats, width: int
) -> SentenceEncoder:
    """Its dense layer turns narrower vectors back to the teacher's directions."""
    encoder = StaticVectorsModel(StaticVectorsConfig(**_sizes(teacher, width)))
    dense = None
    if width < vectors_VD.shape[1]:
        directions_DW = principal_components(vectors_VD, width)
        vectors_VD = vectors_VD @ directions_DW
        linear = nn.Linear(width, len(directions_DW))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(directions_DW))
            linear.bias.zero_()
        dense = linear, nn.Identity()
    _set_vectors(encoder, _start_vectors(vectors_VD, weights_V))
    return SentenceEncoder(
        encoder,
        pooling="mean",
        dense=dense,
        normalize=teacher.normalize,
        max_length=teacher.max_length,
    ).eval()


def _sizes(teacher: PreTrainedModel, width: int) -> dict[str, Any]:
    return {
        "vocab_size": teacher.config.vocab_size,
        "hidden_size": width,
        "max_position_embeddings": max_positions(teacher.config),
        "pad_token_id": teacher.config.pad_token_id,
    }


def _set_vectors(model: StaticVectorsModel, vectors_VW: torch.Tensor) -> None:
    with torch.no_grad():
        model.tokens.weight.copy_(vectors_VW)
