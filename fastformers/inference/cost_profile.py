"""Seconds as a function of length: what a row costs before it is scored.

    engine -> [cost_profile] -> shards of equal predicted cost, bill

The profile is measured once when a bundle is made, for the best token budget found on that machine,
and stored in the bundle, so that the shards and batches of a corpus never depend on who runs it. It
is measured in CPU time; how long the calls waited for a CPU is kept beside it, because on a machine
that shares caches and memory with other work even CPU time is not the whole truth.

A batch has a fixed cost, which rows of a rare length share with few others. So a row is measured in
a full batch and alone, and in between the cost of a batch is taken to grow linearly with its rows.
The lengths measured are no round numbers, because kernels are faster at multiples of 8 and 16,
which few rows have (4 x 312 student, Zen 5: a row of 100 tokens takes 7% longer than interpolation
between 64 and 128 says). This module knows nothing of texts, corpora or prices.

Shape suffixes: N rows.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.clock import BUSY_SHARE, CpuTimer, median_in_turns
from fastformers.inference.batching import rows_per_batch
from fastformers.inference.cpu import read_processor
from fastformers.inference.engine import Engine

logger = logging.getLogger(__name__)

TOKEN_BUDGETS = (256, 512, 1024, 2048, 4096)
_LENGTHS = (2, 9, 19, 37, 75, 139, 269, 391)
# Rows that token budgets are judged by; a longer one runs alone under most of them.
_LONGEST_JUDGED = 512
_PROFILE_REPEATS = 5  # timed runs of each shape; the median counts


@dataclass(frozen=True, kw_only=True)
class CostProfile:
    """Cost of a row by its length, on one thread of one machine.

    Attributes:
        engine: Engine and version that were measured.
        cpu_model: Processor that was measured.
        max_batch_tokens: The token budget that was fastest.
        lengths: Lengths measured, ascending, in tokens.
        seconds_per_row: Median seconds a row of each length took in a full batch.
        cpu_generation: Generation of the processor, see `cpu.py`; None if not known.
        cpu_features: Vector extensions that the engine could use; empty if not known.
        seconds_alone: Median seconds a row of each length took alone; empty if not known, and then
            taken to be as many as in a full batch.
        waiting_share: Share of the wall time for which the measured calls waited for a CPU; 0 if
            not known.
    """

    engine: str
    cpu_model: str
    max_batch_tokens: int
    lengths: tuple[int, ...]
    seconds_per_row: tuple[float, ...]
    cpu_generation: str | None = None
    cpu_features: tuple[str, ...] = ()
    seconds_alone: tuple[float, ...] = ()
    waiting_share: float = 0.0

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "CostProfile":
        """The profile that a manifest holds; older ones lack the fields that have a default."""
        return cls(
            engine=fields["engine"],
            cpu_model=fields["cpu_model"],
            max_batch_tokens=fields["max_batch_tokens"],
            lengths=tuple(fields["lengths"]),
            seconds_per_row=tuple(fields["seconds_per_row"]),
            cpu_generation=fields.get("cpu_generation"),
            cpu_features=tuple(fields.get("cpu_features", ())),
            seconds_alone=tuple(fields.get("seconds_alone", ())),
            waiting_share=fields.get("waiting_share", 0.0),
        )

    @property
    def is_rough(self) -> bool:
        """Whether it was measured beside other work, so that it should be measured again."""
        return self.waiting_share > BUSY_SHARE

    def estimate_seconds(
        self,
        lengths_N: NDArray[np.integer],
        batches_N: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Predicted seconds of each row, interpolated between the measured lengths.

        Args:
            lengths_N: Tokens of each row.
            batches_N: Share of a batch that each row takes, 1 if it is alone; by default its share
                of a full batch.
        """
        if not self.seconds_alone:
            full_N: NDArray[np.float64] = np.interp(lengths_N, self.lengths, self.seconds_per_row)
            return full_N
        if batches_N is None:
            batches_N = 1 / rows_per_batch(lengths_N, self.max_batch_tokens)
        per_batch, per_row = self._split_costs()
        seconds_N: NDArray[np.float64] = np.interp(
            lengths_N, self.lengths, per_batch
        ) * batches_N + np.interp(lengths_N, self.lengths, per_row)
        return seconds_N

    def estimate_seconds_per_million(self, lengths_N: NDArray[np.integer]) -> float:
        """Predicted core-seconds of a million rows of these lengths, in full batches."""
        return 1e6 * float(np.mean(self.estimate_seconds(lengths_N)))

    def _split_costs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of a batch and of each of its rows, at the measured lengths.

        Where a full batch is one row, the two cannot be told apart; a batch is then taken to cost
        as much as at the next shorter length.
        """
        limits = rows_per_batch(np.array(self.lengths), self.max_batch_tokens)
        full, alone = np.array(self.seconds_per_row), np.array(self.seconds_alone)
        alone = np.maximum(alone, full)
        per_batch = (alone - full) * limits / np.maximum(limits - 1, 1)
        shared = np.maximum.accumulate(np.where(limits > 1, np.arange(len(limits)), 0))
        per_batch = per_batch[shared]
        return per_batch, np.maximum(alone - per_batch, 0)

    def estimate_total_seconds(self, lengths_N: NDArray[np.integer]) -> float:
        """Predicted seconds of rows in the batches that `plan_batches` makes of them."""
        lengths, counts = np.unique(lengths_N, return_counts=True)
        batches = -(-counts // rows_per_batch(lengths, self.max_batch_tokens))
        return float((counts * self.estimate_seconds(lengths, batches / counts)).sum())

    def estimate_seconds_per_token(self) -> float:
        """Predicted seconds of a token in a row of 64 tokens, for use before a corpus is known."""
        return float(self.estimate_seconds(np.array([64]))[0]) / 64


def measure_cost_profile(
    engine: Engine, *, max_length: int, max_batch_tokens: int | None = None
) -> CostProfile:
    """Time full batches over lengths and token budgets; a few seconds for a small model.

    A line says so where the machine is busy.

    Args:
        engine: A one-thread engine.
        max_length: Longest row, in tokens.
        max_batch_tokens: Token budget of the batches; None to measure which is fastest.
    """
    timer = CpuTimer()
    best = max_batch_tokens
    if best is None:
        per_token = measure_budgets(
            engine, max_length=max_length, repeats=_PROFILE_REPEATS, timer=timer
        )
        best = min(per_token, key=lambda budget: per_token[budget])
    lengths = [*(n for n in _LENGTHS if n < max_length), max_length]
    full = _full_batches(lengths, best)
    alone = [(1, length) for length in lengths]
    seconds = _seconds_in_turns(engine, [*full, *alone], _PROFILE_REPEATS, timer)
    warn_if_busy(timer, "the cost profile")
    processor = read_processor()
    return CostProfile(
        engine=engine.name,
        cpu_model=processor.model,
        cpu_generation=processor.generation,
        cpu_features=processor.features,
        max_batch_tokens=best,
        lengths=tuple(lengths),
        seconds_per_row=tuple(seconds[shape] / shape[0] for shape in full),
        seconds_alone=tuple(seconds[shape] for shape in alone),
        waiting_share=timer.waiting_share,
    )


def measure_speeds(engine: Engine, profile: CostProfile, *, limit_s: float) -> dict[int, float]:
    """CPU seconds of a row in a full batch on this machine, by length, measured as a profile is.

    Args:
        engine: A one-thread engine.
        profile: Profile of the engine's graph, of whatever machine: its lengths are measured.
        limit_s: Seconds that this may take; where the profile expects more, fewer of the lengths
            are measured, evenly spaced, and one at least.
    """
    turns = 3 + 1  # one warms up
    shapes = _full_batches(profile.lengths, profile.max_batch_tokens)
    seconds_of_batches = np.multiply([rows for rows, _ in shapes], profile.seconds_per_row)
    num_shapes = int(len(shapes) * min(1.0, limit_s / (turns * seconds_of_batches.sum())))
    if num_shapes < len(shapes):
        num_shapes = max(1, num_shapes)
        shapes = [shapes[(2 * n + 1) * len(shapes) // (2 * num_shapes)] for n in range(num_shapes)]
    timer = CpuTimer()
    seconds = _seconds_in_turns(engine, shapes, turns - 1, timer)
    warn_if_busy(timer, "the speed")
    return {length: seconds[rows, length] / rows for rows, length in shapes}


def warn_if_busy(timer: CpuTimer, measured: str) -> bool:
    """Say that other work shared the machine while something was measured; returns whether it did.

    Args:
        timer: Timer of the calls.
        measured: What was measured, for the line.
    """
    is_busy = timer.waiting_share > BUSY_SHARE
    if is_busy:
        logger.warning(
            "this machine is busy: measuring %s waited %.0f%% of the time for a CPU; CPU seconds "
            "count, but they are rough: measure again when it is idle",
            measured,
            100 * timer.waiting_share,
        )
    return is_busy


def _seconds_in_turns(
    engine: Engine, shapes: Sequence[tuple[int, int]], repeats: int, timer: CpuTimer
) -> dict[tuple[int, int], float]:
    """Median CPU seconds of each shape (rows, length); the shapes take turns, as they do in a job.

    A shape that is repeated at once finds its weights in the cache: one short row took up to 1.8
    times as long between others (4 x 312 student, Zen 5).
    """

    def seconds_of(shape: tuple[int, int]) -> float:
        ids_BT = np.full(shape, 5, np.int64)
        types_BT = np.zeros_like(ids_BT)
        return timer.time_call(lambda: engine.run(ids_BT, types_BT))

    return median_in_turns({shape: partial(seconds_of, shape) for shape in shapes}, repeats=repeats)


def measure_budgets(
    engine: Engine,
    *,
    max_length: int,
    timer: CpuTimer,
    repeats: int = 3,
    limit_s: float | None = None,
) -> dict[int, float]:
    """CPU seconds per token at each token budget: the mean of a short, a middle and a long length.

    Args:
        engine: A one-thread engine.
        max_length: Longest row, in tokens; up to 512 tokens, no smaller budget is tried.
        timer: Timer of all calls.
        repeats: Timed runs of each shape; the median counts.
        limit_s: Seconds after which no further budget is tried; None to try all.
    """
    longest = min(max_length, _LONGEST_JUDGED)
    lengths = sorted({min(37, longest), min(139, longest), longest})
    budgets = [budget for budget in TOKEN_BUDGETS if budget >= longest]
    per_token: dict[int, float] = {}
    start = time.perf_counter()
    for budget in budgets:
        if per_token and limit_s is not None and time.perf_counter() - start > limit_s:
            break
        shapes = _full_batches(lengths, budget)
        seconds = _seconds_in_turns(engine, shapes, repeats, timer)
        per_token[budget] = float(np.mean([seconds[rows, n] / (rows * n) for rows, n in shapes]))
    return per_token


def _full_batches(lengths: Sequence[int], max_batch_tokens: int) -> list[tuple[int, int]]:
    """Shape (rows, length) of a full batch of each length."""
    limits = rows_per_batch(np.array(lengths), max_batch_tokens).tolist()
    return list(zip(limits, lengths, strict=True))
