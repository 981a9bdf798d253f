"""Read a fine-tuned Hugging Face model into the arrays that the graph is laid from.

    teacher (PyTorch) -> [read_absolute] -> EncoderWeights -> graph -> bundle

Why not torch.onnx: a traced graph has to be pattern-matched back into attention, and what the
matchers leave behind costs a third of the time (masks, transposes, a scalar SkipLayerNorm). The
architectures here are put together from the same parts, so laying the graph from named weights is
shorter than repairing a traced one, and the stage's postcondition compares every export with
PyTorch. Those that place tokens by their distance are read in export_relative.py.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
)

from fastformers.errors import InputError
from fastformers.export.encoder import EmbeddingHead, EncoderWeights, Head, Layer, Linear
from fastformers.export.read_relative import (
    deberta_head,
    modernbert_head,
    mpnet_head,
    read_deberta,
    read_modernbert,
    read_mpnet,
)
from fastformers.export.torch_arrays import copy_floats, copy_linear, copy_norm, to_activation
from fastformers.models.loading import max_positions, task_of
from fastformers.models.sentence_encoder import SentenceEncoder


def read_encoder(model: PreTrainedModel) -> EncoderWeights:
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
        projection=copy_linear(linear),
        activation=None if name == "identity" else to_activation(name),
        normalize=model.normalize,
    )


def _read_bert(model: PreTrainedModel) -> EncoderWeights:
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
    return Head(
        hidden=copy_linear(pooler.dense), activation="tanh", output=copy_linear(model.classifier)
    )


def _read_roberta(model: PreTrainedModel) -> EncoderWeights:
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
    return Head(
        hidden=copy_linear(head.dense), activation="tanh", output=copy_linear(head.out_proj)
    )


def _read_electra(model: PreTrainedModel) -> EncoderWeights:
    electra = model.base_model
    projection = getattr(electra, "embeddings_project", None)
    return _read_bert_like(
        model,
        embeddings=electra.embeddings,
        layers=electra.encoder.layer,
        first_position=0,
        head=_read_head(model, _electra_head),
        projection=None if projection is None else copy_linear(projection),
    )


def _electra_head(model: PreTrainedModel) -> Head:
    head = model.classifier
    if isinstance(head, nn.Linear):  # of multiple choice
        config = model.config
        if config.summary_type != "first" or not config.summary_use_proj:
            raise InputError("an ELECTRA summary that is not a projection of the first token")
        return Head(
            hidden=copy_linear(model.sequence_summary.summary),
            activation=to_activation(config.summary_activation),
            output=copy_linear(head),
        )
    return Head(
        hidden=copy_linear(head.dense), activation="gelu", output=copy_linear(head.out_proj)
    )


def _read_bert_like(
    model: PreTrainedModel,
    *,
    embeddings: Any,
    layers: Any,
    first_position: int,
    head: Head | EmbeddingHead,
    projection: Linear | None = None,
) -> EncoderWeights:
    config = model.config
    return EncoderWeights(
        max_length=max_positions(model.config),
        token_embeddings_VE=copy_floats(embeddings.word_embeddings.weight),
        position_embeddings_PE=copy_floats(embeddings.position_embeddings.weight[first_position:]),
        token_types_KE=copy_floats(embeddings.token_type_embeddings.weight),
        embedding_norm=copy_norm(embeddings.LayerNorm),
        projection=projection,
        activation=to_activation(config.hidden_act),
        layers=tuple(
            Layer(
                num_heads=layer.attention.self.num_attention_heads,
                query=copy_linear(layer.attention.self.query),
                key=copy_linear(layer.attention.self.key),
                value=copy_linear(layer.attention.self.value),
                output=copy_linear(layer.attention.output.dense),
                attention_norm=copy_norm(layer.attention.output.LayerNorm),
                up=copy_linear(layer.intermediate.dense),
                down=copy_linear(layer.output.dense),
                ffn_norm=copy_norm(layer.output.LayerNorm),
            )
            for layer in layers
        ),
        head=head,
    )


def _read_distilbert(model: PreTrainedModel) -> EncoderWeights:
    distilbert = model.base_model
    embeddings = distilbert.embeddings
    return EncoderWeights(
        max_length=max_positions(model.config),
        token_embeddings_VE=copy_floats(embeddings.word_embeddings.weight),
        position_embeddings_PE=copy_floats(embeddings.position_embeddings.weight),
        token_types_KE=None,
        embedding_norm=copy_norm(embeddings.LayerNorm),
        projection=None,
        activation=to_activation(model.config.activation),
        layers=tuple(
            Layer(
                num_heads=layer.attention.n_heads,
                query=copy_linear(layer.attention.q_lin),
                key=copy_linear(layer.attention.k_lin),
                value=copy_linear(layer.attention.v_lin),
                output=copy_linear(layer.attention.out_lin),
                attention_norm=copy_norm(layer.sa_layer_norm),
                up=copy_linear(layer.ffn.lin1),
                down=copy_linear(layer.ffn.lin2),
                ffn_norm=copy_norm(layer.output_layer_norm),
            )
            for layer in distilbert.transformer.layer
        ),
        head=_read_head(model, _distilbert_head),
    )


def _distilbert_head(model: PreTrainedModel) -> Head:
    return Head(
        hidden=copy_linear(model.pre_classifier),
        activation="relu",
        output=copy_linear(model.classifier),
    )


_READERS: dict[str, Callable[[PreTrainedModel], EncoderWeights]] = {
    "bert": _read_bert,
    "roberta": _read_roberta,
    "xlm-roberta": _read_roberta,
    "distilbert": _read_distilbert,
    "electra": _read_electra,
    "mpnet": lambda model: read_mpnet(model, _read_head(model, mpnet_head)),
    "deberta-v2": lambda model: read_deberta(model, _read_head(model, deberta_head)),
    "modernbert": lambda model: read_modernbert(model, _read_head(model, modernbert_head)),
}
