"""BERT: embedded positions, norms after the sums (Devlin et al. 2019, arXiv:1810.04805).

MiniLM, TinyBERT, BGE, E5 and most sentence encoders are this architecture too.
"""

from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from fastformers.models.architectures.architecture import (
    Architecture,
    EmbeddingParts,
    HeadParts,
    LayerParts,
)


def bert_embeddings(encoder: PreTrainedModel) -> EmbeddingParts:
    """The embeddings of an encoder that names them as BERT does."""
    return replace(
        embeddings_without_types(encoder), token_types=encoder.embeddings.token_type_embeddings
    )


def embeddings_without_types(encoder: PreTrainedModel) -> EmbeddingParts:
    """The embeddings of an encoder that names them as BERT does, but has none of token types."""
    embeddings = encoder.embeddings
    return EmbeddingParts(
        tokens=embeddings.word_embeddings,
        positions=embeddings.position_embeddings,
        token_types=None,
        norm=embeddings.LayerNorm,
    )


def bert_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """The layers of an encoder that names them as BERT does."""
    layers: nn.ModuleList = encoder.encoder.layer
    return layers


def bert_parts(layer: Any) -> LayerParts:
    """The parts of a layer that names them as BERT does."""
    attention = layer.attention.self
    return LayerParts(
        attention=attention,
        head_width=attention.attention_head_size,
        query=attention.query,
        key=attention.key,
        value=attention.value,
        output=layer.attention.output.dense,
        attention_norm=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        ffn_norm=layer.output.LayerNorm,
        activated=layer.intermediate,
        probability_dropout=attention.dropout,
        output_dropout=layer.attention.output.dropout,
        down_dropout=layer.output.dropout,
    )


def bert_head(model: PreTrainedModel) -> HeadParts:
    """The pooler of the encoder and the classifier after it."""
    return HeadParts(
        hidden=model.base_model.pooler.dense, activation="tanh", output=model.classifier
    )


BERT = Architecture(
    embeddings=bert_embeddings,
    layers=bert_layers,
    parts=bert_parts,
    head=bert_head,
    can_shrink=True,
    layer_stack="encoder",
    onnxruntime_type="bert",
)
