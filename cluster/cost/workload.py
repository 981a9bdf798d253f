"""Estimate rows, tokens and core-seconds of a corpus from a sample, each with an interval.

    sample + profile -> [workload] -> Workload -> instance costs, plan

The estimator is the ratio estimator of two-stage cluster sampling (Cochran, Sampling Techniques,
3rd edition, 11.8): windows are drawn from the corpus, rows from windows. Intervals are of 95%, by
Student's t over the windows; one window was drawn from each stratum, which can only make them
narrower than stated here. How many different texts a window has is known, and rows that are scored
have the weight of that number (5A.9, poststratification). Intervals hold for the sampling alone,
not for the profile or its scaling. This module knows nothing of files, prices or instance types.

Shape suffixes: S rows of a window that were tokenized.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.sampling import CorpusSample, Window
from fastformers.cluster.shards.layout import plan_shard_seconds
from fastformers.errors import InputError
from fastformers.inference.batching import rows_per_batch
from fastformers.inference.cascade.record import ShareByLength
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.metrics import student_quantile

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate, and the interval that holds the truth in 95% of samples."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """The interval as plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a corpus asks of the machine that a profile was measured on.

    Attributes:
        rows: Rows of the corpus; `low` equals `high` where they are known.
        tokens: Tokens of all usable rows; each is made once.
        scored_tokens: Tokens that are scored: repeats within a shard are not.
        infer_s: Seconds of inference on one worker.
        tokenize_s: Seconds of tokenizing on one worker.
        other_s: Seconds of reading and writing.
        repeat_share: Share of usable rows whose text came before in the shard.
        bad_share: Share of rows without a usable text.
        truncated_share: Share of rows cut at the maximum length.
        histogram: Rows of the corpus by the longest length of their bin, in tokens.
        second_share: Share of the rows scored that are expected to go on to a cascade's second
            graph; None where one graph scores all.
        num_shards: Shards it is cut into, by the bundle's own cost profile.
        num_gpu_shards: Shards it is cut into for GPUs, by the same profile.
        sampled_rows, sampled_windows: Rows and windows that it was estimated from.
    """

    rows: Interval
    tokens: Interval
    scored_tokens: Interval
    infer_s: Interval
    tokenize_s: float
    other_s: float
    repeat_share: Interval
    bad_share: float
    truncated_share: float
    histogram: dict[int, float]
    num_shards: int
    num_gpu_shards: int
    sampled_rows: int
    sampled_windows: int
    second_share: float | None = None

    @property
    def core_s(self) -> float:
        """Seconds of one worker for all of the work."""
        return self.infer_s.value + self.tokenize_s + self.other_s

    @property
    def relative_error(self) -> float:
        """Half of the interval of the core-seconds, as a share of them."""
        return self.infer_s.high / self.infer_s.value - 1  # `low` ends at 0

    def to_json(self) -> dict[str, Any]:
        """The workload as plain values."""
        return {
            "rows": self.rows.value,
            "rows_interval": [self.rows.low, self.rows.high],
            "tokens": self.tokens.to_json(),
            "scored_tokens": self.scored_tokens.to_json(),
            "infer_core_s": self.infer_s.to_json(),
            "tokenize_core_s": self.tokenize_s,
            "other_core_s": self.other_s,
            "repeat_share": self.repeat_share.to_json(),
            "bad_share": self.bad_share,
            "truncated_share": self.truncated_share,
            "second_share": self.second_share,
            "length_histogram": {str(k): v for k, v in self.histogram.items()},
            "shards": self.num_shards,
            "gpu_shards": self.num_gpu_shards,
            "sampled_rows": self.sampled_rows,
            "sampled_windows": self.sampled_windows,
            "confidence": CONFIDENCE,
        }


def estimate_workload(
    sample: CorpusSample,
    profile: MachineProfile,
    *,
    shards_by: CostProfile,
    rows: int | None = None,
    goes_on: ShareByLength | None = None,
) -> Workload:
    """Estimate the workload of a corpus, or of `rows` rows like those of the corpus.

    Args:
        sample: Sample of the corpus.
        profile: Profile of the machine, which gives the seconds of rows.
        shards_by: The bundle's own cost profile, by which a run cuts shards.
        rows: Number of rows, at least 1; None for the number that the corpus has.
        goes_on: Share of rows that go on to the second graph of a cascade, by their length.

    Raises:
        InputError: There are no rows to score.
    """
    if not any(window.num_rows for window in sample.windows):
        raise InputError("the sampled parts of the corpus hold no rows; give a larger --sample")
    estimator = _Estimator(sample, rows)
    good = estimator.total(lambda w: (w.lengths_S > 0).astype(float))
    if good.value == 0:
        raise InputError("no sampled row holds a usable text; check --text-column")
    tokens = estimator.total(lambda w: w.lengths_S.astype(float))
    num_rows = estimator.rows()
    num_good = sum(w.num_rows - w.num_bad for w in sample.windows)
    text_bytes = round(sample.text_bytes * num_rows.value / max(1.0, estimator.corpus_rows))
    scored = estimator.total(lambda w: w.weights_S)
    token_s = shards_by.estimate_seconds_per_token()
    cut_s = estimator.total(_of_scored(shards_by.estimate_seconds)).value
    num_shards, num_gpu_shards = (
        max(1, round(cut_s / plan_shard_seconds(text_bytes, token_s, for_gpus=for_gpus)))
        for for_gpus in (False, True)
    )
    batches_L = expected_batches(
        _scored_lengths(sample),
        rows_per_shard=scored.value / num_shards,
        max_batch_tokens=profile.cost.max_batch_tokens,
    )
    infer_s = estimator.total(
        _of_scored(lambda lengths_S: profile.cost.estimate_seconds(lengths_S, batches_L[lengths_S]))
    )
    return Workload(
        rows=num_rows,
        tokens=tokens,
        scored_tokens=estimator.total(lambda w: w.weights_S * w.lengths_S),
        infer_s=infer_s,
        tokenize_s=tokens.value * profile.tokenize_s_per_token,
        other_s=infer_s.value * profile.overhead_share,
        repeat_share=_repeat_share(sample, num_good),
        bad_share=1 - num_good / sum(w.num_rows for w in sample.windows),
        truncated_share=(
            estimator.total(lambda w: (w.lengths_S >= sample.max_length).astype(float)).value
            / num_rows.value
        ),
        histogram=_histogram(estimator, sample.max_length),
        num_shards=num_shards,
        num_gpu_shards=num_gpu_shards,
        sampled_rows=sample.num_rows,
        sampled_windows=len(sample.windows),
        second_share=None
        if goes_on is None
        else estimator.total(_of_scored(goes_on.at)).value / scored.value,
    )


def estimate_share_s(
    sample: CorpusSample,
    profile: MachineProfile,
    workload: Workload,
    *,
    share: float,
    rows: int | None = None,
) -> Interval:
    """Seconds of inference on one worker if each row is scored with a chance of `share`.

    A text that occurs several times in a shard is scored once, and its chance is that of its rows
    together; the estimate takes texts to occur as often as they do on average.

    Args:
        sample: Sample of the corpus.
        profile: Profile of the machine, of the bundle that scores these rows.
        workload: Workload of the corpus, with its shards.
        share: Chance of a row, 0-1.
        rows: Number of rows, as for `estimate_workload`.
    """
    unique_share = max(1e-9, 1 - workload.repeat_share.value)
    chance = 1 - (1 - share) ** (1 / unique_share)
    texts = workload.rows.value * (1 - workload.bad_share) * unique_share
    batches_L = expected_batches(
        _scored_lengths(sample),
        rows_per_shard=chance * texts / workload.num_shards,
        max_batch_tokens=profile.cost.max_batch_tokens,
    )
    return _Estimator(sample, rows).total(
        _of_scored(
            lambda lengths_S: (
                chance * profile.cost.estimate_seconds(lengths_S, batches_L[lengths_S])
            )
        )
    )


def _scored_lengths(sample: CorpusSample) -> NDArray[np.int64]:
    """Lengths of the rows that stand for the texts that are scored."""
    return np.concatenate([window.lengths_S[window.weights_S > 0] for window in sample.windows])


def _of_scored(
    seconds: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> Callable[[Window], NDArray[np.float64]]:
    """Seconds of the texts of a window that are scored: not of repeats, nor of bad rows."""

    def of_window(window: Window) -> NDArray[np.float64]:
        seconds_S = window.weights_S
        stand_S = seconds_S > 0
        seconds_S[stand_S] *= seconds(window.lengths_S[stand_S])
        return seconds_S

    return of_window


def expected_batches(
    lengths_M: NDArray[np.int64], *, rows_per_shard: float, max_batch_tokens: int
) -> NDArray[np.float64]:
    """Expected number of batches per row of each length, which may share them with equal ones.

    A row shares its batch with the rows of its length in its shard, and how many these are is
    Poisson distributed, with the share of the length among the other rows of the sample.

    Args:
        lengths_M: Lengths of the M sampled rows that are scored.
        rows_per_shard: Rows of a shard that are scored.
        max_batch_tokens: Token budget of a batch.

    Returns:
        Batches per row, at the index of its length: 1 if such a row is always alone.
    """
    batches_L = np.ones(int(lengths_M.max(initial=0)) + 1)
    lengths, counts = np.unique(lengths_M, return_counts=True)
    others = max(0.0, rows_per_shard - 1) * (counts - 1) / max(1, len(lengths_M) - 1)
    limits = rows_per_batch(lengths, max_batch_tokens)
    for length, mean, limit in zip(lengths.tolist(), others.tolist(), limits.tolist(), strict=True):
        neighbors = np.arange(int(mean + 8 * math.sqrt(mean) + 12))
        log_chances = (
            neighbors * math.log(mean) - mean - _log_factorials(len(neighbors)) if mean else 0
        )
        chances = np.exp(log_chances) if mean else (neighbors == 0).astype(float)
        rows = neighbors + 1
        batches_L[length] = float((chances * -(-rows // limit) / rows).sum() / chances.sum())
    return batches_L


def _log_factorials(count: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count)))])


class _Estimator:
    """Estimates totals over the corpus from the windows of a sample."""

    def __init__(self, sample: CorpusSample, rows: int | None) -> None:
        self._windows = sample.windows
        self._rows = rows
        sizes = np.array([w.size for w in self._windows], float)
        counts = np.array([w.num_rows for w in self._windows], float)
        self.corpus_rows = (
            float(sample.total_size)
            if sample.is_rows
            else sample.total_size * counts.sum() / sizes.sum()
        )
        self._is_rows = sample.is_rows or rows is not None
        # Rows like those of the corpus come from the same unlimited population as the corpus.
        self._sizes = counts if rows is not None else sizes
        self._total_size = float(rows if rows is not None else sample.total_size)
        self._share_read = 0.0 if rows is not None else len(self._windows) / sample.num_windows

    def rows(self) -> Interval:
        """Rows of the corpus."""
        if self._is_rows:
            return Interval(value=self._total_size, low=self._total_size, high=self._total_size)
        counts = np.array([w.num_rows for w in self._windows], float)
        return self._ratio(counts, np.zeros_like(counts))

    def total(self, values: Callable[[Window], NDArray[np.float64]]) -> Interval:
        """Sum over all rows of a quantity that is known of each tokenized row."""
        sums, variances = [], []
        for window in self._windows:
            values_S = values(window)
            rows, taken = window.num_rows, len(values_S)
            if taken == 0:
                sums.append(0.0)
                variances.append(0.0)
                continue
            spread = float(values_S.var(ddof=1)) if taken > 1 else 0.0
            sums.append(rows * float(values_S.mean()))
            variances.append(rows**2 * (1 - taken / rows) * spread / taken)
        return self._ratio(np.array(sums), np.array(variances))

    def _ratio(self, sums: NDArray[np.float64], variances: NDArray[np.float64]) -> Interval:
        """Total of the corpus from the windows' sums and the variance of each of these."""
        read = self._sizes.sum()
        ratio = sums.sum() / read
        num = len(sums)
        between = ((sums - ratio * self._sizes) ** 2).sum() / (num - 1) * num if num > 1 else 0.0
        # In units of the sum over the windows read: between windows, then within them.
        variance = (1 - self._share_read) * between + self._share_read * variances.sum()
        freedom = num - 1
        if self._share_read == 1:
            freedom = sum(len(w.lengths_S) for w in self._windows) - num
        half = student_t(freedom) * math.sqrt(float(variance)) * self._total_size / float(read)
        value = float(ratio * self._total_size)
        return Interval(value=value, low=max(0.0, value - half), high=value + half)


