"""What only a card can tell: its best token budget, and how much a score depends on its batch.

    engine on a GPU -> [card_measures] -> token budget of a run; largest difference of a row

A card is full when a batch has enough tokens for all its processors; how many that are depends on
the model, and how many fit on the memory. Kernels are chosen by the shape of a batch, and in
float16 their sums round differently, so a row's score may move by a little from batch to batch.
This module knows nothing of texts, and times with the wall clock: nobody shares a card in secret.

Shape suffixes: B rows of a batch, T tokens of each, C outputs.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastformers.inference.batching import rows_per_batch
from fastformers.inference.engine import Engine, run_batches

CARD_BUDGETS = tuple(2**power for power in range(12, 19))  # 4,096 to 262,144 tokens
# Fewer tokens than the fastest budget's fit the rows of a length better, and lose next to nothing.
GOOD_ENOUGH = 1.02
_TIMED_BATCHES = 6
_LENGTHS = (37, 139, 512)
_ROWS = (1, 3, 16)


class CardEngine(Engine, Protocol):
    """An engine that says when memory did not suffice."""

    @property
    def lowered_to(self) -> int | None:
        """Tokens of the largest batch that it tries; None while all have fitted."""
        ...


def measure_card_budgets(engine: CardEngine, *, max_length: int) -> dict[int, float]:
    """Seconds of a token at each token budget, doubled until memory does not suffice.

    Args:
        engine: Engine on a card that does nothing else.
        max_length: Longest row, in tokens.
    """
    lengths = sorted({min(length, max_length) for length in _LENGTHS})
    seconds: dict[int, float] = {}
    for budget in CARD_BUDGETS:
        rows = rows_per_batch(np.array(lengths), budget).tolist()
        shapes = list(zip(rows, lengths, strict=True))
        measured = float(np.mean([_seconds_per_token(engine, shape) for shape in shapes]))
        if engine.lowered_to is not None and seconds:
            break
        seconds[budget] = measured
    return seconds


def _seconds_per_token(engine: Engine, shape: tuple[int, int]) -> float:
    """Seconds of a token in batches of a shape (rows, tokens), after one that warms up."""
    ids_BT = np.full(shape, 5, np.int64)
    types_BT = np.zeros_like(ids_BT)
    engine.run(ids_BT, types_BT)
    start = time.perf_counter()
    run_batches(engine, lambda batch: engine.run(*batch), [(ids_BT, types_BT)] * _TIMED_BATCHES)
    return (time.perf_counter() - start) / (_TIMED_BATCHES * ids_BT.size)


def measure_row_seconds(
    engine: Engine, *, lengths: Sequence[int], max_batch_tokens: int
) -> tuple[float, ...]:
    """Seconds of a row of each length in full batches."""
    rows = rows_per_batch(np.array(lengths), max_batch_tokens).tolist()
    shapes = zip(rows, lengths, strict=True)
    return tuple(shape[1] * _seconds_per_token(engine, shape) for shape in shapes)


def choose_budget(seconds: dict[int, float]) -> int:
    """The smallest token budget that is about as fast as the fastest."""
    fastest = min(seconds.values())
    return min(budget for budget in seconds if seconds[budget] <= GOOD_ENOUGH * fastest)


def measure_batch_difference(
    engine: Engine, *, max_length: int, vocabulary: int, max_batch_tokens: int, seed: int = 0
) -> float:
    """Largest difference of an output of a row between a full batch and smaller ones.

    Args:
        engine: Engine that is measured.
        max_length: Longest row, in tokens.
        vocabulary: Token ids that rows are made of, from 0 on.
        max_batch_tokens: Token budget of a full batch.
        seed: Seed of the rows.
    """
    random, largest = np.random.default_rng(seed), 0.0
    for length in sorted({min(length, max_length) for length in _LENGTHS}):
        num_rows = max(int(rows_per_batch(np.array([length]), max_batch_tokens)[0]), max(_ROWS))
        ids_BT = random.integers(0, vocabulary, (num_rows, length))
        full_BC = _run(engine, ids_BT)
        for rows in _ROWS:
            part_BC = _run(engine, ids_BT[:rows])
            largest = max(largest, float(np.abs(part_BC - full_BC[:rows]).max()))
    return largest


def _run(engine: Engine, ids_BT: NDArray[np.int64]) -> NDArray[np.float32]:
    return engine.run(ids_BT, np.zeros_like(ids_BT))
