"""One pass of one graph over rows: in batches, and without the rows that it fails on.

    rows, positions, engine -> [passes] -> their logits, or why there are none -> Scorer

A bundle of one graph scores in one pass over all rows, a cascade in a second one over some of them.
This module knows nothing of which rows these are.

Shape suffixes: U rows to score, P of them in a pass, B of these in a batch, C outputs of a row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.inference.batching import plan_batches
from fastformers.inference.engine import Engine, EngineError, run_batches
from fastformers.inference.tokenizer import TokenizedRows


@dataclass(frozen=True, kw_only=True)
class Work:
    """Rows that are being scored, and what is known of them so far.

    Attributes:
        rows: Tokenized rows.
        rows_U: Indices of the rows to score.
        logits_UC: Their logits; a pass fills in those of its rows.
        errors: Reason why a row failed, by its position among the U.
    """

    rows: TokenizedRows
    rows_U: NDArray[np.intp]
    logits_UC: NDArray[np.float32]
    errors: dict[int, str]


def run_pass(
    engine: Engine,
    work: Work,
    positions_P: NDArray[np.intp],
    *,
    max_batch_tokens: int,
    on_batch: Callable[[NDArray[np.intp]], None] = lambda batch: None,
    name: str = "the model",
) -> list[NDArray[np.intp]]:
    """Fill in the logits of rows; those that fail have a reason instead.

    Args:
        engine: What runs the graph.
        work: The rows.
        positions_P: Positions of the rows of this pass.
        max_batch_tokens: Token budget of a batch.
        on_batch: Called after each batch with the positions (B,) of its rows.
        name: What the graph is called in a reason.

    Returns:
        Positions (B,) of the rows of each planned batch.
    """
    lengths_P = work.rows.lengths_N[work.rows_U[positions_P]]
    batches = [positions_P[b] for b in plan_batches(lengths_P, max_batch_tokens=max_batch_tokens)]

    def run(batch: NDArray[np.intp]) -> None:
        _score_batch(engine, work, batch, name)
        on_batch(batch)

    run_batches(engine, run, batches)
    return batches


def _score_batch(engine: Engine, work: Work, batch: NDArray[np.intp], name: str) -> None:
    """Fill in one batch's logits; halve the batch where the engine fails."""
    rows_B = work.rows_U[batch]
    try:
        takes_types = "token_type_ids" in engine.input_names
        types_BT = work.rows.batch_types(rows_B) if takes_types else None
        logits_BC = engine.run(work.rows.batch_ids(rows_B), types_BT)
    except EngineError as error:
        if len(batch) == 1:
            work.errors[int(batch[0])] = f"{name} failed on it: {error}"
            return
        for half in np.array_split(batch, 2):
            _score_batch(engine, work, half, name)
        return
    is_finite_B = np.isfinite(logits_BC).all(axis=1)
    work.logits_UC[batch[is_finite_B]] = logits_BC[is_finite_B]
    for row in batch[~is_finite_B]:
        work.errors[int(row)] = f"{name}'s output is not a finite number"
