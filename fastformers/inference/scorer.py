"""Score texts with a bundle in this process: the whole online half without Ray.

    bundle + texts -> lengths -> batches -> [scorer] -> predictions

    scorer = fastformers.Scorer("bundle/")
    predictions = scorer.score(["a text", "another"])
    predictions.labels, predictions.probabilities

An actor of the cluster uses a Scorer on shards. A row that the engine cannot score is found by
halving its batch; the others are scored as if it were not there. This module knows nothing of
shards or files of predictions.

Shape suffixes: N rows, U rows with different token ids, B rows of a batch, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import InputError
from fastformers.inference.batching import plan_batches
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.engine import Engine, EngineError, OnnxEngine, run_batches
from fastformers.inference.tokenizer import TokenizedRows, find_unique


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions for N texts, in their order.

    Attributes:
        labels: Label of each text, or list of labels where several may be right; None where a text
            could not be scored, and for all where the task has no labels.
        probabilities: Probability (N,) of that label, or (N, C) of each label where several may be
            right; NaN where a text could not be scored, and for all where the task has no labels.
        logits_NC: Outputs of the graph: logits of all classes, a score (N, 1) or an embedding
            (N, D); NaN where a text could not be scored.
        errors: Reason why a text could not be scored, by its index.
    """

    labels: list[str | list[str] | None]
    probabilities: NDArray[np.float32]
    logits_NC: NDArray[np.float32]
    errors: dict[int, str]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Score (N,) of each text, for regression and multiple choice."""
        return self.logits_NC[:, 0]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Embedding (N, D) of each text."""
        return self.logits_NC


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Results of U tokenized rows, and the batches that they were computed in.

    Attributes:
        logits_UC: Logits (U, C), NaN where a row failed.
        errors: Reason why a row failed, by its position among the U.
        batches: Positions (B,) of the rows of each planned batch.
        computed_tokens: Tokens that each batch computed: rows x longest row.
    """

    logits_UC: NDArray[np.float32]
    errors: dict[int, str]
    batches: list[NDArray[np.intp]]
    computed_tokens: list[int]


class Scorer:
    """An opened bundle with its tokenizer and engine."""

    def __init__(
        self, bundle: Bundle | str | Path, *, num_threads: int = 1, engine: Engine | None = None
    ) -> None:
        """Open a bundle for scoring.

        Args:
            bundle: A bundle or its directory.
            num_threads: Threads of one batch.
            engine: Engine that runs the graph; ONNX Runtime on the CPU by default.

        Raises:
            BundleError: The bundle is missing or damaged.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.tokenizer = self.bundle.load_tokenizer()
        self.engine = engine or OnnxEngine(self.bundle.model_path, num_threads=num_threads)
        self.bundle.check_graph(self.engine.input_names, self.engine.num_outputs)

    def score(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        *,
        max_batch_tokens: int | None = None,
    ) -> Predictions:
        """Label texts, or pairs of texts where the bundle's model reads pairs.

        Args:
            texts: N texts or (text, text) pairs.
            max_batch_tokens: Token budget of a batch; the bundle's measured best by default.

        Raises:
            InputError: A text stands where a pair is needed, the reverse, or something is no text.
        """
        firsts, seconds = self._check(texts)
        if not firsts:
            return self._predictions(np.empty((0, self.bundle.num_outputs), np.float32), {})
        rows = self.tokenizer.encode(firsts, seconds)
        unique_N, first_U = find_unique(rows)
        scored = self.score_tokens(rows, rows_U=first_U, max_batch_tokens=max_batch_tokens)
        errors_U = scored.errors
        errors = {row: errors_U[u] for row, u in enumerate(unique_N.tolist()) if u in errors_U}
        return self._predictions(scored.logits_UC[unique_N], errors)

    def score_tokens(
        self,
        rows: TokenizedRows,
        *,
        rows_U: NDArray[np.intp] | None = None,
        max_batch_tokens: int | None = None,
    ) -> ScoredRows:
        """Logits of tokenized rows, and the batches that they were computed in.

        Args:
            rows: Tokenized rows.
            rows_U: Indices of the rows to score, in this order; all by default.
            max_batch_tokens: Token budget of a batch; the bundle's measured best by default.
        """
        rows_U = np.arange(len(rows)) if rows_U is None else rows_U
        lengths_U = rows.lengths_N[rows_U]
        budget = max_batch_tokens or self.bundle.cost_profile.max_batch_tokens
        logits_UC = np.full((len(rows_U), self.bundle.num_outputs), np.nan, np.float32)
        errors: dict[int, str] = {}
        batches = plan_batches(lengths_U, max_batch_tokens=budget)
        run_batches(
            self.engine,
            lambda batch: self._score_batch(rows, rows_U, batch, logits_UC, errors),
            batches,
        )
        return ScoredRows(
            logits_UC=logits_UC,
            errors=errors,
            batches=batches,
            computed_tokens=[len(batch) * int(lengths_U[batch].max()) for batch in batches],
        )

    def _score_batch(
        self,
        rows: TokenizedRows,
        rows_U: NDArray[np.intp],
        batch: NDArray[np.intp],
        logits_UC: NDArray[np.float32],
        errors: dict[int, str],
    ) -> None:
        """Fill in one batch's logits; halve the batch where the engine fails."""
        rows_B = rows_U[batch]
        try:
            logits_BC = self.engine.run(rows.batch_ids(rows_B), rows.batch_types(rows_B))
        except EngineError as error:
            if len(batch) == 1:
                errors[int(batch[0])] = f"the model failed on it: {error}"
                return
            for half in np.array_split(batch, 2):
                self._score_batch(rows, rows_U, half, logits_UC, errors)
            return
        is_finite_B = np.isfinite(logits_BC).all(axis=1)
        logits_UC[batch[is_finite_B]] = logits_BC[is_finite_B]
        for row in batch[~is_finite_B]:
            errors[int(row)] = "the model's output is not a finite number"

    def _check(
        self, texts: Sequence[str] | Sequence[tuple[str, str]]
    ) -> tuple[list[str], list[str] | None]:
        if isinstance(texts, str):
            raise InputError("score() takes a list of texts; got one text")
        pairs = self.bundle.text_pairs
        firsts, seconds = [], []
        for row, text in enumerate(texts):
            parts = (text,) if isinstance(text, str) else text
            if (
                not isinstance(parts, tuple | list)
                or len(parts) != 1 + pairs
                or not all(_is_text(part) for part in parts)
            ):
                expected = "a pair of texts" if pairs else "one text"
                raise InputError(f"row {row}: {text!r:.60} is not {expected}, as the bundle needs")
            firsts.append(parts[0])
            seconds.append(parts[-1])
        return firsts, seconds if pairs else None

    def _predictions(self, logits_NC: NDArray[np.float32], errors: dict[int, str]) -> Predictions:
        task = self.bundle.task
        labels: list[str | list[str] | None] = [None] * len(logits_NC)
        probabilities = np.full(len(logits_NC), np.nan, np.float32)
        if task.has_labels:
            cells = [column.read(logits_NC, self.bundle.labels) for column in task.columns]
            labels, probabilities = list(cells[0]), np.asarray(cells[1])
        for row in errors:
            labels[row] = None
            probabilities[row] = np.nan
        return Predictions(
            labels=labels, probabilities=probabilities, logits_NC=logits_NC, errors=errors
        )


def _is_text(value: object) -> bool:
    """Whether a value is a string that a file can hold: without half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
