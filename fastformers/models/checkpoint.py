"""Load a Hugging Face model from a directory, whether its layers were pruned or not.

    directory -> [checkpoint] -> model -> any stage

A Hugging Face configuration has one number of heads and one feed-forward width for all layers. A
pruned model keeps those of the unpruned model there, and its own shapes in `config.pruned_layers`:
a list with {"num_heads": ..., "ffn_width": ...} for each layer. The original numbers of the heads
are not kept, because a later pruning round numbers the remaining heads from zero. A model that
drops or pools tokens gets the forward that does it (`variants`). This module knows nothing of
tasks.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from fastformers.errors import FastformersError, InputError
from fastformers.installation import pip_install
from fastformers.models.layers import (
    LayerShape,
    keep_heads,
    keep_neurons,
    layer_parts,
    layer_shape,
)
from fastformers.models.model_files import (
    ADAPTER_FILE,
    CONFIG_FILE,
    adapter_base,
    check_files,
    read_config,
    weight_shapes,
)
from fastformers.models.variants.reduced_layers import (
    SIGNIFICANCE,
    install_reduction,
    reduced_layers,
)


def load_weights(auto_class: Any, path: Path) -> tuple[PreTrainedModel, list[str]]:
    """Load a model in float32 and eval mode.

    Args:
        auto_class: Class of transformers such as `AutoModelForSequenceClassification`.
        path: Directory that `save_pretrained` wrote.

    Returns:
        The model, and the names of weights that the directory lacks, sorted.

    Raises:
        InputError: The directory has no weights, or others than its configuration describes.
    """
    config = load_config(path)
    with naming_file(path), _without_reports():
        model, report = load_pretrained(
            auto_class,
            path,
            output_loading_info=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise InputError(
            f"{path / CONFIG_FILE}: describes another model than the weights: {name} is "
            f"{tuple(found)} there and {tuple(expected)} by the configuration (id2label has a name "
            f"for each of {config.num_labels} outputs)"
        )
    restore_reduction(model, path)
    return model.eval(), sorted(report["missing_keys"])


def load_pretrained(auto_class: Any, path: Path, **settings: Any) -> Any:
    """What `from_pretrained` of a class gives, with layers of the shapes that the directory says.

    `ignore_mismatched_sizes`, which a new head needs, would have a library make layers of other
    shapes anew, of random weights.

    Args:
        auto_class: Class of transformers such as `AutoModelForSequenceClassification`.
        path: Directory that `save_pretrained` wrote.
        settings: What else `from_pretrained` takes.

    Raises:
        InputError: The layers that the configuration describes are none of its architecture.
    """
    config = load_config(path)
    if getattr(config, "pruned_layers", None) is None:
        return auto_class.from_pretrained(path, **settings)
    with torch.device("meta"):
        model_class = type(auto_class.from_config(config))
    loaded = _pruned_class(model_class, path).from_pretrained(path, **settings)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    model.__class__ = model_class  # its layers are built; it is a plain model again
    return loaded


def restore_reduction(model: PreTrainedModel, path: Path) -> None:
    """Give a model from a directory the reduced forward that it was saved with, if it was.

    Args:
        model: Encoder or classifier; it is changed.
        path: Directory that `save_pretrained` wrote.

    Raises:
        InputError: A setting makes no sense, the architecture cannot do it, or the weights that say
            which tokens stay are missing or of another shape.
    """
    install_reduction(model, str(path / CONFIG_FILE))
    layers = reduced_layers(model)
    if layers is None or layers.significance_LD is None:
        return
    expected = tuple(layers.significance_LD.shape)
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no dict)
                if name.rpartition(".")[2] != SIGNIFICANCE:
                    continue
                found = weights.get_tensor(name)
                if tuple(found.shape) != expected:
                    raise InputError(
                        f"{file}: {name} is {tuple(found.shape)}, and {expected} by keep_tokens of "
                        f"{CONFIG_FILE}"
                    )
                layers.significance_LD.data.copy_(found)
                return
    raise InputError(
        f"{path}: {CONFIG_FILE} has keep_tokens, and no weights say which tokens stay "
        f"({SIGNIFICANCE}): make the model again by --keep-tokens"
    )


def load_config(path: Path) -> PretrainedConfig:
    """Configuration of a model directory, whose files are checked first.

    Raises:
        InputError: A file is broken, or the configuration is none of its architecture.
    """
    read_config(path)
    with naming_file(path / CONFIG_FILE):
        return AutoConfig.from_pretrained(path)


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep transformers from printing a table of weights, which are checked here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Name the file in what its library raises, which may be anything its parsers meet.

    Raises:
        InputError: Something was raised in the block.
    """
    try:
        yield
    except FastformersError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise InputError(f"{path}: cannot be read: {type(error).__name__}: {reason}") from error


def load_adapter(auto_class: Any, path: Path) -> PreTrainedModel:
    """Load a LoRA adapter of a classifier, merged into its base, in float32 and eval mode.

    Raises:
        InputError: Its base is not on this machine, peft is not installed, or a file is broken.
    """
    check_files(path)
    base = adapter_base(path)
    if importlib.util.find_spec("peft") is None:
        raise InputError(
            f"{path / ADAPTER_FILE}: an adapter of {base}; {pip_install('peft')} reads it, or "
            "save the merged model (merge_and_unload) and give that"
        )
    read_config(base)
    # The head is in the adapter, and only its weights say how many outputs there are.
    rows = [
        shape[0]
        for name, shape in weight_shapes(path, "adapter_model")
        if len(shape) == 2 and "lora_" not in name and ("classifier" in name or "score" in name)
    ]
    with naming_file(path):
        from peft import PeftModel

        settings = {"num_labels": min(rows)} if rows else {}
        model = load_pretrained(
            auto_class, base, dtype=torch.float32, ignore_mismatched_sizes=True, **settings
        )
        merged = PeftModel.from_pretrained(model, path).merge_and_unload()
        restore_reduction(merged, base)
        return merged.eval()


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
