"""Load a fine-tuned model, and say what its outputs mean.

    checkpoint directory -> [loading] -> PyTorch model -> student, graph

This module knows nothing of graphs, recipes or bundles.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from fastformers.errors import InputError
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TEXT_CLASSIFICATION,
    Task,
)
from fastformers.models.architectures import architecture_of, check_supported
from fastformers.models.checkpoint import load_weights
from fastformers.models.sentence_encoder import (
    SentenceEncoder,
    is_sentence_encoder,
    load_sentence_encoder,
)

# Truncation where the user gives none: what BERT was trained for, and few texts are longer.
_MAX_LENGTH = 512

# What a sequence classifier's configuration calls its task: `new_classifier` writes it, `task_of`
# reads it.
_PROBLEM_TYPES: dict[Task, str] = {
    TEXT_CLASSIFICATION: "single_label_classification",
    MULTI_LABEL_CLASSIFICATION: "multi_label_classification",
    REGRESSION: "regression",
}


def load_model(path: Path) -> PreTrainedModel:
    """Load a fine-tuned model in eval mode; `task_of` gives its task.

    It is a sequence classifier, a multiple-choice model, or a sentence-transformers directory.

    Raises:
        InputError: The directory holds no such model, or one of an unsupported architecture.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: no config.json; expected a Hugging Face model directory")
    try:
        model_type = json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: config.json names no architecture (model_type)") from error
    check_supported(model_type, str(path))
    if is_sentence_encoder(path):
        return load_sentence_encoder(path)
    config = AutoConfig.from_pretrained(path)
    is_choice = any(name.endswith("ForMultipleChoice") for name in config.architectures or ())
    if (
        config.problem_type == _PROBLEM_TYPES[REGRESSION]
        and config.num_labels != 1
        and not is_choice
    ):
        raise InputError(f"{path}: regression of {config.num_labels} numbers; expected one")
    auto_model = AutoModelForMultipleChoice if is_choice else AutoModelForSequenceClassification
    try:
        model, missing = load_weights(auto_model, path)
    except OSError as error:
        raise InputError(f"{path}: no weights that can be read: {error}".splitlines()[0]) from error
    if missing:
        raise InputError(
            f"{path}: not fine-tuned as a classifier: no weights for {', '.join(missing[:3])}"
        )
    return model


def new_classifier(
    path: Path, task: Task, names: Sequence[str], **settings: Any
) -> PreTrainedModel:
    """An encoder with a head for a task; a head of another size does not stand in the way.

    Args:
        path: Directory of a pretrained Hugging Face encoder, with or without a head.
        task: One whose models are sequence classifiers.
        names: Names of the outputs, by index.
        settings: What else `from_pretrained` takes.
    """
    return AutoModelForSequenceClassification.from_pretrained(
        path,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=_PROBLEM_TYPES[task],
        ignore_mismatched_sizes=True,
        **settings,
    )


def task_of(model: PreTrainedModel) -> Task:
    """Task of a model that `load_model` or `new_classifier` made."""
    if isinstance(model, SentenceEncoder):
        return EMBEDDING
    if type(model).__name__.endswith("ForMultipleChoice"):
        return MULTIPLE_CHOICE
    if model.config.problem_type == _PROBLEM_TYPES[MULTI_LABEL_CLASSIFICATION]:
        return MULTI_LABEL_CLASSIFICATION
    return REGRESSION if model.config.num_labels == 1 else TEXT_CLASSIFICATION


def label_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the model's outputs by index; none for scores and embeddings."""
    return class_names(model.config) if task_of(model).has_labels else ()


def max_positions(config: PretrainedConfig) -> int:
    """Tokens of the longest row that a model has positions for.

    DeBERTa and ModernBERT may have no position embeddings; for them it is the length that they were
    trained for.
    """
    first_position = architecture_of(config).first_position(config)
    return int(config.max_position_embeddings) - first_position


def load_tokenizer(path: Path) -> tuple[str, int]:
    """Serialized tokenizer of a model directory, and the tokens that it truncates to.

    Raises:
        InputError: The directory has no fast tokenizer.
    """
    if not (path / "tokenizer.json").is_file():  # transformers would make one up
        raise InputError(f"{path}: has no tokenizer.json; save it with a fast tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(path)
    return tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length


def default_max_length(model: PreTrainedModel, tokenizer_limit: int) -> int:
    """Tokens to which texts are truncated where the user does not say it.

    Args:
        model: Model that reads the texts.
        tokenizer_limit: Tokens that its tokenizer truncates to.
    """
    longest = min(tokenizer_limit, max_positions(model.config), _MAX_LENGTH)
    if isinstance(model, SentenceEncoder):
        return min(longest, model.max_length or longest)
    return longest


def class_names(config: PretrainedConfig) -> tuple[str, ...]:
    """The model's label names by class index."""
    return tuple(str(config.id2label[index]) for index in range(config.num_labels))
