"""Read a fine-tuned Hugging Face model into the arrays that the graph is laid from.

    teacher (PyTorch) -> [export] -> Encoder -> graph -> bundle

Why not torch.onnx: a traced graph has to be pattern-matched back into attention, and what the
matchers leave behind costs a third of the time (masks, transposes, a scalar SkipLayerNorm). The
architectures here are put together from the same parts, so laying the graph from named weights is
shorter than repairing a traced one, and the stage's postcondition compares every export with
PyTorch. Those that place tokens by their distance are read in export_relative.py.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from fastformers.checkpoint import load_weights
from fastformers.encoder import EmbeddingHead, Encoder, Head, Layer, Linear
from fastformers.errors import InputError
from fastformers.export_relative import (
    MPNET_PADDING_ID,
    deberta_head,
    modernbert_head,
    mpnet_head,
    read_deberta,
    read_modernbert,
    read_mpnet,
)
from fastformers.sentence import SentenceEncoder, is_sentence_encoder, load_sentence_encoder
from fastformers.tasks import TaskName, has_labels
from fastformers.torch_arrays import copy_floats as _floats
from fastformers.torch_arrays import copy_linear as _linear
from fastformers.torch_arrays import copy_norm as _norm
from fastformers.torch_arrays import to_activation as _activation


def load_teacher(path: Path) -> PreTrainedModel:
    """Load a fine-tuned model in eval mode; `task_of` tells what it does.

    It is a sequence classifier, a multiple-choice model, or a sentence-transformers directory.

    Raises:
        InputError: The directory holds no such model, or one of an unsupported architecture.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: no config.json; expected a Hugging Face model directory")
    try:
        model_type = json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: config.json names no architecture (model_type)") from error
    if model_type not in _READERS:
        supported = ", ".join(sorted(_READERS))
        raise InputError(f"{path}: architecture {model_type!r} is not one of {supported}")
    if is_sentence_encoder(path):
        return load_sentence_encoder(path)
    config = AutoConfig.from_pretrained(path)
    is_choice = any(name.endswith("ForMultipleChoice") for name in config.architectures or ())
    if config.problem_type == "regression" and config.num_labels != 1 and not is_choice:
        raise InputError(f"{path}: regression of {config.num_labels} numbers; expected one")
    auto_model = AutoModelForMultipleChoice if is_choice else AutoModelForSequenceClassification
    try:
        model, missing = load_weights(auto_model, path)
    except OSError as error:
        raise InputError(f"{path}: no weights that can be read: {error}".splitlines()[0]) from error
    if missing:
        raise InputError(
            f"{path}: not fine-tuned as a classifier: no weights for {', '.join(missing[:3])}"
        )
    return model


def task_of(model: PreTrainedModel) -> TaskName:
    """What a model that `load_teacher` opened does."""
    if isinstance(model, SentenceEncoder):
        return "embedding"
    if type(model).__name__.endswith("ForMultipleChoice"):
        return "multiple-choice"
    if model.config.problem_type == "multi_label_classification":
        return "multi-label-classification"
    return "regression" if model.config.num_labels == 1 else "text-classification"


def label_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the model's outputs by index; none for scores and embeddings."""
    return class_names(model.config) if has_labels(task_of(model)) else ()


def max_positions(config: PretrainedConfig) -> int:
    """Tokens of the longest row that a model has positions for.

    DeBERTa and ModernBERT may embed none: theirs is the length that they were trained for.
    """
    # These count from behind their padding id, and leave the positions before that unused.
    match config.model_type:
        case "roberta" | "xlm-roberta":
            unused = int(config.pad_token_id) + 1
        case "mpnet":
            unused = MPNET_PADDING_ID + 1
        case _:
            unused = 0
    return int(config.max_position_embeddings) - unused


def class_names(config: PretrainedConfig) -> tuple[str, ...]:
    """The model's label names by class index."""
    return tuple(str(config.id2label[index]) for index in range(config.num_labels))


def read_encoder(model: PreTrainedModel) -> Encoder:
    """Copy a model's weights out of PyTorch.

    Raises:
        InputError: It uses an activation or position scheme that the graph does not have.
    """
    config = model.config
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise InputError(
            f"position_embedding_type {config.position_embedding_type!r}: absolute only"
        )
    with torch.no_grad():
        encoder = _READERS[config.model_type](model)
    return replace(encoder, pooling=model.pooling) if task_of(model) == "embedding" else encoder


def _read_head(
    model: PreTrainedModel, read: Callable[[PreTrainedModel], Head]
) -> Head | EmbeddingHead:
    """The head of an embedding model, or what `read` makes of the architecture's own."""
    if not isinstance(model, SentenceEncoder):
        return read(model)
    if model.dense is None:
        return EmbeddingHead(projection=None, activation=None, normalize=model.normalize)
    linear, activation = model.dense
    assert isinstance(linear, nn.Linear)
    name = type(activation).__name__.lower()
    return EmbeddingHead(
        projection=_linear(linear),
        activation=None if name == "identity" else _activation(name),
        normalize=model.normalize,
    )


