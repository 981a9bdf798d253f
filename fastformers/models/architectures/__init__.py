"""The architectures that can be scored: one file and one line of this table for each.

    configuration -> [architectures] -> Architecture -> layers, loading, read_encoder

To support another one, copy the most similar file, fill in the fields of `Architecture` there, and
add a line here. Its models can then be loaded, exported, scored and distilled, and, with
`can_shrink`, pruned and cut. Nothing here knows of graphs, recipes or files.
"""

from typing import get_args

import torch
from transformers import PretrainedConfig, PreTrainedModel

from fastformers.errors import InputError
from fastformers.models.architectures.architecture import Activation, Architecture
from fastformers.models.architectures.bert import BERT
from fastformers.models.architectures.deberta import DEBERTA
from fastformers.models.architectures.distilbert import DISTILBERT
from fastformers.models.architectures.electra import ELECTRA
from fastformers.models.architectures.modernbert import MODERNBERT
from fastformers.models.architectures.mpnet import MPNET
from fastformers.models.architectures.roberta import ROBERTA

# By the `model_type` of a Hugging Face configuration.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "deberta-v2": DEBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
}


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture of a model with this configuration.

    Raises:
        InputError: The architecture is not known; the message lists those that are.
    """
    if config.model_type not in ARCHITECTURES:
        raise InputError(_unsupported(config.model_type))
    return ARCHITECTURES[config.model_type]


def shrinkable_architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture of a model that may lose heads, neurons, layers or hidden dimensions.

    Raises:
        InputError: Such models cannot be made smaller; the message lists those that can.
    """
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None or not architecture.can_shrink:
        shrinkable = sorted(name for name, known in ARCHITECTURES.items() if known.can_shrink)
        raise InputError(
            f"architecture {config.model_type!r} can be neither pruned nor cut; "
            f"these can: {', '.join(shrinkable)}"
        )
    return architecture


def check_reducible(model_type: str, flag: str) -> None:
    """Refuse an architecture whose layers cannot pass on fewer tokens than they get.

    Args:
        model_type: Name of the architecture in a Hugging Face configuration.
        flag: The flag that asks for it, for the message.

    Raises:
        InputError: It is such an architecture; the message lists those that can.
    """
    known = ARCHITECTURES.get(model_type)
    if known is None or known.layer_stack is None:
        able = sorted(name for name, one in ARCHITECTURES.items() if one.layer_stack is not None)
        raise InputError(
            f"{flag}: architecture {model_type!r} can neither drop nor pool tokens; "
            f"these can: {', '.join(able)}"
        )


def check_model_type(model_type: str, source: str) -> None:
    """Refuse an architecture that is not in the table.

    Raises:
        InputError: The architecture is not known; the message names the source.
    """
    if model_type not in ARCHITECTURES:
        raise InputError(f"{source}: {_unsupported(model_type)}")


def check_supported(model: PreTrainedModel, source: str) -> None:
    """Refuse a model that has a part which the graph cannot have.

    Args:
        model: Model of a known architecture, with its head, if it has one.
        source: Where it comes from, for messages.

    Raises:
        InputError: It has an activation, positions or another part that is not supported.
    """
    config = model.config
    architecture = architecture_of(config)
    try:
        positions = getattr(config, "position_embedding_type", None)
        if positions not in (None, "absolute"):
            raise InputError(f"position_embedding_type {positions!r}: absolute only")
        if getattr(config, "is_decoder", False):
            raise InputError("is_decoder: tokens that read all others only")
        check_activation(getattr(config, architecture.activation_setting))
        architecture.embeddings(model.base_model)
        architecture.layers(model.base_model)
        with torch.no_grad():
            architecture.offset_terms(model.base_model)
        if hasattr(model, "classifier"):
            check_activation(architecture.head(model).activation)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def check_activation(name: str) -> Activation:
    """An activation by the name that transformers gives it.

    Raises:
        InputError: The graph has no such activation.
    """
    if name not in get_args(Activation):
        raise InputError(
            f"hidden activation {name!r} is not one of {', '.join(get_args(Activation))}"
        )
    activation: Activation = name  # type: ignore[assignment]
    return activation


def _unsupported(model_type: str) -> str:
    return f"architecture {model_type!r} is not one of {', '.join(sorted(ARCHITECTURES))}"
