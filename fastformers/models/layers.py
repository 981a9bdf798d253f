"""The layers of a model as named parts, and how to make them smaller.

    model -> [layers] -> named parts -> prune, student, checkpoint

Which architectures can lose parts, and where those parts are, is known to `architectures`; what to
keep is decided by the callers. The functions that keep a part of a matrix change the module that
they are given: callers that need the original pass a copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from fastformers.models.architectures import shrinkable_architecture_of
from fastformers.models.architectures.architecture import LayerParts

Positions = Sequence[int] | NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """The sizes that may differ between the layers of a pruned model."""

    num_heads: int
    ffn_width: int


def layer_list(model: PreTrainedModel) -> nn.ModuleList:
    """The module that holds the model's layers.

    Raises:
        InputError: The architecture can be neither pruned nor cut.
    """
    return shrinkable_architecture_of(model.config).layers(model.base_model)


def layer_parts(model: PreTrainedModel) -> list[LayerParts]:
    """The parts of each layer, first layer first.

    Raises:
        InputError: The architecture can be neither pruned nor cut.
    """
    architecture = shrinkable_architecture_of(model.config)
    return architecture.parts_of(architecture.layers(model.base_model))


def layer_shape(parts: LayerParts) -> LayerShape:
    """A layer's shape as its weights have it."""
    return LayerShape(num_heads=parts.num_heads, ffn_width=parts.up.out_features)


def unpruned_shape(config: PretrainedConfig) -> LayerShape:
    """Every layer's shape before any pruning: pruning leaves these settings as they were.

    Raises:
        InputError: The architecture can be neither pruned nor cut.
    """
    setting = shrinkable_architecture_of(config).ffn_width_setting
    return LayerShape(num_heads=config.num_attention_heads, ffn_width=getattr(config, setting))


def keep_heads(parts: LayerParts, heads: Positions) -> None:
    """Keep the given heads of a layer, in that order."""
    width = parts.head_width
    kept = (np.asarray(heads)[:, None] * width + np.arange(width)).ravel()
    for projection in (parts.query, parts.key, parts.value):
        keep_outputs(projection, kept)
    keep_inputs(parts.output, kept)
    setattr(parts.attention, parts.num_heads_name, len(heads))
    setattr(parts.attention, parts.heads_width_name, len(kept))


def keep_neurons(parts: LayerParts, neurons: Positions) -> None:
    """Keep the given feed-forward neurons of a layer, in that order."""
    for projection in parts.into_ffn:
        keep_outputs(projection, neurons)
    keep_inputs(parts.down, neurons)


def keep_outputs(linear: nn.Linear, kept: Positions) -> None:
    """Keep the given outputs of a projection."""
    _keep_rows(linear, kept)
    linear.out_features = len(kept)


def keep_inputs(linear: nn.Linear, kept: Positions) -> None:
    """Keep the given inputs of a projection."""
    linear.weight = _kept(linear.weight, kept, 1)
    linear.in_features = len(kept)


def keep_norm(norm: nn.LayerNorm, kept: Positions) -> None:
    """Keep the given dimensions of a layer normalization."""
    _keep_rows(norm, kept)
    norm.normalized_shape = (len(kept),)


def keep_columns(embedding: nn.Embedding, kept: Positions) -> None:
    """Keep the given dimensions of an embedding."""
    embedding.weight = _kept(embedding.weight, kept, 1)
    embedding.embedding_dim = len(kept)


def _keep_rows(module: nn.Linear | nn.LayerNorm, kept: Positions) -> None:
    """Keep rows of the weight, and of the bias where there is one."""
    module.weight = _kept(module.weight, kept, 0)
    if module.bias is not None:
        module.bias = _kept(module.bias, kept, 0)


def _kept(parameter: torch.Tensor, kept: Positions, axis: int) -> nn.Parameter:
    index = torch.as_tensor(np.asarray(kept, np.int64), device=parameter.device)
    return nn.Parameter(
        parameter.detach().index_select(axis, index), requires_grad=parameter.requires_grad
    )
