"""Read the classifiers whose attention knows how far apart two tokens are.

    teacher (PyTorch) -> export -> [read_relative] -> EncoderWeights -> graph

MPNet (a bias by offset), DeBERTa-v2 and v3 (embeddings of the offset) and ModernBERT (rotations and
local windows). What depends on the offset alone is computed here, with the teacher's own functions,
and laid as tables. Checkpoints that need more than the graph has are refused.

Array suffixes: as in encoder.py.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from fastformers.errors import InputError
from fastformers.export.encoder import (
    EmbeddingHead,
    EncoderWeights,
    Floats,
    Head,
    Layer,
    Linear,
    RelativePositions,
)
from fastformers.export.torch_arrays import copy_floats, copy_linear, copy_norm, to_activation
from fastformers.models.loading import MPNET_PADDING_ID


def read_mpnet(model: PreTrainedModel, head: Head | EmbeddingHead) -> EncoderWeights:
    """Copy an MPNet model; its head was read before."""
    encoder, embeddings = model.base_model.encoder, model.base_model.embeddings
    position_embeddings_PE = copy_floats(
        embeddings.position_embeddings.weight[MPNET_PADDING_ID + 1 :]
    )
    buckets_O = encoder.relative_position_bucket(_offsets(len(position_embeddings_PE)))
    bias_HO = copy_floats(encoder.relative_attention_bias(buckets_O).T)
    return EncoderWeights(
        max_length=len(position_embeddings_PE),
        token_embeddings_VE=copy_floats(embeddings.word_embeddings.weight),
        position_embeddings_PE=position_embeddings_PE,
        token_types_KE=None,
        embedding_norm=copy_norm(embeddings.LayerNorm),
        projection=None,
        activation=to_activation(model.config.hidden_act),
        layers=tuple(
            Layer(
                num_heads=layer.attention.attn.num_attention_heads,
                query=copy_linear(layer.attention.attn.q),
                key=copy_linear(layer.attention.attn.k),
                value=copy_linear(layer.attention.attn.v),
                output=copy_linear(layer.attention.attn.o),
                attention_norm=copy_norm(layer.attention.LayerNorm),
                up=copy_linear(layer.intermediate.dense),
                down=copy_linear(layer.output.dense),
                ffn_norm=copy_norm(layer.output.LayerNorm),
                bias_HO=bias_HO,
            )
            for layer in encoder.layer
        ),
        head=head,
    )


def mpnet_head(model: PreTrainedModel) -> Head:
    """Copy the head of an MPNet classifier."""
    head = model.classifier
    if isinstance(head, nn.Linear):  # of multiple choice
        hidden, output = model.base_model.pooler.dense, head
    else:
        hidden, output = head.dense, head.out_proj
    return Head(hidden=copy_linear(hidden), activation="tanh", output=copy_linear(output))


def read_deberta(model: PreTrainedModel, head: Head | EmbeddingHead) -> EncoderWeights:
    """Copy a DeBERTa-v2 or v3 model; its head was read before.

    Raises:
        InputError: It has a convolution after its first layer, as the xlarge v2 models.
    """
    config, deberta = model.config, model.base_model
    if deberta.encoder.conv is not None:
        raise InputError(
            f"conv_kernel_size {config.conv_kernel_size}: DeBERTa without convolution only "
            "(v3 has none)"
        )
    embeddings = deberta.embeddings
    places, types = embeddings.position_embeddings, embeddings.token_type_embeddings
    rows_O = _deberta_rows(config, deberta.encoder)
    return EncoderWeights(
        max_length=int(config.max_position_embeddings),
        token_embeddings_VE=copy_floats(embeddings.word_embeddings.weight),
        position_embeddings_PE=None if places is None else copy_floats(places.weight),
        token_types_KE=None if types is None else copy_floats(types.weight),
        embedding_norm=copy_norm(embeddings.LayerNorm),
        projection=None if embeddings.embed_proj is None else copy_linear(embeddings.embed_proj),
        project_first=True,
        activation=to_activation(config.hidden_act),
        layers=tuple(
            _deberta_layer(layer, deberta.encoder.get_rel_embedding(), rows_O)
            for layer in deberta.encoder.layer
        ),
        head=head,
    )


def deberta_head(model: PreTrainedModel) -> Head:
    """Copy the head of a DeBERTa classifier."""
    return Head(
        hidden=copy_linear(model.pooler.dense),
        activation=to_activation(model.config.pooler_hidden_act),
        output=copy_linear(model.classifier),
    )


def _deberta_rows(config: PretrainedConfig, encoder: Any) -> NDArray[np.int64] | None:
    """The row of the offset embeddings that belongs to each offset key - query."""
    if not encoder.relative_attention:
        return None
    distances = -_offsets(config.max_position_embeddings)  # theirs are query - key
    num_rows = encoder.rel_embeddings.num_embeddings
    if encoder.position_buckets > 0:
        distances = make_log_bucket_position(
            distances, encoder.position_buckets, encoder.max_relative_positions
        ).long()
    rows_O: NDArray[np.int64] = (distances + num_rows // 2).clamp(0, num_rows - 1).numpy()
    return rows_O


def _deberta_layer(
    layer: Any, embeddings_RD: torch.Tensor | None, rows_O: NDArray[np.int64] | None
) -> Layer:
    attention = layer.attention.self
    terms = [term for term in ("c2p", "p2c") if term in attention.pos_att_type]
    head_width = attention.query_proj.out_features // attention.num_attention_heads
    # MultiHeadAttention divides by the root of the head width; the share of each of the terms is
    # in the query, and both are in the tables, whose products are added afterwards.
    share = 1 / math.sqrt(1 + len(terms))
    query = copy_linear(attention.query_proj)
    relative = None
    if embeddings_RD is not None and rows_O is not None and terms:
        # The layer's own projections, where it shares them with the tokens.
        prefix = "" if attention.share_att_key else "pos_"
        scales = {"c2p": ("key", 1.0), "p2c": ("query", share)}
        tables = {
            term: copy_floats(getattr(attention, f"{prefix}{side}_proj")(embeddings_RD))
            * np.float32(scale / math.sqrt(head_width))
            for term, (side, scale) in scales.items()
            if term in terms
        }
        relative = RelativePositions(
            rows_O=rows_O, keys_RW=tables.get("c2p"), queries_RW=tables.get("p2c")
        )
    return Layer(
        num_heads=attention.num_attention_heads,
        query=Linear(weight=query.weight * np.float32(share), bias=query.bias * np.float32(share)),
        key=copy_linear(attention.key_proj),
        value=copy_linear(attention.value_proj),
        output=copy_linear(layer.attention.output.dense),
        attention_norm=copy_norm(layer.attention.output.LayerNorm),
        up=copy_linear(layer.intermediate.dense),
        down=copy_linear(layer.output.dense),
        ffn_norm=copy_norm(layer.output.LayerNorm),
        relative=relative,
    )


def read_modernbert(model: PreTrainedModel, head: Head | EmbeddingHead) -> EncoderWeights:
    """Copy a ModernBERT model; its head was read before.

    Raises:
        InputError: Its rotations change with the length.
    """
    config, bert = model.config, model.base_model
    for kind, rope in config.rope_parameters.items():
        if rope["rope_type"] != "default":
            raise InputError(f"rope_type {rope['rope_type']!r} of {kind}: default only")
    offsets_O = np.abs(_offsets(config.max_position_embeddings).numpy())
    window_1O = np.where(offsets_O > config.sliding_window, -np.inf, 0)[None].astype(np.float32)
    return EncoderWeights(
        max_length=int(config.max_position_embeddings),
        token_embeddings_VE=copy_floats(bert.embeddings.tok_embeddings.weight),
        position_embeddings_PE=None,
        token_types_KE=None,
        embedding_norm=copy_norm(bert.embeddings.norm),
        projection=None,
        activation=to_activation(config.hidden_activation),
        layers=tuple(
            _modernbert_layer(
                layer,
                num_heads=config.num_attention_heads,
                window_1O=window_1O if kind == "sliding_attention" else None,
                frequencies=copy_floats(getattr(bert.rotary_emb, f"{kind}_inv_freq")),
            )
            for layer, kind in zip(bert.layers, config.layer_types, strict=True)
        ),
        head=head,
        final_norm=copy_norm(bert.final_norm),
        pooling="mean" if config.classifier_pooling == "mean" else "first",
    )


def modernbert_head(model: PreTrainedModel) -> Head:
    """Copy the head of a ModernBERT classifier."""
    return Head(
        hidden=copy_linear(model.head.dense),
        activation=to_activation(model.config.classifier_activation),
        norm=copy_norm(model.head.norm),
        output=copy_linear(model.classifier),
    )


def _modernbert_layer(
    layer: Any, *, num_heads: int, window_1O: Floats | None, frequencies: Floats
) -> Layer:
    query, key, value = _parts(copy_linear(layer.attn.Wqkv), 3)
    up, gate = _parts(copy_linear(layer.mlp.Wi), 2)
    is_normed = isinstance(layer.attn_norm, nn.LayerNorm)  # the first layer's input already is
    return Layer(
        num_heads=num_heads,
        query=query,
        key=key,
        value=value,
        output=copy_linear(layer.attn.Wo),
        attention_norm=copy_norm(layer.attn_norm) if is_normed else None,
        up=up,
        gate=gate,
        down=copy_linear(layer.mlp.Wo),
        ffn_norm=copy_norm(layer.mlp_norm),
        norm_first=True,
        bias_HO=window_1O,
        rotary_frequencies=frequencies,
    )


def _offsets(max_length: int) -> torch.Tensor:
    """Offsets key - query (O,) of rows of at most so many tokens."""
    return torch.arange(-max_length, max_length + 1)


def _parts(joined: Linear, num_parts: int) -> list[Linear]:
    """Projections whose outputs stand side by side in one."""
    weights = np.split(joined.weight, num_parts, axis=1)
    biases = np.split(joined.bias, num_parts)
    return [Linear(weight=w, bias=b) for w, b in zip(weights, biases, strict=True)]
