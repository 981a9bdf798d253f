"""Read a sentence-transformers directory: an encoder whose output is one vector for each text.

    sentence-transformers directory -> [sentence_encoder] -> loading -> student, graph

Such a directory lists its modules in modules.json. Those known here are Transformer, Pooling (first
token or mean), Dense and Normalize, in this order, the last two optional. They are read without the
sentence-transformers library, whose class names moved between its releases: a module is recognized
by the last part of its name. This module knows nothing of tokenizers or training.

Shape suffixes: B rows of a batch, T tokens, D embedding width.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from fastformers.errors import InputError
from fastformers.models.architectures.architecture import Pooling
from fastformers.models.checkpoint import load_weights
from fastformers.models.model_files import (
    MODULES_FILE,
    check_files,
    is_sentence_encoder,
    read_json,
)
from fastformers.models.variants.reduced_layers import reduced_layers

_SETTINGS_FILE = "sentence_bert_config.json"
_MODEL_SETTINGS_FILE = "config_sentence_transformers.json"
_PACKAGE = "sentence_transformers.models"
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
_POOLINGS: dict[str, Pooling] = {"cls": "first", "mean": "mean"}
# By module, settings that have one value here, which is also the default.
_FIXED_SETTINGS: dict[str, dict[str, str | None]] = {
    "": {"model_type": "SentenceTransformer"},
    "Transformer": {
        "transformer_task": "feature-extraction",
        "processing_kwargs": None,
        "query_length": None,
        "document_length": None,
        "query_expansion": None,
    },
    "Pooling": {},
    "Dense": {
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
        "use_residual": None,
    },
    "Normalize": {
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    },
}
_DENSE_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "GELU": nn.GELU,
    "ReLU": nn.ReLU,
}


@dataclass
class EmbeddingOutput:
    """Output of a SentenceEncoder, named as a classifier's: `logits` are the embeddings (B, D).

    The layers' hidden states (B, T, D) and attention (B, H, T, T) are there if asked for.
    """

    logits: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class SentenceEncoder(nn.Module):
    """An encoder, pooling, an optional projection, optional normalization to unit length."""

    def __init__(
        self,
        encoder: PreTrainedModel,
        *,
        pooling: Pooling,
        dense: tuple[nn.Linear, nn.Module] | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
        max_length: int | None = None,
    ) -> None:
        """Put the modules together.

        Args:
            encoder: A transformer without a head.
            pooling: Whether the vector of the first token is taken, or the mean of all tokens.
            dense: A linear layer and its activation, after the pooling.
            normalize: Whether the vector is divided by its length.
            truncate_dim: Number of values that are kept, after all else; None for all.
            max_length: Tokens that a text is truncated to; None for the tokenizer's own limit.
        """
        super().__init__()
        self.base_model = encoder
        self.pooling: Pooling = pooling
        self.dense = None if dense is None else nn.Sequential(*dense)
        self.normalize = normalize
        self.truncate_dim = truncate_dim
        self.max_length = max_length

    @property
    def config(self) -> PretrainedConfig:
        """Configuration of the encoder."""
        return self.base_model.config

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        device: torch.device = self.base_model.device
        return device

    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def get_input_embeddings(self) -> nn.Embedding:
        """Token embeddings of the encoder."""
        embeddings: nn.Embedding = self.base_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        """Replace the token embeddings of the encoder."""
        self.base_model.set_input_embeddings(embeddings)

    def set_attn_implementation(self, name: str) -> None:
        """Choose how the encoder computes attention."""
        self.base_model.set_attn_implementation(name)

    def forward(self, attention_mask: torch.Tensor | None = None, **inputs: Any) -> EmbeddingOutput:
        """Embed texts; the inputs are the encoder's, without a mask where rows have one length.

        Of a model that drops or pools tokens, the mean is that of the tokens it has left.
        """
        encoded = self.base_model(attention_mask=attention_mask, **inputs)
        hidden_BTD = encoded.last_hidden_state
        if (layers := reduced_layers(self)) is not None:
            attention_mask = layers.left_BK
        if self.pooling == "first":
            pooled = hidden_BTD[:, 0]
        elif attention_mask is None:
            pooled = hidden_BTD.mean(dim=1)
        else:
            mask_BT = attention_mask.to(hidden_BTD.dtype)
            pooled = (hidden_BTD * mask_BT[:, :, None]).sum(1) / mask_BT.sum(1, keepdim=True)
        if self.dense is not None:
            pooled = self.dense(pooled)
        if self.normalize:
            pooled = nn.functional.normalize(pooled, dim=-1)
        return EmbeddingOutput(
            logits=pooled[:, : self.truncate_dim],
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Save as a sentence-transformers directory; the tokenizer is not part of the encoder."""
        path = Path(path)
        self.base_model.save_pretrained(path)
        modules: list[tuple[str, str]] = [("Transformer", ""), ("Pooling", "1_Pooling")]
        mode = {"first": "cls", "mean": "mean"}[self.pooling]
        width = self.config.hidden_size
        fields: dict[str, object] = {"embedding_dimension": width, "pooling_mode": mode}
        _write_json(path / "1_Pooling" / "config.json", fields)
        if self.dense is not None:
            modules.append(("Dense", "2_Dense"))
            kind = type(self.dense[1])
            fields = {
                "in_features": self.dense[0].in_features,
                "out_features": self.dense[0].out_features,
                "bias": True,
                "activation_function": f"{kind.__module__}.{kind.__name__}",
            }
            _write_json(path / "2_Dense" / "config.json", fields)
            weights = {f"linear.{name}": w for name, w in self.dense[0].state_dict().items()}
            save_file(weights, path / "2_Dense" / "model.safetensors")
        if self.normalize:
            modules.append(("Normalize", "3_Normalize"))
        _write_json(
            path / MODULES_FILE,
            [
                {"idx": idx, "name": str(idx), "path": folder, "type": f"{_PACKAGE}.{kind}"}
                for idx, (kind, folder) in enumerate(modules)
            ],
        )
        _write_json(path / _SETTINGS_FILE, {"max_seq_length": self.max_length})
        _write_json(path / _MODEL_SETTINGS_FILE, {"truncate_dim": self.truncate_dim})


