"""Read a fine-tuned Hugging Face model into the arrays that its graph is built from.

    teacher (PyTorch) -> architecture: named parts -> [read_encoder] -> EncoderWeights -> graph

Why not torch.onnx: a traced graph has to be pattern-matched back into attention, and what the
matchers leave behind costs a third of the time (masks, transposes, a scalar SkipLayerNorm). The
architectures consist of the same parts, so building the graph from named weights is shorter than
repairing a traced one, and the stage's postcondition compares every export with PyTorch.
`models/architectures` says where the parts of a model are; this module knows no architecture by
name.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from fastformers.export.encoder import (
    EmbeddingHead,
    EncoderWeights,
    Head,
    Layer,
    Linear,
    Padding,
    RelativePositions,
    TokenPooling,
)
from fastformers.export.torch_arrays import copy_floats, copy_linear, copy_norm
from fastformers.models.architectures import (
    architecture_of,
    check_activation,
    check_reducible,
    check_supported,
)
from fastformers.models.architectures.architecture import (
    LayerParts,
    OffsetTerms,
    RelativeTables,
)
from fastformers.models.loading import gives_probability, max_positions
from fastformers.models.sentence_encoder import SentenceEncoder
from fastformers.models.variants.reduced_layers import significance_of
from fastformers.models.variants.token_reduction import reduction_of

_Part = TypeVar("_Part")
_Copy = TypeVar("_Copy")


def read_encoder(model: PreTrainedModel) -> EncoderWeights:
    """Copy a model's weights out of PyTorch.

    Raises:
        InputError: Its architecture is not supported, or it uses an activation or a position scheme
            that the graph does not have, or drops tokens in a way that the graph cannot.
    """
    config, encoder = model.config, model.base_model
    check_supported(model, config.model_type)
    architecture = architecture_of(config)
    reduction = reduction_of(config)
    if reduction.reduces:
        check_reducible(config.model_type, "keep_tokens, pool_tokens")
    is_embedding = isinstance(model, SentenceEncoder)
    with torch.no_grad():
        embeddings = architecture.embeddings(encoder)
        first_position = architecture.first_position(config)
        layers = architecture.parts_of(architecture.layers(encoder))
        terms = architecture.offset_terms(encoder)
        return EncoderWeights(
            max_length=max_positions(config),
            token_embeddings_VE=copy_floats(embeddings.tokens.weight),
            position_embeddings_PE=_if_any(
                lambda table: copy_floats(table.weight[first_position:]), embeddings.positions
            ),
            padding=_padding(embeddings.positions, first_position),
            token_types_KE=_if_any(lambda table: copy_floats(table.weight), embeddings.token_types),
            embedding_norm=_if_any(copy_norm, embeddings.norm),
            projection=_if_any(copy_linear, embeddings.projection),
            project_first=embeddings.project_first,
            activation=check_activation(getattr(config, architecture.activation_setting)),
            layers=tuple(
                _copy_layer(parts, term, share, weights_D)
                for parts, term, share, weights_D in zip(
                    layers,
                    terms,
                    reduction.shares_of(len(layers)),
                    significance_of(model, len(layers)),
                    strict=True,
                )
            ),
            head=_embedding_head(model) if is_embedding else _copy_head(model),
            final_norm=_if_any(copy_norm, architecture.final_norm(encoder)),
            pooling=model.pooling if is_embedding else architecture.pooling(config),
            pooling_of_tokens=_if_any(lambda pool: TokenPooling(**asdict(pool)), reduction.pool),
        )


def _padding(positions: nn.Embedding | None, first_position: int) -> Padding | None:
    """The token that is not counted: its id stands before the first position in the table."""
    if positions is None or first_position == 0:
        return None
    token_id = first_position - 1
    return Padding(token_id=token_id, embedding_1E=copy_floats(positions.weight[[token_id]]))


def _copy_layer(
    parts: LayerParts, terms: OffsetTerms, keep_share: float, significance_D: torch.Tensor | None
) -> Layer:
    query, scale = copy_linear(parts.query), np.float32(parts.query_scale)
    return Layer(
        num_heads=parts.num_heads,
        query=Linear(weight=query.weight * scale, bias=query.bias * scale),
        key=copy_linear(parts.key),
        value=copy_linear(parts.value),
        output=copy_linear(parts.output),
        attention_norm=_if_any(copy_norm, parts.attention_norm),
        up=copy_linear(parts.up),
        gate=_if_any(copy_linear, parts.gate),
        down=copy_linear(parts.down),
        ffn_norm=copy_norm(parts.ffn_norm),
        norm_first=parts.norm_first,
        bias_HO=_if_any(copy_floats, terms.bias_HO),
        relative=_if_any(_copy_tables, terms.relative),
        rotary_frequencies=_if_any(copy_floats, terms.rotary_frequencies),
        keep_share=keep_share,
        significance_D=_if_any(copy_floats, significance_D if keep_share < 1 else None),
    )


def _copy_tables(tables: RelativeTables) -> RelativePositions:
    return RelativePositions(
        rows_O=tables.rows_O.numpy(),
        keys_RW=_if_any(copy_floats, tables.keys_RW),
        queries_RW=_if_any(copy_floats, tables.queries_RW),
    )


def _copy_head(model: PreTrainedModel) -> Head:
    head = architecture_of(model.config).head(model)
    return Head(
        hidden=copy_linear(head.hidden),
        activation=check_activation(head.activation),
        output=copy_linear(head.output),
        norm=_if_any(copy_norm, head.norm),
        gives_probability=gives_probability(model.config),
    )


def _embedding_head(model: SentenceEncoder) -> EmbeddingHead:
    if model.dense is None:
        return EmbeddingHead(
            projection=None,
            activation=None,
            normalize=model.normalize,
            num_outputs=model.truncate_dim,
        )
    linear, activation = model.dense
    assert isinstance(linear, nn.Linear)
    name = type(activation).__name__.lower()
    return EmbeddingHead(
        projection=copy_linear(linear),
        activation=None if name == "identity" else check_activation(name),
        normalize=model.normalize,
        num_outputs=model.truncate_dim,
    )


def _if_any(copy: Callable[[_Part], _Copy], part: _Part | None) -> _Copy | None:
    """Copy a part that a model may lack."""
    return None if part is None else copy(part)
