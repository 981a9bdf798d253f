"""ModernBERT: rotary positions, local windows, gates (Warner et al. 2024, arXiv:2412.13663).

Norms stand before attention and feed-forward. Query, key and value are one projection, up and gate
another; both are read as views, so nothing can be pruned through them.
"""

from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from fastformers.errors import InputError
from fastformers.models.architectures.architecture import (
    Architecture,
    EmbeddingParts,
    HeadParts,
    LayerParts,
    OffsetTerms,
    Pooling,
    key_offsets,
    split_linear,
)


def _embeddings(encoder: PreTrainedModel) -> EmbeddingParts:
    return EmbeddingParts(
        tokens=encoder.embeddings.tok_embeddings,
        positions=None,
        token_types=None,
        norm=encoder.embeddings.norm,
    )


def _layers(encoder: PreTrainedModel) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.layers
    return layers


def _parts(layer: Any) -> LayerParts:
    query, key, value = split_linear(layer.attn.Wqkv, 3)
    up, gate = split_linear(layer.mlp.Wi, 2)
    is_normed = isinstance(layer.attn_norm, nn.LayerNorm)  # the input of the first layer already is
    return LayerParts(
        attention=layer.attn,
        head_width=layer.attn.head_dim,
        query=query,
        key=key,
        value=value,
        output=layer.attn.Wo,
        attention_norm=layer.attn_norm if is_normed else None,
        up=up,
        gate=gate,
        down=layer.mlp.Wo,
        ffn_norm=layer.mlp_norm,
        activated=layer.mlp,
        norm_first=True,
        activation_name="act",
    )


def _head(model: PreTrainedModel) -> HeadParts:
    return HeadParts(
        hidden=model.head.dense,
        activation=model.config.classifier_activation,
        norm=model.head.norm,
        output=model.classifier,
    )


def _offset_terms(encoder: PreTrainedModel) -> list[OffsetTerms]:
    config = encoder.config
    for kind, rope in config.rope_parameters.items():
        if rope["rope_type"] != "default":  # other types change with the length
            raise InputError(f"rope_type {rope['rope_type']!r} of {kind}: default only")
    distances_O = key_offsets(config.max_position_embeddings).abs()
    window_1O = torch.where(distances_O > config.sliding_window, -torch.inf, 0.0)[None]
    return [
        OffsetTerms(
            bias_HO=window_1O if kind == "sliding_attention" else None,
            rotary_frequencies=getattr(encoder.rotary_emb, f"{kind}_inv_freq"),
        )
        for kind in config.layer_types
    ]


def _final_norm(encoder: PreTrainedModel) -> nn.LayerNorm:
    norm: nn.LayerNorm = encoder.final_norm
    return norm


def _pooling(config: PretrainedConfig) -> Pooling:
    return "mean" if config.classifier_pooling == "mean" else "first"


MODERNBERT = Architecture(
    embeddings=_embeddings,
    layers=_layers,
    parts=_parts,
    head=_head,
    activation_setting="hidden_activation",
    attention_dropout_setting="attention_dropout",
    layer_settings=("layer_types",),
    offset_terms=_offset_terms,
    final_norm=_final_norm,
    pooling=_pooling,
)
