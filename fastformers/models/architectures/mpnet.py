"""MPNet: BERT's layers with a bias by offset in attention (Song et al. 2020, arXiv:2004.09297).

It has no token types. One table of biases serves all layers, so no layer may lose heads of its own.
"""

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from fastformers.models.architectures.architecture import (
    Architecture,
    LayerParts,
    OffsetTerms,
    key_offsets,
)
from fastformers.models.architectures.bert import bert_layers, embeddings_without_types
from fastformers.models.architectures.roberta import roberta_head

# MPNet's code fixes the padding id, whatever its configuration says; positions start after it.
_PADDING_ID = 1


def _parts(layer: Any) -> LayerParts:
    attention = layer.attention.attn
    return LayerParts(
        attention=attention,
        head_width=attention.attention_head_size,
        query=attention.q,
        key=attention.k,
        value=attention.v,
        output=attention.o,
        attention_norm=layer.attention.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        ffn_norm=layer.output.LayerNorm,
        activated=layer.intermediate,
    )


def _first_position(config: PretrainedConfig) -> int:
    return _PADDING_ID + 1


def _offset_terms(encoder: PreTrainedModel) -> list[OffsetTerms]:
    max_length = encoder.config.max_position_embeddings - _first_position(encoder.config)
    buckets_O = encoder.encoder.relative_position_bucket(key_offsets(max_length))
    bias_HO = encoder.encoder.relative_attention_bias(buckets_O).T
    return [OffsetTerms(bias_HO=bias_HO)] * len(bert_layers(encoder))


MPNET = Architecture(
    embeddings=embeddings_without_types,
    layers=bert_layers,
    parts=_parts,
    head=roberta_head,
    first_position=_first_position,
    offset_terms=_offset_terms,
)
