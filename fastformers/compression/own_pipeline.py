"""Compare what a teacher gives here with what its own libraries give, before anything is trained.

    teacher directory + training texts -> [own_pipeline] -> compress

A teacher's tokenizer, its settings and its code are read by other code here than where it was made,
and the gate cannot see a difference: it judges students by the teacher as it was read. So token
ids, token types and outputs are compared with those of transformers' own tokenizer and model, or of
sentence-transformers' `encode` where that is installed, on training texts and on texts that are odd
in every way that is known to matter. This module knows nothing of stages.

Shape suffixes: N rows, C outputs, D embedding width.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from fastformers.compression.artifact import ModelArtifact
from fastformers.data.examples import Examples
from fastformers.errors import InputError
from fastformers.inference.tasks import EMBEDDING
from fastformers.models.forward import count_embeddings, predict_logits, takes_token_types
from fastformers.models.loading import gives_probability, open_tokenizer, task_of
from fastformers.models.model_files import is_adapter
from fastformers.models.variants.token_reduction import reduction_of

# Texts of scraped pages, logs and other languages on which readers are known to differ.
ODD_TEXTS = (
    "",
    " ",
    "  two  spaces,\ttabs\nand lines \r\n\f end ",
    "don't CAN'T \u2019quoted\u2018 \u201cmore\u201d \u2014 1,234.50 \u20ac 50% a_b-c/d\\e",
    "caf\u00e9 cafe\u0301 Z\u0335a\u0337l\u0334go \u0130stanbul \u03a3\u039f\u03a3 \ufb01ne \u01c5",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 :)",
    "\u4e2d\u6587 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22",
    "\u0639\u0631\u0628\u0649 \u0939\u093f\u0928\u094d\u0926\u0940 \u05e2\u05d1\u05e8\u05d9\u05ea",
    "\u00a0nbsp\u2003em\u3000wide\u200bzero\ufeffbom\u2028line\x00nul\x07bell\x85next",
    "<s> <pad> </s> <unk> <mask> [CLS] [PAD] [SEP] [UNK] [MASK] <|endoftext|> ##ing",
    "\u2581a \u2581\u2581b \u0120c $ {} [] <> &amp; http://example.org/?q=1#x @user #tag",
    "x" * 300,
)
_NUM_TRAINING_ROWS, _NUM_COMPARED_OUTPUTS = 64, 8
# Outputs are compared for few rows of many tokens, so that a check takes seconds: one row of 8,192
# tokens would take a minute.
_MAX_OUTPUT_TOKENS, _LONG_ROW, _NUM_LONG_ROWS = 1024, 256, 2
# Share of the largest output. Kernels for padded and for unpadded rows add in different orders.
_MAX_ERROR = 1e-3


def check_own_pipeline(path: Path, artifact: ModelArtifact) -> None:
    """Refuse a teacher that would be read otherwise here than by its own libraries.

    Args:
        path: The teacher's directory.
        artifact: The teacher as it is read here, with its training examples.

    Raises:
        InputError: Token ids, token types or outputs differ; names the text and both.
    """
    tokenizer = open_tokenizer(path)
    sample, odd = artifact.train.sample(_NUM_TRAINING_ROWS), odd_examples(artifact)
    for examples in (sample, odd):
        _check_tokens(path, tokenizer, artifact, examples)
    few = artifact.train.sample(_NUM_COMPARED_OUTPUTS)
    compared = rows_for_outputs(artifact, few.joined(odd))
    if len(compared) == 0:
        return
    expected_NC = _own_outputs(path, tokenizer, artifact, compared)
    found_NC = predict_logits(artifact.model, artifact.tokenize(compared))
    _check_outputs(path, compared, expected_NC, found_NC)


def odd_examples(artifact: ModelArtifact) -> Examples:
    """Made texts, or pairs of them: odd ones, the tokenizer's own special tokens, and long ones."""
    tokens = json.loads(artifact.tokenizer_json)["added_tokens"]
    specials = " ".join(token["content"] for token in tokens[:50])
    texts = [*ODD_TEXTS, f"the {specials} end", specials]
    words = [f"word{index} {ODD_TEXTS[3]}" for index in range(artifact.max_length // 8 + 1)]
    # A text with positions beyond those of short ones, and one that is cut.
    middle = " ".join(words[: min(artifact.max_length, _MAX_OUTPUT_TOKENS) // 40])
    long = " ".join(words)
    if not artifact.text_pairs:
        return _without_labels([*texts, middle, long], None)
    firsts = [*texts, middle, long, long, "short", long]
    return _without_labels(firsts, [*texts[3:], *texts[:3], middle, long, "short", long, ""])


def rows_for_outputs(artifact: ModelArtifact, examples: Examples) -> Examples:
    """The examples that a model can be run on in a moment, and has embeddings for."""
    rows = artifact.tokenize(examples)
    vocab_size = count_embeddings(artifact.model)
    chosen: list[int] = []
    num_long = 0
    for row, length in enumerate(rows.lengths_N.tolist()):
        ids = rows.ids[rows.offsets[row] : rows.offsets[row + 1]]
        num_long += length > _LONG_ROW
        is_short = length <= _LONG_ROW or (
            length <= _MAX_OUTPUT_TOKENS and num_long <= _NUM_LONG_ROWS
        )
        if length > 0 and is_short and ids.max() < vocab_size:
            chosen.append(row)
    return examples.take(chosen)


def show_example(examples: Examples, row: int) -> str:
    """A text, or a pair of them, cut short for a message."""
    columns = (examples.texts, examples.text_pairs)
    texts = [column[row] for column in columns if column is not None]
    return " + ".join(ascii(text if len(text) <= 50 else f"{text[:47]}...") for text in texts)


def _check_tokens(
    path: Path,
    tokenizer: PreTrainedTokenizerFast,
    artifact: ModelArtifact,
    examples: Examples,
) -> None:
    """Compare ids, and types where the model takes them."""
    rows = artifact.tokenize(examples)
    has_types = takes_token_types(artifact.model)
    for row in range(len(examples)):
        own = _tokenize(tokenizer, examples, row, artifact.max_length)
        expected = np.array(own["input_ids"][0], np.int64)
        found = rows.ids[rows.offsets[row] : rows.offsets[row + 1]].astype(np.int64)
        _check_same(path, "token ids", expected, found, examples, row)
        if has_types:
            expected = np.array(own.get("token_type_ids", [[0] * len(expected)])[0], np.int64)
            found = rows.batch_types(np.array([row]))[0]
            _check_same(path, "token types", expected, found, examples, row)


def _tokenize(
    tokenizer: PreTrainedTokenizerFast,
    examples: Examples,
    row: int,
    max_length: int,
    *,
    return_tensors: str | None = None,
) -> Any:
    """One row as the teacher's own tokenizer reads it, in a batch of its own."""
    return tokenizer(
        examples.texts[row : row + 1],
        None if examples.text_pairs is None else examples.text_pairs[row : row + 1],
        truncation=True,
        max_length=max_length,
        return_tensors=return_tensors,
    )


def _check_same(
    path: Path,
    what: str,
    expected: NDArray[np.int64],
    found: NDArray[np.int64],
    examples: Examples,
    row: int,
) -> None:
    if np.array_equal(expected, found):
        return
    at = int(np.argmax(~np.equal(*_padded(expected, found))))
    raise InputError(
        f"{path}: a bundle would read {show_example(examples, row)} otherwise than the teacher's "
        f"own tokenizer: {what} {found[at : at + 4].tolist()} in place of "
        f"{expected[at : at + 4].tolist()} from token {at} on; a bundle cannot keep a setting of "
        "tokenizer_config.json, such as split_special_tokens: leave it out"
    )


def _padded(*rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    length = max(map(len, rows))
    return [np.pad(row, (0, length - len(row)), constant_values=-1) for row in rows]


def _own_outputs(
    path: Path, tokenizer: PreTrainedTokenizerFast, artifact: ModelArtifact, examples: Examples
) -> NDArray[np.float32]:
    """Outputs (N, C) of the teacher's own libraries, one row at a time."""
    task = task_of(artifact.model)
    reduces = reduction_of(artifact.model.config).reduces  # its own libraries would not
    has_library = importlib.util.find_spec("sentence_transformers") is not None
    if task == EMBEDDING and has_library and not reduces:
        return _own_embeddings(path, artifact.max_length, examples.texts)
    model: PreTrainedModel = artifact.model
    if task != EMBEDDING and not is_adapter(path):
        auto = AutoModelForMultipleChoice if task.is_choice else AutoModelForSequenceClassification
        if getattr(model.config, "pruned_layers", None) is None and not reduces:
            model = auto.from_pretrained(path, dtype=torch.float32).eval()
    outputs: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for row in range(len(examples)):
            own = _tokenize(tokenizer, examples, row, artifact.max_length, return_tensors="pt")
            if not takes_token_types(artifact.model):
                own.pop("token_type_ids", None)  # a tokenizer of another architecture gives them
            if task.is_choice:
                own = {name: values[:, None] for name, values in own.items()}
            outputs.append(model(**own).logits.float().numpy())
    outputs_NC = np.concatenate(outputs)
    if model is not artifact.model and gives_probability(model.config):
        outputs_NC = torch.from_numpy(outputs_NC).sigmoid().numpy()
    return outputs_NC


def _own_embeddings(path: Path, max_length: int, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors (N, D) of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(path), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    model.max_seq_length = max_length
    vectors: NDArray[np.float32] = model.encode(list(texts), batch_size=1, show_progress_bar=False)
    return vectors


def _check_outputs(
    path: Path,
    examples: Examples,
    expected_NC: NDArray[np.float32],
    found_NC: NDArray[np.float32],
) -> None:
    if expected_NC.shape != found_NC.shape:
        raise InputError(
            f"{path}: a bundle would give {found_NC.shape[1]} numbers for a text and the teacher's "
            f"own library gives {expected_NC.shape[1]}"
        )
    errors_N = np.abs(expected_NC - found_NC).max(axis=1)
    row = int(np.nan_to_num(errors_N, nan=np.inf).argmax())
    if not errors_N[row] <= _MAX_ERROR * max(1.0, float(np.abs(expected_NC).max())):
        raise InputError(
            f"{path}: a bundle would give {_round(found_NC[row])} for "
            f"{show_example(examples, row)} and the teacher's own library gives "
            f"{_round(expected_NC[row])}: a setting of its configuration is not known here; please "
            "report it with config.json"
        )


def _round(values_C: NDArray[np.float32]) -> list[float]:
    return [round(value, 4) for value in values_C[:3].tolist()]


def _without_labels(texts: list[str], text_pairs: list[str] | None) -> Examples:
    return Examples(texts=texts, text_pairs=text_pairs, labels=[None] * len(texts))
