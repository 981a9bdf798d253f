"""Tiny PyTorch classifiers of random weights, for the tests of the offline half."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as HfTokenizer

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # 0.02, the usual, gives all texts nearly the same logits
}
# RoBERTa counts positions from the number after its padding id.
ROBERTA = {"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 66}
# Prefix of the class names of each supported `model_type`, and its changes to SHAPE.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    # The settings of microsoft/deberta-v3-base, but 16 buckets: each offset up to 8 has its own.
    "deberta-v2": (
        "DebertaV2",
        {
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": "p2c|c2p",
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_buckets": 16,
        },
    ),
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "electra": ("Electra", {}),
    # Three layers: all tokens attend to each other in the first, only a window in the others.
    "modernbert": (
        "ModernBert",
        {
            "num_hidden_layers": 3,
            "local_attention": 8,
            "pad_token_id": 0,
            "cls_token_id": 2,
            "bos_token_id": 2,
            "sep_token_id": 3,
            "eos_token_id": 3,
            "initializer_cutoff_factor": 3.0,
        },
    ),
    "mpnet": ("MPNet", {"max_position_embeddings": 66}),  # two of them are never used
    "roberta": ("Roberta", ROBERTA),
    "xlm-roberta": ("XLMRoberta", ROBERTA),
}


@pytest.fixture(scope="session")
def make_teacher(tokenizer_json: str) -> Callable[..., Any]:
    """A classifier in eval mode; `architecture` is the prefix of its class names."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # more threads would cost more than they gain on such small models

    def make(
        architecture: str = "Bert",
        *,
        labels: tuple[str, ...] = ("no", "yes"),
        head: str = "SequenceClassification",
        **shape: Any,
    ):
        config = getattr(transformers, f"{architecture}Config")(
            **{
                "vocab_size": HfTokenizer.from_str(tokenizer_json).get_vocab_size(),
                **SHAPE,
                "id2label": dict(enumerate(labels)),
                "label2id": {label: index for index, label in enumerate(labels)},
                **shape,
            }
        )
        torch.manual_seed(0)
        model = getattr(transformers, f"{architecture}For{head}")(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero in a new model, so a forgotten one would not show
                torch.nn.init.normal_(parameter, std=0.3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_model(make_teacher) -> Callable[..., Any]:
    """Like `make_teacher`, by the `model_type` of a supported architecture and changes to it."""

    def make(model_type: str = "bert", **changes: Any):
        architecture, shape = ARCHITECTURES[model_type]
        return make_teacher(architecture, **{**shape, **changes})

    return make


@pytest.fixture(scope="session")
def save_teacher(make_teacher, tokenizer_json) -> Callable[..., Path]:
    """Like `make_teacher`; saves the model or its encoder to a directory, with a tokenizer."""
    transformers = pytest.importorskip("transformers")

    def save(
        path: Path, architecture: str = "Bert", *, encoder_only: bool = False, **shape: Any
    ) -> Path:
        model = make_teacher(architecture, **shape)
        (model.base_model if encoder_only else model).save_pretrained(path)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=HfTokenizer.from_str(tokenizer_json),
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        ).save_pretrained(path)
        return path

    return save


@pytest.fixture(scope="session")
def make_texts() -> Callable[..., list[str]]:
    """Random texts of the words that the tiny tokenizer knows, the same ones each time."""
    words = [
        "the",
        "a",
        "of",
        "to",
        "and",
        "in",
        "is",
        "it",
        "on",
        "cat",
        "dog",
        "sat",
        "mat",
        "ran",
        "fast",
        "slow",
        "good",
        "bad",
        "film",
        "text",
    ]

    def make(num_rows: int, *, max_words: int = 30, seed: int = 0) -> list[str]:
        rng = np.random.default_rng(seed)
        return [" ".join(rng.choice(words, rng.integers(1, max_words))) for _ in range(num_rows)]

    return make


@pytest.fixture(params=["Bert", "Roberta", "XLMRoberta", "DistilBert", "Electra"])
def make_prunable(request, make_teacher) -> Callable[..., Any]:
    """Like `make_teacher`, for each architecture that can be pruned, by BERT's names of a shape."""

    def make(
        *, num_hidden_layers: int = 3, num_attention_heads: int = 4, intermediate_size: int = 48
    ):
        shape: dict[str, Any] = {
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "intermediate_size": intermediate_size,
        }
        if request.param == "DistilBert":
            shape = {
                "n_layers": num_hidden_layers,
                "n_heads": num_attention_heads,
                "hidden_dim": intermediate_size,
                "num_hidden_layers": num_hidden_layers,
                "num_attention_heads": num_attention_heads,
                "dim": 32,
            }
        if "Roberta" in request.param:
            shape |= ROBERTA
        if request.param == "Electra":
            shape["embedding_size"] = 8
        return make_teacher(request.param, labels=("a", "b", "c"), **shape)

    return make
