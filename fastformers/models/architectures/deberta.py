"""DeBERTa-v2 and v3: attention with embeddings of the offset (He et al. 2021, arXiv:2006.03654).

A token's query meets the key of an offset (c2p) and its key the query of an offset (p2c); the
products of the layer's projections with the embeddings of offsets are kept as tables.
"""

import math
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from fastformers.errors import InputError
from fastformers.models.architectures.architecture import (
    Architecture,
    EmbeddingParts,
    HeadParts,
    LayerParts,
    OffsetTerms,
    RelativeTables,
    key_offsets,
    no_offset_terms,
)
from fastformers.models.architectures.bert import bert_embeddings, bert_layers


def _embeddings(encoder: PreTrainedModel) -> EmbeddingParts:
    projection = encoder.embeddings.embed_proj
    return replace(bert_embeddings(encoder), projection=projection, project_first=True)


def _layers(encoder: PreTrainedModel) -> nn.ModuleList:
    if encoder.encoder.conv is not None:  # after the first layer, as in the xlarge v2 models
        raise InputError(
            f"conv_kernel_size {encoder.config.conv_kernel_size}: DeBERTa without convolution only "
            "(v3 has none)"
        )
    return bert_layers(encoder)


def _parts(layer: Any) -> LayerParts:
    attention = layer.attention.self
    return LayerParts(
        attention=attention,
        head_width=attention.attention_head_size,
        query=attention.query_proj,
        key=attention.key_proj,
        value=attention.value_proj,
        output=layer.attention.output.dense,
        attention_norm=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        ffn_norm=layer.output.LayerNorm,
        activated=layer.intermediate,
        query_scale=_term_share(attention),
    )


def _head(model: PreTrainedModel) -> HeadParts:
    return HeadParts(
        hidden=model.pooler.dense,
        activation=model.config.pooler_hidden_act,
        output=model.classifier,
    )


def _offset_terms(encoder: PreTrainedModel) -> list[OffsetTerms]:
    if not encoder.encoder.relative_attention:
        return no_offset_terms(encoder)
    embeddings_RD = encoder.encoder.get_rel_embedding()
    rows_O = _rows_of_offsets(encoder)
    return [
        OffsetTerms(relative=_tables(layer.attention.self, embeddings_RD, rows_O))
        for layer in encoder.encoder.layer
    ]


def _rows_of_offsets(encoder: PreTrainedModel) -> Tensor:
    """The row of the offset embeddings that belongs to each offset key - query."""
    inner = encoder.encoder
    distances = -key_offsets(encoder.config.max_position_embeddings)  # DeBERTa counts query - key
    num_rows = inner.rel_embeddings.num_embeddings
    if inner.position_buckets > 0:
        distances = make_log_bucket_position(
            distances, inner.position_buckets, inner.max_relative_positions
        ).long()
    rows_O: Tensor = (distances + num_rows // 2).clamp(0, num_rows - 1)
    return rows_O


def _tables(attention: Any, embeddings_RD: Tensor, rows_O: Tensor) -> RelativeTables | None:
    terms = _terms(attention)
    if not terms:
        return None
    # A layer may project offsets with the same matrices as tokens.
    prefix = "" if attention.share_att_key else "pos_"
    # A token's query is already multiplied by `_term_share`, an offset's query is not.
    scales = {"c2p": ("key", 1.0), "p2c": ("query", _term_share(attention))}
    tables = {
        term: getattr(attention, f"{prefix}{side}_proj")(embeddings_RD).float()
        * (scale / math.sqrt(attention.attention_head_size))
        for term, (side, scale) in scales.items()
        if term in terms
    }
    return RelativeTables(rows_O=rows_O, keys_RW=tables.get("c2p"), queries_RW=tables.get("p2c"))


def _terms(attention: Any) -> list[str]:
    return [term for term in ("c2p", "p2c") if term in attention.pos_att_type]


def _term_share(attention: Any) -> float:
    """Factor of the terms of a score, besides 1 / sqrt(head width)."""
    return 1 / math.sqrt(1 + len(_terms(attention)))


DEBERTA = Architecture(
    embeddings=_embeddings,
    layers=_layers,
    parts=_parts,
    head=_head,
    offset_terms=_offset_terms,
)
