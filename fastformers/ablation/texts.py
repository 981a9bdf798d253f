"""Load the texts that an ablation is timed on, and time their tokenization.

    evaluation file -> [texts] -> texts, token ids, seconds -> from_models, from_shapes

This module knows nothing of models or steps.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from fastformers.data.examples import Columns, Examples
from fastformers.data.superglue import load_labeled
from fastformers.errors import InputError
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer
from fastformers.options import check_at_least, option

_WARM_UP_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class TextsConfig:
    """Texts to use, and how many of them the slowest steps time.

    Without a file, only the lengths of texts matter.

    Attributes:
        columns: Columns of the file.
    """

    eval: Path | None = field(
        default=None,
        metadata=option("labeled files: the texts that are timed (none)", metavar="FILE"),
    )
    columns: Columns = field(default=Columns())
    max_length: int | None = field(
        default=None, metadata=option("tokens to truncate and pad to (the model's limit)")
    )
    limit: int | None = field(
        default=None,
        metadata=option("number of rows of --eval, evenly spaced (all)", metavar="ROWS"),
    )
    baseline_rows: int = field(
        default=200,
        metadata=option(
            "texts to time in the teacher's steps; the rest is scaled, and its row says so",
            metavar="ROWS",
        ),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 4, "max_length")
        check_at_least(self, 1, "limit", "baseline_rows")


@dataclass(frozen=True, kw_only=True)
class TimedRows:
    """Texts as a model's own tokenizer splits them.

    Attributes:
        rows: Token ids of the N texts.
        tokenization_s: Seconds that their tokenization took on all cores; None for ids that came
            from no text.
    """

    rows: TokenizedRows
    tokenization_s: float | None


# The texts, and the file that they come from, for messages.
LabeledTexts = tuple[Examples, Path]


def load_texts(config: TextsConfig) -> LabeledTexts:
    """Read the labeled texts.

    Raises:
        InputError: No file was given, or it cannot be used.
    """
    if config.eval is None:
        raise InputError("--eval is missing; give a labeled file")
    examples = load_labeled(config.eval, config.columns)
    return (examples if config.limit is None else examples.sample(config.limit)), config.eval


def time_tokenization(examples: Examples, tokenizer_json: str, max_length: int) -> TimedRows:
    """Tokenize all texts once, after a few that warm up."""
    tokenizer = Tokenizer(tokenizer_json, max_length=max_length)
    few = examples.sample(_WARM_UP_ROWS)
    tokenizer.encode(few.texts, few.text_pairs)
    start = time.perf_counter()
    rows = tokenizer.encode(examples.texts, examples.text_pairs)
    return TimedRows(rows=rows, tokenization_s=time.perf_counter() - start)