def _read_bert(model: PreTrainedModel) -> Encoder:
    bert = model.base_model
    return _read_bert_like(
        model,
        embeddings=bert.embeddings,
        layers=bert.encoder.layer,
        first_position=0,
        head=_read_head(model, _pooler_head),
    )


def _pooler_head(model: PreTrainedModel) -> Head:
    pooler = model.base_model.pooler
    return Head(hidden=_linear(pooler.dense), activation="tanh", output=_linear(model.classifier))


def _read_roberta(model: PreTrainedModel) -> Encoder:
    roberta = model.base_model
    return _read_bert_like(
        model,
        embeddings=roberta.embeddings,
        layers=roberta.encoder.layer,
        first_position=model.config.pad_token_id + 1,
        head=_read_head(model, _roberta_head),
    )


def _roberta_head(model: PreTrainedModel) -> Head:
    head = model.classifier
    if isinstance(head, nn.Linear):  # of multiple choice
        return _pooler_head(model)
    return Head(hidden=_linear(head.dense), activation="tanh", output=_linear(head.out_proj))


def _read_electra(model: PreTrainedModel) -> Encoder:
    electra = model.base_model
    projection = getattr(electra, "embeddings_project", None)
    return _read_bert_like(
        model,
        embeddings=electra.embeddings,
        layers=electra.encoder.layer,
        first_position=0,
        head=_read_head(model, _electra_head),
        projection=None if projection is None else _linear(projection),
    )


def _electra_head(model: PreTrainedModel) -> Head:
    head = model.classifier
    if isinstance(head, nn.Linear):  # of multiple choice
        config = model.config
        if config.summary_type != "first" or not config.summary_use_proj:
            raise InputError("an ELECTRA summary that is not a projection of the first token")
        return Head(
            hidden=_linear(model.sequence_summary.summary),
            activation=_activation(config.summary_activation),
            output=_linear(head),
        )
    return Head(hidden=_linear(head.dense), activation="gelu", output=_linear(head.out_proj))


def _read_bert_like(
    model: PreTrainedModel,
    *,
    embeddings: Any,
    layers: Any,
    first_position: int,
    head: Head | EmbeddingHead,
    projection: Linear | None = None,
) -> Encoder:
    config = model.config
    return Encoder(
        max_length=max_positions(model.config),
        words_VE=_floats(embeddings.word_embeddings.weight),
        places_PE=_floats(embeddings.position_embeddings.weight[first_position:]),
        types_KE=_floats(embeddings.token_type_embeddings.weight),
        embedding_norm=_norm(embeddings.LayerNorm),
        projection=projection,
        activation=_activation(config.hidden_act),
        layers=tuple(
            Layer(
                num_heads=layer.attention.self.num_attention_heads,
                query=_linear(layer.attention.self.query),
                key=_linear(layer.attention.self.key),
                value=_linear(layer.attention.self.value),
                output=_linear(layer.attention.output.dense),
                attention_norm=_norm(layer.attention.output.LayerNorm),
                up=_linear(layer.intermediate.dense),
                down=_linear(layer.output.dense),
                ffn_norm=_norm(layer.output.LayerNorm),
            )
            for layer in layers
        ),
        head=head,
    )


def _read_distilbert(model: PreTrainedModel) -> Encoder:
    distilbert = model.base_model
    embeddings = distilbert.embeddings
    return Encoder(
        max_length=max_positions(model.config),
        words_VE=_floats(embeddings.word_embeddings.weight),
        places_PE=_floats(embeddings.position_embeddings.weight),
        types_KE=None,
        embedding_norm=_norm(embeddings.LayerNorm),
        projection=None,
        activation=_activation(model.config.activation),
        layers=tuple(
            Layer(
                num_heads=layer.attention.n_heads,
                query=_linear(layer.attention.q_lin),
                key=_linear(layer.attention.k_lin),
                value=_linear(layer.attention.v_lin),
                output=_linear(layer.attention.out_lin),
                attention_norm=_norm(layer.sa_layer_norm),
                up=_linear(layer.ffn.lin1),
                down=_linear(layer.ffn.lin2),
                ffn_norm=_norm(layer.output_layer_norm),
            )
            for layer in distilbert.transformer.layer
        ),
        head=_read_head(model, _distilbert_head),
    )


def _distilbert_head(model: PreTrainedModel) -> Head:
    return Head(
        hidden=_linear(model.pre_classifier), activation="relu", output=_linear(model.classifier)
    )


_READERS: dict[str, Callable[[PreTrainedModel], Encoder]] = {
    "bert": _read_bert,
    "roberta": _read_roberta,
    "xlm-roberta": _read_roberta,
    "distilbert": _read_distilbert,
    "electra": _read_electra,
    "mpnet": lambda model: read_mpnet(model, _read_head(model, mpnet_head)),
    "deberta-v2": lambda model: read_deberta(model, _read_head(model, deberta_head)),
    "modernbert": lambda model: read_modernbert(model, _read_head(model, modernbert_head)),
}