def student_t(freedom: int) -> float:
    """Two-sided 95% quantile of Student's t; 3 degrees are assumed where there are fewer."""
    return student_quantile(NormalDist().inv_cdf((1 + CONFIDENCE) / 2), max(3, freedom))


def _repeat_share(sample: CorpusSample, num_good: int) -> Interval:
    good = np.array([w.num_rows - w.num_bad for w in sample.windows], float)
    repeats = good - np.array([w.num_unique for w in sample.windows], float)
    share = float(repeats.sum()) / max(1, num_good)
    num = len(good)
    half = 0.0
    if num > 1 and num < sample.num_windows:
        variance = ((repeats - share * good) ** 2).sum() / (num - 1) * num
        variance *= 1 - num / sample.num_windows
        half = student_t(num - 1) * math.sqrt(float(variance)) / max(1, num_good)
    return Interval(value=share, low=max(0.0, share - half), high=min(1.0, share + half))


def _histogram(estimator: _Estimator, max_length: int) -> dict[int, float]:
    """Rows by length: bins end at powers of two and at the maximum length."""
    edges = sorted({*(2**power for power in range(3, 16) if 2**power < max_length), max_length})
    histogram: dict[int, float] = {}
    low = 0
    for edge in edges:

        def is_in_bin(w: Window, low: int = low, edge: int = edge) -> NDArray[np.float64]:
            return ((w.lengths_S > low) & (w.lengths_S <= edge)).astype(float)

        histogram[edge] = estimator.total(is_in_bin).value
        low = edge
    return histogram
