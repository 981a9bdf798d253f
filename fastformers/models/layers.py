"""Where in each Hugging Face architecture the parts of a layer are, and how to make them smaller.

    model -> [layers] -> importance, prune, student, checkpoint

Bert, RoBERTa, XLM-R and ELECTRA name their parts alike, DistilBERT has names of its own. The
functions that keep a part of a matrix change the module they are given: callers pass a copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What may differ between the layers of a pruned model."""

    num_heads: int
    ffn_width: int


ARCHITECTURES = ("bert", "distilbert", "electra", "roberta", "xlm-roberta")
Positions = Sequence[int] | NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class LayerParts:
    """The modules of one layer. `attention` is the one that knows how many heads there are."""

    attention: Any
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    ffn_norm: nn.LayerNorm

    @property
    def head_width(self) -> int:
        """Outputs of one head; the same in all layers and never pruned."""
        return int(self.attention.attention_head_size)

    @property
    def shape(self) -> LayerShape:
        """As the weights have it."""
        return LayerShape(
            num_heads=self.query.out_features // self.head_width, ffn_width=self.up.out_features
        )


def layer_list(model: PreTrainedModel) -> nn.ModuleList:
    """The module that holds the model's layers.

    Raises:
        InputError: An architecture whose layers we do not know.
    """
    if model.config.model_type not in ARCHITECTURES:
        raise InputError(
            f"architecture {model.config.model_type!r} can be neither pruned nor cut; "
            f"these can: {', '.join(ARCHITECTURES)}"
        )
    base: Any = model.base_model
    layers: nn.ModuleList = (
        base.transformer if hasattr(base, "transformer") else base.encoder
    ).layer
    return layers


def layer_parts(model: PreTrainedModel) -> list[LayerParts]:
    """The parts of each layer, first layer first.

    Raises:
        InputError: An architecture whose layers we do not know.
    """
    layers = layer_list(model)
    return [
        _distilbert_parts(layer) if model.config.model_type == "distilbert" else _bert_parts(layer)
        for layer in layers
    ]


def _bert_parts(layer: Any) -> LayerParts:
    attention = layer.attention.self
    return LayerParts(
        attention=attention,
        query=attention.query,
        key=attention.key,
        value=attention.value,
        output=layer.attention.output.dense,
        attention_norm=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        ffn_norm=layer.output.LayerNorm,
    )


def _distilbert_parts(layer: Any) -> LayerParts:
    attention = layer.attention
    return LayerParts(
        attention=attention,
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        output=attention.out_lin,
        attention_norm=layer.sa_layer_norm,
        up=layer.ffn.lin1,
        down=layer.ffn.lin2,
        ffn_norm=layer.output_layer_norm,
    )


def embedding_end(model: PreTrainedModel) -> nn.Module:
    """The module whose output enters the first layer."""
    base: Any = model.base_model
    # ELECTRA's embeddings may be narrower than its layers.
    end: nn.Module = getattr(base, "embeddings_project", None) or base.embeddings.LayerNorm
    return end


def unpruned_shape(config: PretrainedConfig) -> LayerShape:
    """Every layer's shape before any pruning: pruning leaves these settings as they were."""
    ffn_width = config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size
    return LayerShape(num_heads=config.num_attention_heads, ffn_width=ffn_width)


def keep_heads(parts: LayerParts, heads: Positions) -> None:
    """Keep the given heads of a layer, in that order."""
    width = parts.head_width
    kept = (np.asarray(heads)[:, None] * width + np.arange(width)).ravel()
    for projection in (parts.query, parts.key, parts.value):
        keep_outputs(projection, kept)
    keep_inputs(parts.output, kept)
    if hasattr(parts.attention, "n_heads"):
        parts.attention.n_heads, parts.attention.dim = len(heads), len(kept)
    else:
        parts.attention.num_attention_heads, parts.attention.all_head_size = len(heads), len(kept)


def keep_neurons(parts: LayerParts, neurons: Positions) -> None:
    """Keep the given feed-forward neurons of a layer, in that order."""
    keep_outputs(parts.up, neurons)
    keep_inputs(parts.down, neurons)


def keep_outputs(linear: nn.Linear, kept: Positions) -> None:
    """Keep the given outputs of a projection."""
    linear.weight, linear.bias = _kept(linear.weight, kept, 0), _kept(linear.bias, kept, 0)
    linear.out_features = len(kept)


def keep_inputs(linear: nn.Linear, kept: Positions) -> None:
    """Keep the given inputs of a projection."""
    linear.weight = _kept(linear.weight, kept, 1)
    linear.in_features = len(kept)


def keep_norm(norm: nn.LayerNorm, kept: Positions) -> None:
    """Keep the given dimensions of a layer normalization."""
    norm.weight, norm.bias = _kept(norm.weight, kept, 0), _kept(norm.bias, kept, 0)
    norm.normalized_shape = (len(kept),)


def keep_columns(embedding: nn.Embedding, kept: Positions) -> None:
    """Keep the given dimensions of an embedding."""
    embedding.weight = _kept(embedding.weight, kept, 1)
    embedding.embedding_dim = len(kept)


def _kept(parameter: torch.Tensor, kept: Positions, axis: int) -> nn.Parameter:
    index = torch.as_tensor(np.asarray(kept, np.int64), device=parameter.device)
    return nn.Parameter(
        parameter.detach().index_select(axis, index), requires_grad=parameter.requires_grad
    )
