"""Load a fine-tuned model, and say what its outputs mean.

    checkpoint directory -> [loading] -> PyTorch model -> student, graph

This module knows nothing of graphs, recipes or bundles.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
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
from fastformers.models.architectures import architecture_of, check_model_type, check_supported
from fastformers.models.checkpoint import (
    load_adapter,
    load_config,
    load_pretrained,
    load_weights,
    naming_file,
    restore_reduction,
)
from fastformers.models.model_files import (
    adapter_base,
    check_files,
    is_adapter,
    is_sentence_encoder,
    read_config,
)
from fastformers.models.sentence_encoder import (
    SentenceEncoder,
    encoder_directory,
    load_sentence_encoder,
    lowers_case,
)
from fastformers.models.vocabulary import without_types

TOKENIZER_FILE = "tokenizer.json"
_SETTINGS_FILE = "tokenizer_config.json"
_SLOW_FILES = ("vocab.*", "*.model")
_ACTIVATION_SETTINGS = ("sentence_transformers", "sbert_ce_default_activation_function")
_NO_LIMIT = 2**31 - 1  # tokens; transformers says "no limit" by a number that no library can take

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
    if is_adapter(path):
        model = load_adapter(AutoModelForSequenceClassification, path)
        check_supported(model, str(path))
        return model
    check_model_type(read_config(encoder_directory(path))["model_type"], str(path))
    model = load_sentence_encoder(path) if is_sentence_encoder(path) else _load_classifier(path)
    check_supported(model, str(path))
    return model if is_sentence_encoder(path) else with_own_outputs(model, str(path))


def with_own_outputs(model: PreTrainedModel, source: str = "") -> PreTrainedModel:
    """The classifier itself, which from now on gives probabilities if its configuration says so.

    Raises:
        InputError: The configuration names another activation; the message names the source.
    """
    if gives_probability(model.config, source):
        model.register_forward_hook(_to_probability)
    return model


def output_settings(model: PreTrainedModel) -> dict[str, Any]:
    """What a classifier's configuration says of its outputs, for one of another architecture."""
    names = ("id2label", "label2id", "problem_type", *_ACTIVATION_SETTINGS)
    found = {name: getattr(model.config, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def gives_probability(config: PretrainedConfig, source: str = "") -> bool:
    """Whether a model of one output gives the sigmoid of its logit, as CrossEncoder writes it down.

    Raises:
        InputError: The configuration names another activation; the message names the source.
    """
    new, old = (getattr(config, setting, None) for setting in _ACTIVATION_SETTINGS)
    name = (new or {}).get("activation_fn") or old
    kind = str(name).rpartition(".")[2]
    is_single = config.num_labels == 1
    if name is None or kind == "Identity" or (kind == "Sigmoid" and not is_single):
        return False  # of several labels a bundle gives probabilities anyway
    if kind != "Sigmoid":
        raise InputError(f"{source}: config.json: activation_fn {name!r}: Identity or Sigmoid only")
    return True


def _to_probability(model: PreTrainedModel, inputs: Any, output: Any) -> Any:
    output.logits = output.logits.sigmoid()
    return output


def _load_classifier(path: Path) -> PreTrainedModel:
    config = load_config(path)
    is_choice = any(name.endswith("ForMultipleChoice") for name in config.architectures or ())
    if (
        config.problem_type == _PROBLEM_TYPES[REGRESSION]
        and config.num_labels != 1
        and not is_choice
    ):
        raise InputError(f"{path}: regression of {config.num_labels} numbers; expected one")
    auto_model = AutoModelForMultipleChoice if is_choice else AutoModelForSequenceClassification
    model, missing = load_weights(auto_model, path)
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
        task: One whose models are sequence classifiers, or multiple choice.
        names: Names of the outputs, by index; of choices there are none.
        settings: What else `from_pretrained` takes.

    Raises:
        InputError: The encoder's own weights are missing, or of other shapes than it has.
    """
    auto_model = AutoModelForMultipleChoice
    if not task.is_choice:
        auto_model = AutoModelForSequenceClassification
        settings |= {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": _PROBLEM_TYPES[task],
        }
    model, report = load_pretrained(
        auto_model, path, output_loading_info=True, ignore_mismatched_sizes=True, **settings
    )
    _check_encoder_is_whole(model, report, path)
    if not task.is_choice:
        for setting in _ACTIVATION_SETTINGS:  # of another head
            if hasattr(model.config, setting):
                setattr(model.config, setting, None)
    restore_reduction(model, path)
    return model


def _check_encoder_is_whole(model: PreTrainedModel, report: dict[str, Any], path: Path) -> None:
    """Refuse weights of the encoder that a library made anew; a pooler is part of a head."""
    anew = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    encoder = f"{model.base_model_prefix}."
    if lost := sorted(n for n in anew if n.startswith(encoder) and ".pooler." not in n):
        raise InputError(
            f"{path}: no weights of the shape that config.json describes for {lost[0]}"
            + (f" and {len(lost) - 1:,} others" if lost[1:] else "")
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
        InputError: The directory has no fast tokenizer, or one that cannot be read.
    """
    tokenizer = open_tokenizer(path)
    return serialize_tokenizer(tokenizer), tokenizer.model_max_length


def open_tokenizer(path: Path, *, may_convert: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer of a model directory, as transformers and sentence-transformers open it.

    Args:
        path: The directory.
        may_convert: Whether a slow tokenizer will do, which transformers converts to a fast one.

    Raises:
        InputError: The directory has no fast tokenizer, or one that cannot be read.
    """
    directory = encoder_directory(path)
    file = directory / TOKENIZER_FILE
    if not file.is_file() and is_adapter(directory):
        directory = adapter_base(directory)
        file = directory / TOKENIZER_FILE
    is_slow = may_convert and any(any(directory.glob(name)) for name in _SLOW_FILES)
    if not file.is_file() and not is_slow:  # transformers would make one up
        raise InputError(f"{path}: has no tokenizer.json; save it with a fast tokenizer")
    check_files(directory)
    if file.is_file():
        with naming_file(file):  # transformers would make up another one, in silence
            Tokenizer.from_file(str(file))
    with naming_file(directory):
        tokenizer = AutoTokenizer.from_pretrained(directory)
    if lowers_case(path):
        backend = tokenizer.backend_tokenizer
        others = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
    return tokenizer


def serialize_tokenizer(tokenizer: PreTrainedTokenizerFast) -> str:
    """A tokenizer as one JSON text, with what transformers keeps beside it.

    That is the side that long texts are cut on, and whether the two texts of a pair are told apart
    by token types.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    truncation = backend.truncation or {"max_length": tokenizer.model_max_length}
    if tokenizer.truncation_side != truncation.get("direction", "right"):
        max_length = min(truncation["max_length"], _NO_LIMIT)
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    serialized = backend.to_str()
    if "token_type_ids" in tokenizer.model_input_names:
        return serialized
    parts = json.loads(serialized)
    parts["post_processor"] = without_types(parts["post_processor"])
    return json.dumps(parts, ensure_ascii=False)


def save_tokenizer(serialized: str, directory: Path) -> None:
    """Save what `serialize_tokenizer` made, so that `load_tokenizer` reads the same.

    Whether a tokenizer gives token types is decided by transformers' class for the architecture,
    unless a file beside the tokenizer says it.
    """
    (directory / TOKENIZER_FILE).write_text(serialized, encoding="utf-8")
    post_processor = json.loads(serialized)["post_processor"]
    has_types = post_processor != without_types(post_processor)
    types = ["token_type_ids"] if has_types else []
    inputs = {"model_input_names": ["input_ids", *types, "attention_mask"]}
    (directory / _SETTINGS_FILE).write_text(json.dumps(inputs), encoding="utf-8")


def default_max_length(model: PreTrainedModel, tokenizer_limit: int) -> int:
    """Tokens to which texts are truncated where the user does not say it.

    Args:
        model: Model that reads the texts.
        tokenizer_limit: Tokens that its tokenizer truncates to.
    """
    longest = min(tokenizer_limit, max_positions(model.config))
    if isinstance(model, SentenceEncoder):
        return min(longest, model.max_length or longest)
    return longest


def class_names(config: PretrainedConfig) -> tuple[str, ...]:
    """The model's label names by class index."""
    return tuple(str(config.id2label[index]) for index in range(config.num_labels))
