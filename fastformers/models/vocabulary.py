"""Trim a WordPiece vocabulary to what a corpus uses.

    teacher -> [vocabulary] -> teacher with fewer words -> distill, prune, export

The embedding table is much of a small model: MiniLM's 30,522 words are half of its weights. Words
that the training texts never use are dropped; ASCII characters stay, so that any text of these can
still be spelled. This module knows nothing of graphs or stages.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.errors import InputError


def trim_tokenizer(
    tokenizer_json: str, counts_V: NDArray[np.int64], *, max_words: int
) -> tuple[str, NDArray[np.intp]]:
    """Keep special tokens, ASCII characters and the most frequent words.

    Args:
        tokenizer_json: Serialized `tokenizers` tokenizer with a WordPiece model.
        counts_V: Number of times that each token occurs in the training texts.
        max_words: Upper bound on the size of the new vocabulary.

    Returns:
        The trimmed tokenizer, and for each new id the old one, ascending.

    Raises:
        InputError: The tokenizer is not WordPiece or adds its special tokens in an unknown way, or
            `max_words` is less than must stay.
    """
    tokenizer = json.loads(tokenizer_json)
    if tokenizer["model"]["type"] != "WordPiece":
        raise InputError(
            f"--trim-vocabulary: the tokenizer is {tokenizer['model']['type']}, not WordPiece; "
            "leave the option out"
        )
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer["added_tokens"]}
    letters = {
        index
        for word, index in vocabulary.items()
        if len(word.removeprefix("##")) == 1 and word.isascii()
    }
    kept = special | letters | {vocabulary[tokenizer["model"]["unk_token"]]}
    if len(kept) > max_words:
        raise InputError(f"--trim-vocabulary {max_words}: give at least {len(kept)}")
    for index in np.argsort(-counts_V, kind="stable").tolist():
        if len(kept) == max_words or counts_V[index] == 0:
            break
        kept.add(index)
    old_ids = sorted(kept)
    new_id = {old: new for new, old in enumerate(old_ids)}
    tokenizer["model"]["vocab"] = {
        word: new_id[old] for word, old in vocabulary.items() if old in new_id
    }
    for token in tokenizer["added_tokens"]:
        token["id"] = new_id[token["id"]]
    _renumber_template(tokenizer["post_processor"], new_id)
    return json.dumps(tokenizer, ensure_ascii=False), np.array(old_ids, np.intp)


def without_types(post_processor: dict[str, Any] | None) -> dict[str, Any]:
    """A post-processor of a serialized tokenizer, changed to give each token the first type."""
    match post_processor:
        case None:
            text, text_pair = ({"Sequence": {"id": one, "type_id": 0}} for one in "AB")
            return {
                "type": "TemplateProcessing",
                "single": [text],
                "pair": [text, text_pair],
                "special_tokens": {},
            }
        case {"type": "BertProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id]}:
            first, end = ({"SpecialToken": {"id": one, "type_id": 0}} for one in (cls, sep))
            text, text_pair = ({"Sequence": {"id": one, "type_id": 0}} for one in "AB")
            return {
                "type": "TemplateProcessing",
                "single": [first, text, end],
                "pair": [first, text, end, text_pair, end],
                "special_tokens": {
                    token: {"id": token, "ids": [token_id], "tokens": [token]}
                    for token, token_id in ((cls, cls_id), (sep, sep_id))
                },
            }
        case {"type": "TemplateProcessing", "single": single, "pair": pair}:
            pieces = {"single": single, "pair": pair}
            return post_processor | {
                name: [
                    {kind: {**fields, "type_id": 0} for kind, fields in piece.items()}
                    for piece in template
                ]
                for name, template in pieces.items()
            }
        case {"type": "Sequence", "processors": list(processors)}:
            return post_processor | {"processors": [without_types(one) for one in processors]}
        case _:  # RoBERTa's gives no types, and that for bytes changes no token
            return post_processor


def type_pairs(tokenizer_json: str) -> str:
    """A serialized tokenizer that gives the second text of a pair, and what follows it, type 1.

    Token ids stay as they are, so a model without token types reads what it read before.
    """
    parts = json.loads(tokenizer_json)
    parts["post_processor"] = _with_types(parts["post_processor"])
    return json.dumps(parts, ensure_ascii=False)


def _with_types(post_processor: Any) -> Any:
    match post_processor:
        case {"type": "RobertaProcessing", "sep": sep, "cls": cls}:
            template = without_types({"type": "BertProcessing", "sep": sep, "cls": cls})
            first, text, end, *others = template["pair"]
            return _with_types(template | {"pair": [first, text, end, end, *others]})
        case {"type": "TemplateProcessing", "pair": pair}:
            second = [piece.get("Sequence", {}).get("id") for piece in pair].index("B")
            typed = [
                {kind: {**fields, "type_id": int(at >= second)} for kind, fields in piece.items()}
                for at, piece in enumerate(pair)
            ]
            return post_processor | {"pair": typed}
        case {"type": "Sequence", "processors": list(processors)}:
            return post_processor | {"processors": [_with_types(one) for one in processors]}
        case _:  # BERT's gives types, and so does the library itself where there is no processor
            return post_processor


def trim_embeddings(model: PreTrainedModel, old_ids: Sequence[int] | NDArray[np.intp]) -> None:
    """Keep only the given rows of the model's token embeddings, in that order."""
    embeddings = model.get_input_embeddings()
    kept = torch.nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        embeddings.weight.detach()[torch.as_tensor(np.asarray(old_ids))].clone(), freeze=False
    )
    model.set_input_embeddings(kept)
    model.config.vocab_size = len(old_ids)


def _renumber_template(post_processor: dict[str, object] | None, new_id: dict[int, int]) -> None:
    match post_processor:
        case {"type": "TemplateProcessing", "special_tokens": dict(specials)}:
            for special in specials.values():
                special["ids"] = [new_id[old] for old in special["ids"]]
        case {"type": "BertProcessing", "sep": list(sep), "cls": list(cls)}:
            sep[1], cls[1] = new_id[sep[1]], new_id[cls[1]]
        case _:
            raise InputError(
                "--trim-vocabulary: the tokenizer adds its special tokens in an unknown way; "
                "leave the option out"
            )
