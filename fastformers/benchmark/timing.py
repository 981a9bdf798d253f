"""Measure engines against each other: the same tokens, in turns, on the same cores.

    rows -> batches -> [timing] -> tokens a second of every candidate

A candidate is anything that turns a batch into logits, together with the way of batching that
suits it best: rows of one length without a mask, or sorted and padded rows with one. Only real
tokens count, so a candidate pays for its padding. This module knows nothing of how candidates are
built or of Ray.

Shape suffixes: N rows, B rows of a batch, T padded tokens, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fastformers.clock import median_in_turns, time_call, time_calls
from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.engine import Engine
from fastformers.inference.tokenizer import TokenizedRows

# Batch x length of the fixed shapes: one text, a small batch, many short texts.
SHAPES = ((1, 128), (8, 128), (32, 32))
_SHAPE_S = 0.5  # seconds that a candidate runs a fixed shape in each turn


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that are computed together.

    Attributes:
        ids_BT: Token ids; 0 where there is padding.
        mask_BT: 1 for a token, 0 for padding.
        rows_B: Index of each row among all rows.
    """

    ids_BT: NDArray[np.int64]
    mask_BT: NDArray[np.int64]
    rows_B: NDArray[np.intp]

    @property
    def num_tokens(self) -> int:
        """Real tokens, without padding."""
        return int(self.mask_BT.sum())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to compute logits.

    Attributes:
        name: Name in tables.
        run: Function that computes the logits (B, C) of a batch.
        plan: Function that groups rows of any lengths into batches.
        fixed_shapes: Whether it is measured on the fixed shapes, too.
    """

    name: str
    run: Callable[[Batch], NDArray[np.float32]]
    plan: Callable[[TokenizedRows], list[Batch]]
    fixed_shapes: bool = True


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Median tokens a second of each candidate.

    Attributes:
        by_case: Tokens a second by case ("rows", or a fixed shape such as "8x128") and by name.
    """

    by_case: dict[str, dict[str, float]]

    def ratio(self, case: str, name: str, other: str) -> float:
        """How many times faster one candidate is than another."""
        rates = self.by_case[case]
        return rates[name] / rates[other]

    def best(self, case: str, prefix: str) -> str | None:
        """The fastest candidate whose name starts with `prefix`; None if none was measured."""
        rates = self.by_case[case]
        names = [name for name in rates if name.startswith(prefix)]
        return max(names, key=lambda name: rates[name]) if names else None


def engine_candidate(name: str, engine: Engine, *, max_batch_tokens: int) -> Candidate:
    """A bundle's graph in one of our engines, on the batches that a job forms."""
    return Candidate(
        name=name,
        run=lambda batch: engine.run(batch.ids_BT, np.zeros_like(batch.ids_BT)),
        plan=lambda rows: plan_exact(rows, max_batch_tokens=max_batch_tokens),
    )


def plan_exact(rows: TokenizedRows, *, max_batch_tokens: int) -> list[Batch]:
    """Batches of rows of one exact length, as scoring forms them."""
    return [
        pad_rows(rows, rows_B)
        for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)
    ]


def plan_sorted(rows: TokenizedRows, *, num_rows: int) -> list[Batch]:
    """Batches of a fixed number of rows, sorted by length and padded to the longest."""
    order_N = np.argsort(-rows.lengths_N, kind="stable")
    starts = range(0, len(order_N), num_rows)
    return [pad_rows(rows, order_N[start : start + num_rows]) for start in starts]


def plan_rounded(rows: TokenizedRows, *, max_batch_tokens: int, multiple: int = 16) -> list[Batch]:
    """Batches of rows padded to the next multiple of some length, under a token budget.

    This way an engine that compiles every shape sees few of them.
    """
    rounded_N = -(-rows.lengths_N // multiple) * multiple
    return [
        pad_rows(rows, rows_B, multiple=multiple)
        for rows_B in plan_batches(rounded_N, max_batch_tokens=max_batch_tokens)
    ]


def case_name(num_rows: int, length: int) -> str:
    """Name of a fixed shape among the cases of `Rates`."""
    return f"{num_rows}x{length}"


def fixed_batch(num_rows: int, length: int, *, vocab_size: int) -> Batch:
    """A batch of random ids without padding."""
    ids_BT = np.random.default_rng(0).integers(0, vocab_size, (num_rows, length))
    return Batch(ids_BT=ids_BT, mask_BT=np.ones_like(ids_BT), rows_B=np.arange(num_rows))


def measure_rates(
    candidates: Sequence[Candidate],
    *,
    rows: TokenizedRows | None,
    vocab_size: int,
    repeats: int,
    shape_s: float = _SHAPE_S,
) -> Rates:
    """Time all candidates in turns, so that a busy moment of the machine hits all alike.

    Args:
        candidates: Candidates to compare.
        rows: Real rows, case "rows"; None for the fixed shapes alone.
        vocab_size: Bound of the random ids in the fixed shapes, cases like "8x128".
        repeats: Number of turns; the median counts. A turn before them warms up.
        shape_s: Seconds of a turn on a fixed shape; a turn on real rows is one pass.
    """
    on_shapes = [candidate for candidate in candidates if candidate.fixed_shapes]
    by_case: dict[str, dict[str, float]] = {}
    for num_rows, length in SHAPES:
        batch = fixed_batch(num_rows, length, vocab_size=vocab_size)
        by_case[case_name(num_rows, length)] = median_in_turns(
            {c.name: partial(_rate_of_shape, c, batch, shape_s) for c in on_shapes}, repeats=repeats
        )
    if rows is not None:
        by_case["rows"] = median_in_turns(
            {c.name: partial(_rate_of_pass, c, c.plan(rows)) for c in candidates}, repeats=repeats
        )
    return Rates(by_case=by_case)


def predict_all(candidate: Candidate, rows: TokenizedRows) -> NDArray[np.float32]:
    """Logits (N, C) of all rows, in their order."""
    batches = candidate.plan(rows)
    return in_row_order(
        [candidate.run(batch) for batch in batches], [batch.rows_B for batch in batches]
    )


def _rate_of_shape(candidate: Candidate, batch: Batch, seconds: float) -> float:
    """Tokens a second of one batch, run again and again for some seconds."""
    times = time_calls(lambda: candidate.run(batch), for_s=seconds)
    return batch.num_tokens * len(times) / sum(times)


def _rate_of_pass(candidate: Candidate, batches: Sequence[Batch]) -> float:
    """Tokens a second of all batches, each run once."""

    def run() -> None:
        for batch in batches:
            candidate.run(batch)

    return sum(batch.num_tokens for batch in batches) / time_call(run)


def pad_rows(rows: TokenizedRows, rows_B: NDArray[np.intp], *, multiple: int = 1) -> Batch:
    """A batch of rows, padded to the next multiple of some length that holds the longest."""
    lengths_B = rows.lengths_N[rows_B]
    width = -(-int(lengths_B.max()) // multiple) * multiple
    mask_BT = (np.arange(width) < lengths_B[:, None]).astype(np.int64)
    ids_BT = np.zeros((len(rows_B), width), np.int64)
    ids_BT[mask_BT == 1] = np.concatenate(
        [rows.ids[rows.offsets[row] : rows.offsets[row + 1]] for row in rows_B]
    )
    return Batch(ids_BT=ids_BT, mask_BT=mask_BT, rows_B=rows_B)
