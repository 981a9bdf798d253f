"""Time the steps from a model out of the box to its cheapest form, each against the first.

    models + tokenized texts -> steps -> [measure] -> results -> report, plot

The clock is the paper's (arXiv:2010.13382, Table 3): it starts after tokenization and includes the
creation of sessions. Each step reads it by itself (steps.py); this module knows nothing of torch,
ONNX or text.

Shape suffixes: N texts, S texts that are timed, C classes.
"""

import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastformers.models.forward import OnProgress

OnTokens = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One run of a step.

    Attributes:
        seconds: Seconds of all N texts; scaled up where only a sample was timed.
        logits_NC: Logits of the texts, or None for random weights.
        standard_error_s: Standard error of the scaling; None where nothing was scaled.
    """

    seconds: float
    logits_NC: NDArray[np.float32] | None
    standard_error_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class AblationStep:
    """One line of the table, not yet measured.

    Attributes:
        name: Name in the table, in the paper's words where it is the paper's step.
        run: Function that scores the texts once and calls its argument with the number of tokens
            of each batch done.
        num_tokens: Tokens that one run computes, padding included, to show progress.
        timed_rows: Texts that one run times.
        tokenization_s: Seconds that making the token ids took, outside the clock; None for ids
            that came from no text.
        note: Conditions of the run: batch, threads, sample, and any change of the model.
        is_aside: Whether the step is shown beside the ablation: neither the base of the next step
            nor the end.
    """

    name: str
    run: Callable[[OnTokens], Timing]
    num_tokens: int
    timed_rows: int
    tokenization_s: float | None
    note: str
    is_aside: bool = False


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Steps over N texts, ready to be measured.

    Attributes:
        steps: Steps from the slowest on; the first is padded, the second the same unpadded.
        lengths_N: Tokens of each text, as the first step reads it.
        labels_N: Correct class of each text, or None for random weights.
        description: Models and texts in a few words, for the head of the table.
    """

    steps: tuple[AblationStep, ...]
    lengths_N: NDArray[np.int64]
    labels_N: NDArray[np.generic] | None
    description: str


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One line of the table.

    Attributes:
        name: Name of the step.
        seconds: Median over the runs of the seconds of all texts, after tokenization.
        accuracy: Accuracy, 0-1, or None without labels.
        usd_per_100m: Price in USD of 100 million such texts, after tokenization.
        cumulative: Speed-up over the first step.
        step: Speed-up over the step before.
        tokenization_s: Seconds of tokenizing all texts; None where there was no text.
        total_s: `seconds` and `tokenization_s` together; None where there was no text.
        rows: Texts in all.
        timed_rows: Texts that each run timed; where these are fewer, the seconds are scaled up.
        standard_error_s: Standard error of that scaling, of the median run; None where nothing was
            scaled.
        runs_s: Seconds of every run.
        note: Conditions of the run.
        is_aside: Whether the step is shown beside the ablation: neither the base of the next step
            nor the end.
    """

    name: str
    seconds: float
    accuracy: float | None
    usd_per_100m: float
    cumulative: float
    step: float
    tokenization_s: float | None
    total_s: float | None
    rows: int
    timed_rows: int
    standard_error_s: float | None
    runs_s: tuple[float, ...]
    note: str
    is_aside: bool


def measure_ablation(
    ablation: Ablation,
    *,
    usd_per_hour: float,
    repeats: int,
    on_progress: "OnProgress" = lambda what, done, total: None,
    on_result: Callable[[StepResult], None] = lambda result: None,
) -> list[StepResult]:
    """Run every step and compare it with the first and with the one before.

    Args:
        ablation: Steps to measure.
        usd_per_hour: Price of this machine.
        repeats: Runs of each step; the median counts.
        on_progress: Called inside the clock after every batch, with the step, the tokens that its
            runs have computed and those of all its runs; it must return within microseconds.
        on_result: Called with each result as soon as it is known.
    """
    results: list[StepResult] = []
    for number, step in enumerate(ablation.steps, start=1):
        what = f"step {number} of {len(ablation.steps)}, {step.name}"
        on_tokens = _TokenCounter(what, step.num_tokens * repeats, on_progress)
        timings = [step.run(on_tokens) for _ in range(repeats)]
        seconds = statistics.median(timing.seconds for timing in timings)
        median_run = min(timings, key=lambda timing: abs(timing.seconds - seconds))
        previous = next((r for r in reversed(results) if not r.is_aside), None)
        result = StepResult(
            name=step.name,
            seconds=seconds,
            accuracy=_accuracy(timings[-1].logits_NC, ablation.labels_N),
            usd_per_100m=usd_per_100m(
                seconds, num_rows=len(ablation.lengths_N), usd_per_hour=usd_per_hour
            ),
            cumulative=results[0].seconds / seconds if results else 1.0,
            step=previous.seconds / seconds if previous else 1.0,
            tokenization_s=step.tokenization_s,
            total_s=None if step.tokenization_s is None else seconds + step.tokenization_s,
            rows=len(ablation.lengths_N),
            timed_rows=step.timed_rows,
            standard_error_s=median_run.standard_error_s,
            runs_s=tuple(timing.seconds for timing in timings),
            note=step.note,
            is_aside=step.is_aside,
        )
        results.append(result)
        on_result(result)
    return results


def usd_per_100m(seconds: float, *, num_rows: int, usd_per_hour: float) -> float:
    """USD of 100 million texts at the rate of `num_rows` in `seconds`, on one machine."""
    return seconds / 3600 * usd_per_hour / num_rows * 1e8


def _accuracy(
    logits_NC: NDArray[np.float32] | None, labels_N: NDArray[np.generic] | None
) -> float | None:
    if logits_NC is None or labels_N is None:
        return None
    return float((logits_NC.argmax(axis=1) == labels_N).mean())


class _TokenCounter:
    """Add up the tokens of a step's runs, from several threads, and report how many are done."""

    def __init__(self, what: str, num_tokens: int, on_progress: "OnProgress") -> None:
        self._what, self._num_tokens, self._on_progress = what, num_tokens, on_progress
        self._num_done = 0
        self._lock = threading.Lock()

    def __call__(self, num_tokens: int) -> None:
        with self._lock:
            self._num_done += num_tokens
            self._on_progress(self._what, self._num_done, self._num_tokens)
