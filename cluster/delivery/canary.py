"""A few rows whose logits are known, to find a machine that computes other ones.

    bundle, engine -> [canary] -> Canary -> the same bundle and engine elsewhere -> what differs

The rows are texts, so that the tokenizer is compared as well, and made-up token ids of several
lengths. This module knows nothing of how a canary travels.

Even with equal versions, two CPUs differ in the last bits of a float, because sums are added in
vectors of another width: an emulated Haswell (AVX2) against a Zen 5 (AVX-512) by 7e-7 of the
logits' spread in float32, far below the 1e-3 that is allowed. In int8 the products are exact
everywhere (see `export/int8.py`) and the logits of three bundles were equal to the bit there, but a
float in between can fall on the other side of a rounding step: noise of 1e-6 in all float weights
moved logits by up to 1.0% of their spread, noise of 1e-4 by up to 2.2%. A matrix that is negated or
zeroed moves them by 4 to 120%, so 3% is allowed (onnxruntime 1.32, 2026-11-26). What is less cannot
be told from rounding, and files with changed bytes are found by their SHA-256. Labels are not
compared: logits that agree have the same label, except where two labels tie.

Shape suffixes: N rows, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import BundleError
from fastformers.inference.bundle import Bundle
from fastformers.inference.cascade.record import first_graph, second_graph
from fastformers.inference.description.further_graph import choose_graph
from fastformers.inference.scorer import ScoredRows, Scorer, open_scorer
from fastformers.inference.tokenizer import TokenizedRows

_TEXTS = (
    "the cat",
    "The cat sat on the mat.",
    "Prices rose by 3.5% in 2024; nobody knows why!",
    "Être ou ne pas être, voilà la question: 多语言文本.",
)
_MADE_UP_LENGTHS = (4, 16, 16, 48, 96)
_SHARE_OF_SPREAD, _SHARE_IN_INT8 = {"float32": 1e-3, "float16": 1e-2}, 0.03
_SHARE_ON_GPU = 1e-2  # float16, or float32 with tensor cores; the driver computes it on a CPU


@dataclass(frozen=True, kw_only=True, eq=False)
class Canary:
    """Rows with their logits.

    Attributes:
        engine: Name of the engine that computes them.
        precision: Precision of the graph that it runs.
        rows: Token ids of the texts, then rows of made-up ids between the same special tokens.
        logits_NC: Logits of the rows, NaN in a row that cannot be scored.
        tolerance: Largest difference of two logits that is rounding.
        second: Canary of a cascade's second graph. Each graph is compared by itself: where rounding
            alone sends a row on, its logits are others, and rightly so.
    """

    engine: str
    precision: str
    rows: TokenizedRows
    logits_NC: NDArray[np.float32]
    tolerance: float
    second: "Canary | None" = None


def make_canary(
    bundle: Bundle, engine: str, *, precision: str | None = None, computed_by: str | None = None
) -> Canary:
    """Score the rows with one thread; about 250 tokens.

    Args:
        bundle: Bundle of the run.
        engine: Engine of the machines that are compared.
        precision: Precision of the graph that they run; that of the cost profile by default.
        computed_by: Engine of this machine, where it has no GPU and the others score on one.

    Raises:
        BundleError: The engine cannot load the bundle, or cannot score any of the rows.
        InputError: The engine is not installed.
    """
    precision = precision or bundle.precision
    scorer = _open_scorer(bundle, computed_by or engine, precision)
    rows = _add_made_up_rows(_tokenize(scorer), bundle, scorer.tokenizer.vocab_size)
    scored = _score(scorer, rows)
    logits_NC = scored.logits_UC
    if np.isnan(logits_NC).all():
        raise BundleError(f"{bundle}: {engine} cannot score a row: {scored.errors[0]}")
    spread, largest = float(np.ptp(logits_NC[~np.isnan(logits_NC)])), np.nanmax(np.abs(logits_NC))
    # Where all logits are alike, rounding is a share of the logits themselves.
    scale = max(spread, 0.01 * float(largest))
    share = _SHARE_OF_SPREAD.get(precision, _SHARE_IN_INT8)
    return Canary(
        engine=engine,
        precision=precision,
        rows=rows,
        logits_NC=logits_NC,
        tolerance=(share if computed_by is None else max(share, _SHARE_ON_GPU)) * scale,
        second=None if bundle.cascade is None else make_canary(second_graph(bundle), engine),
    )


def find_difference(bundle: Bundle, canary: Canary) -> str | None:
    """What this machine computes otherwise than the one that made the canary; None if nothing.

    Raises:
        BundleError: The engine cannot load the bundle.
        InputError: The engine is not installed.
    """
    scorer = _open_scorer(bundle, canary.engine, canary.precision)
    here, there = _tokenize(scorer), canary.rows.slice(0, len(_TEXTS))
    if not np.array_equal(here.offsets, there.offsets) or not np.array_equal(here.ids, there.ids):
        return "other token ids of the same text"
    scored = _score(scorer, canary.rows)
    here_NC, there_NC = scored.logits_UC, canary.logits_NC
    # A row that fails on one side alone differs without bound; one that fails on both is equal.
    apart_NC = np.where(np.isnan(here_NC) ^ np.isnan(there_NC), np.inf, np.abs(here_NC - there_NC))
    apart_NC[np.isnan(here_NC) & np.isnan(there_NC)] = 0
    row, column = np.unravel_index(np.argmax(apart_NC), apart_NC.shape)
    if apart_NC[row, column] <= canary.tolerance:
        second = canary.second
        return None if second is None else find_difference(second_graph(bundle), second)
    reason = scored.errors.get(int(row))
    return (
        f"a score of {here_NC[row, column]:.4g}, expected {there_NC[row, column]:.4g} within "
        f"{canary.tolerance:.2g} ({scorer.engine.name})" + ("" if reason is None else f"; {reason}")
    )


def _open_scorer(bundle: Bundle, engine: str, precision: str) -> Scorer:
    """A Scorer of one graph alone."""
    return open_scorer(first_graph(choose_graph(bundle, precision)), engine, num_threads=1)


def _tokenize(scorer: Scorer) -> TokenizedRows:
    return scorer.tokenizer.encode(_TEXTS, _TEXTS[::-1] if scorer.bundle.text_pairs else None)


def _score(scorer: Scorer, rows: TokenizedRows) -> ScoredRows:
    """Score the rows in batches that depend on their lengths alone."""
    return scorer.score_tokens(rows, max_batch_tokens=2 * int(rows.lengths_N.max()))


def _add_made_up_rows(texts: TokenizedRows, bundle: Bundle, vocab_size: int) -> TokenizedRows:
    """The rows of the texts, and then rows of any ids between their first and last token."""
    rng = np.random.default_rng(0)
    lengths = [min(length, bundle.max_length) for length in _MADE_UP_LENGTHS]
    ids = [rng.integers(0, vocab_size, length).astype(texts.ids.dtype) for length in lengths]
    for row in ids:
        row[0], row[-1] = texts.ids[0], texts.ids[-1]
    second_lengths = [length // 2 if bundle.text_pairs else 0 for length in lengths]
    return TokenizedRows(
        ids=np.concatenate([texts.ids, *ids]),
        offsets=np.concatenate([texts.offsets, texts.offsets[-1] + np.cumsum(lengths)]),
        second_lengths_N=np.concatenate(
            [texts.second_lengths_N, np.array(second_lengths, np.uint16)]
        ),
    )