def encoder_directory(path: Path) -> Path:
    """Directory of the transformer and its tokenizer: of old releases one below, 0_Transformer.

    Raises:
        InputError: The modules of a sentence-transformers directory are not known here.
    """
    return _read_modules(path)["Transformer"] if is_sentence_encoder(path) else path


def lowers_case(path: Path) -> bool:
    """Whether texts are put into lower case before the tokenizer's own normalization."""
    return bool(read_json(_settings_file(encoder_directory(path))).get("do_lower_case"))


def load_sentence_encoder(path: Path) -> SentenceEncoder:
    """Load a sentence-transformers directory in eval mode.

    Raises:
        InputError: The directory has a module or setting that is not known here, or no weights.
    """
    modules = _read_modules(path)
    _check_settings(path, modules)
    pooling = _read_pooling(modules["Pooling"] / "config.json")
    encoder, missing = load_weights(AutoModel, modules["Transformer"])
    # BERT's own pooler is not used here.
    if missing := [name for name in missing if not name.startswith("pooler.")]:
        raise InputError(f"{path}: no weights for {', '.join(missing[:3])}")
    return SentenceEncoder(
        encoder,
        pooling=pooling,
        dense=_read_dense(modules["Dense"]) if "Dense" in modules else None,
        normalize="Normalize" in modules,
        truncate_dim=read_json(path / _MODEL_SETTINGS_FILE).get("truncate_dim"),
        max_length=read_json(_settings_file(modules["Transformer"])).get("max_seq_length"),
    ).eval()


def _read_modules(path: Path) -> dict[str, Path]:
    """Directory of each module by its kind."""
    file = path / MODULES_FILE
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        kinds = [module["type"].rpartition(".")[2] for module in listed]
        folders = [path / module["path"] for module in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a list of sentence-transformers modules") from error
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise InputError(f"{file}: module {unknown[0]!r} is not one of {', '.join(_KINDS)}")
    if kinds != [kind for kind in _KINDS if kind in kinds] or len(kinds) < 2:
        raise InputError(
            f"{file}: {', '.join(kinds)}: expected Transformer, Pooling, then optionally Dense and "
            "Normalize"
        )
    if kinds[1] != "Pooling":
        raise InputError(f"{file}: no Pooling after the Transformer")
    return dict(zip(kinds, folders, strict=True))


def _settings_file(folder: Path) -> Path:
    """Settings of the Transformer; old releases named the file by architecture."""
    return next(iter(sorted(folder.glob("sentence_*_config.json"))), folder / _SETTINGS_FILE)


def _check_settings(path: Path, modules: Mapping[str, Path]) -> None:
    """Refuse settings that change what is computed and that are not known here."""
    settings = read_json(path / _MODEL_SETTINGS_FILE)
    prompt = (settings.get("prompts") or {}).get(settings.get("default_prompt_name"))
    if prompt:
        raise InputError(
            f"{path}: puts {prompt!r} before each text by default; set default_prompt_name to null "
            f"in {_MODEL_SETTINGS_FILE} and put it into your texts"
        )
    files = {
        "": path / _MODEL_SETTINGS_FILE,
        "Transformer": _settings_file(modules["Transformer"]),
        **{kind: modules[kind] / "config.json" for kind in _KINDS[1:] if kind in modules},
    }
    for kind, file in files.items():
        for name, expected in _FIXED_SETTINGS[kind].items():
            value = read_json(file).get(name)
            if value and value != expected:
                raise InputError(f"{file}: {name} {value!r} is not supported; leave it out")


def _read_pooling(file: Path) -> Pooling:
    fields = read_json(file)
    prefix = "pooling_mode_"  # prefix of the flags in releases before 6
    flags = [key.removeprefix(prefix) for key, on in fields.items() if key[:13] == prefix and on]
    mode = str(fields.get("pooling_mode") or "+".join(flags))
    mode = {"cls_token": "cls", "mean_tokens": "mean"}.get(mode, mode)
    if mode not in _POOLINGS:
        raise InputError(f"{file}: pooling {mode!r} is not one of {', '.join(_POOLINGS)}")
    return _POOLINGS[mode]


def _read_dense(folder: Path) -> tuple[nn.Linear, nn.Module]:
    fields = read_json(folder / "config.json")
    activation = str(fields.get("activation_function")).rpartition(".")[2]
    if activation not in _DENSE_ACTIVATIONS:
        known = ", ".join(_DENSE_ACTIVATIONS)
        raise InputError(f"{folder}: Dense activation {activation!r} is not one of {known}")
    weights = _load_weights(folder)
    weight = weights["linear.weight"].float()
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        if "linear.bias" in weights:
            linear.bias.copy_(weights["linear.bias"])
        else:
            linear.bias.zero_()
    return linear, _DENSE_ACTIVATIONS[activation]()


def _load_weights(folder: Path) -> dict[str, torch.Tensor]:
    check_files(folder)
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    if not (folder / "pytorch_model.bin").is_file():
        raise InputError(f"{folder}: no model.safetensors or pytorch_model.bin")
    weights: dict[str, torch.Tensor] = torch.load(
        folder / "pytorch_model.bin", map_location="cpu", weights_only=True
    )
    return weights


def _write_json(file: Path, fields: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
