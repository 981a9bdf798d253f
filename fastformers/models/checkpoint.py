"""Load a Hugging Face model from a directory, whether its layers were pruned or not.

    directory -> [checkpoint] -> model -> any stage

A Hugging Face configuration has one number of heads and one feed-forward width for all layers. A
pruned model keeps those of the unpruned model there, and its own shapes in `config.pruned_layers`:
a list with {"num_heads": ..., "ffn_width": ...} for each layer. The original numbers of the heads
are not kept, because a later pruning round numbers the remaining heads from zero. This module knows
nothing of tasks.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from fastformers.errors import InputError
from fastformers.models.layers import (
    LayerShape,
    keep_heads,
    keep_neurons,
    layer_parts,
    layer_shape,
)


def load_weights(auto_class: Any, path: Path) -> tuple[PreTrainedModel, list[str]]:
    """Load a model in float32 and eval mode.

    Args:
        auto_class: Class of transformers such as `AutoModelForSequenceClassification`.
        path: Directory that `save_pretrained` wrote.

    Returns:
        The model, and the names of weights that the directory lacks, sorted.

    Raises:
        InputError: The pruned layers of the configuration are not those of such a model.
        OSError: The directory has no weights.
    """
    config = AutoConfig.from_pretrained(path)
    loader = auto_class
    if getattr(config, "pruned_layers", None) is not None:
        with torch.device("meta"):
            model_class = type(auto_class.from_config(config))
        loader = _pruned_class(model_class, path)
    model, report = loader.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    if loader is not auto_class:
        model.__class__ = model_class  # its layers are built; it is a plain model again
    return model.eval(), sorted(report["missing_keys"])


def _pruned_class(model_class: Any, path: Path) -> Any:
    """A subclass whose models are built with the pruned layers of their configuration.

    `from_pretrained` fills whatever its class builds, so sharded, half-precision and renamed
    weights are all read as they are for any other model.
    """

    def build(self: PreTrainedModel, config: PretrainedConfig, *args: Any) -> None:
        model_class.__init__(self, config, *args)
        _shrink(self, path)

    return type(model_class.__name__, (model_class,), {"__init__": build})


def _shrink(model: PreTrainedModel, path: Path) -> None:
    layers = layer_parts(model)
    shapes = _read_shapes(model.config, path)
    if len(shapes) != len(layers):
        raise InputError(
            f"{path}: config.json has {len(shapes)} pruned_layers for {len(layers)} layers"
        )
    for layer, shape in zip(layers, shapes, strict=True):
        full = layer_shape(layer)
        if not (0 < shape.num_heads <= full.num_heads and 0 < shape.ffn_width <= full.ffn_width):
            raise InputError(f"{path}: config.json: pruned layer {shape} does not fit {full}")
        keep_heads(layer, range(shape.num_heads))
        keep_neurons(layer, range(shape.ffn_width))


def _read_shapes(config: PretrainedConfig, path: Path) -> list[LayerShape]:
    try:
        return [
            LayerShape(num_heads=int(layer["num_heads"]), ffn_width=int(layer["ffn_width"]))
            for layer in config.pruned_layers
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: config.json: pruned_layers must list num_heads and ffn_width of each layer"
        ) from error
