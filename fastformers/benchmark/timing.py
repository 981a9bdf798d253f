"""Measure engines against each other: the same tokens, in turns, on the same cores.

    rows -> batches -> [timing] -> tokens a second of every candidate

A candidate is anything that turns a batch into logits, together with the batches that it likes
best: rows of one length without a mask, or sorted and padded rows with one. Only real tokens
count, so a candidate pays for its padding. Knows nothing of how candidates are built or of Ray.

Shape suffixes: N rows, B rows of a batch, T padded tokens, C classes.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.inference.batching import in_row_order, plan_batches
from fastformers.inference.engine import Engine
from fastformers.inference.tokenizer import TokenizedRows

# Batch x length of the fixed shapes: one text, a small batch, many short texts.
SHAPES = ((1, 128), (8, 128), (32, 32))
_SHAPE_S = 0.5  # of a fixed shape, in each turn


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that are computed together.

    Attributes:
        ids_BT: Token ids; 0 where there is padding.
        mask_BT: 1 for a token, 0 for padding.
        rows_B: Which rows these are.
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
        name: As it is shown.
        run: Logits (B, C) of a batch.
        plan: How it batches rows of any lengths.
        fixed_shapes: Whether it is measured on fixed shapes, too.
    """

    name: str
    run: Callable[[Batch], NDArray[np.float32]]
    plan: Callable[[TokenizedRows], list[Batch]]
    fixed_shapes: bool = True


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Median tokens a second of each candidate, by case and name."""

    by_case: dict[str, dict[str, float]]

    def ratio(self, case: str, name: str, other: str) -> float:
        """How many times faster one candidate is than another."""
        rates = self.by_case[case]
        return rates[name] / rates[other]

    def best(self, case: str, prefix: str) -> str | None:
        """The fastest candidate whose name starts so; None if none was measured."""
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
        _pad(rows, rows_B, multiple=1)
        for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)
    ]


def plan_sorted(rows: TokenizedRows, *, num_rows: int) -> list[Batch]:
    """Batches of a fixed number of rows, sorted by length and padded to the longest."""
    order_N = np.argsort(-rows.lengths_N, kind="stable")
    starts = range(0, len(order_N), num_rows)
    return [_pad(rows, order_N[start : start + num_rows], multiple=1) for start in starts]


def plan_rounded(rows: TokenizedRows, *, max_batch_tokens: int, multiple: int = 16) -> list[Batch]:
    """Batches of rows padded to the next multiple of some length, under a token budget.

    An engine that compiles every shape sees few of them so.
    """
    rounded_N = -(-rows.lengths_N // multiple) * multiple
    return [
        _pad(rows, rows_B, multiple=multiple)
        for rows_B in plan_batches(rounded_N, max_batch_tokens=max_batch_tokens)
    ]


def case_name(num_rows: int, length: int) -> str:
    """Of a fixed shape, among the cases of `Rates`."""
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
        candidates: Who.
        rows: Real rows, case "rows"; None for the fixed shapes alone.
        vocab_size: Ids below this occur in the fixed shapes, cases like "8x128".
        repeats: Turns; the median counts. A turn before them warms up.
        shape_s: Seconds of a turn on a fixed shape; on real rows it is one pass.
    """
    fixed = [c for c in candidates if c.fixed_shapes]
    by_case: dict[str, dict[str, float]] = {}
    for num_rows, length in SHAPES:
        batch = fixed_batch(num_rows, length, vocab_size=vocab_size)
        by_case[case_name(num_rows, length)] = _in_turns(
            {c.name: _until(c, batch, shape_s) for c in fixed}, repeats
        )
    if rows is not None:
        by_case["rows"] = _in_turns({c.name: _pass(c, c.plan(rows)) for c in candidates}, repeats)
    return Rates(by_case=by_case)


def predict_all(candidate: Candidate, rows: TokenizedRows) -> NDArray[np.float32]:
    """Logits (N, C) of all rows, in their order."""
    batches = candidate.plan(rows)
    return in_row_order(
        [candidate.run(batch) for batch in batches], [batch.rows_B for batch in batches]
    )


def _in_turns(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            rates[name].append(run())
    return {name: statistics.median(values) for name, values in rates.items()}


def _until(candidate: Candidate, batch: Batch, seconds: float) -> Callable[[], float]:
    def run() -> float:
        tokens, start = 0, time.perf_counter()
        while True:
            candidate.run(batch)
            tokens += batch.num_tokens
            if (elapsed := time.perf_counter() - start) >= seconds:
                return tokens / elapsed

    return run


def _pass(candidate: Candidate, batches: Sequence[Batch]) -> Callable[[], float]:
    num_tokens = sum(batch.num_tokens for batch in batches)

    def run() -> float:
        start = time.perf_counter()
        for batch in batches:
            candidate.run(batch)
        return num_tokens / (time.perf_counter() - start)

    return run


def _pad(rows: TokenizedRows, rows_B: NDArray[np.intp], *, multiple: int) -> Batch:
    lengths_B = rows.lengths_N[rows_B]
    width = -(-int(lengths_B.max()) // multiple) * multiple
    mask_BT = (np.arange(width) < lengths_B[:, None]).astype(np.int64)
    ids_BT = np.zeros((len(rows_B), width), np.int64)
    ids_BT[mask_BT == 1] = np.concatenate(
        [rows.ids[rows.offsets[row] : rows.offsets[row + 1]] for row in rows_B]
    )
    return Batch(ids_BT=ids_BT, mask_BT=mask_BT, rows_B=rows_B)
