"""DistilBERT: BERT without token types or pooler (Sanh et al. 2019, arXiv:1910.01108).

It computes what BERT computes, but nearly every part has a name of its own.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from fastformers.models.architectures.architecture import Architecture, HeadParts, LayerParts
from fastformers.models.architectures.bert import embeddings_without_types


def _layers(encoder: PreTrainedModel) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.transformer.layer
    return layers


def _parts(layer: Any) -> LayerParts:
    attention = layer.attention
    return LayerParts(
        attention=attention,
        head_width=attention.attention_head_size,
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        output=attention.out_lin,
        attention_norm=layer.sa_layer_norm,
        up=layer.ffn.lin1,
        down=layer.ffn.lin2,
        ffn_norm=layer.output_layer_norm,
        activated=layer.ffn,
        num_heads_name="n_heads",
        heads_width_name="dim",
        activation_name="activation",
        probability_dropout=attention.dropout,
        down_dropout=layer.ffn.dropout,
    )


def _head(model: PreTrainedModel) -> HeadParts:
    return HeadParts(hidden=model.pre_classifier, activation="relu", output=model.classifier)


DISTILBERT = Architecture(
    embeddings=embeddings_without_types,
    layers=_layers,
    parts=_parts,
    head=_head,
    activation_setting="activation",
    attention_dropout_setting="attention_dropout",
    ffn_width_setting="hidden_dim",
    can_shrink=True,
    layer_stack="transformer",
    onnxruntime_type="bert",
)
