"""The architectures that can be scored: one file and one line of this table for each.

    configuration -> [architectures] -> Architecture -> layers, loading, read_encoder

To support another one, copy the most similar file, fill in the fields of `Architecture` there, and
add a line here. Its models can then be loaded, exported, scored and distilled, and, with
`can_shrink`, pruned and cut. Nothing here knows of graphs, recipes or files.
"""

from transformers import PretrainedConfig

from fastformers.errors import InputError
from fastformers.models.architectures.architecture import Architecture
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


def check_supported(model_type: str, source: str) -> None:
    """Refuse an architecture that is not in the table.

    Raises:
        InputError: The architecture is not known; the message names the source.
    """
    if model_type not in ARCHITECTURES:
        raise InputError(f"{source}: {_unsupported(model_type)}")


def _unsupported(model_type: str) -> str:
    return f"architecture {model_type!r} is not one of {', '.join(sorted(ARCHITECTURES))}"
