"""Scale the seconds of some texts to all texts, and say how sure that is.

    lengths -> [scaling] -> which texts are timed -> their seconds -> [scaling] -> seconds of all

The standard errors are those of the sample alone: what other texts would have said on the same
machine in the same minute. This module knows nothing of models.

Shape suffixes: N texts, S texts that are timed.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_Z = 2.5758  # of a 99% interval of the median


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of all texts.

    Attributes:
        seconds: The estimate.
        standard_error_s: Its standard error; None where all texts were timed, or only one.
    """

    seconds: float
    standard_error_s: float | None


def spread_sample(lengths_N: NDArray[np.integer], num_rows: int) -> NDArray[np.intp]:
    """Texts (S,) that stand for all, evenly spaced over the texts sorted by length.

    Each is the middle of one of S groups of equally many texts, and they come in the order of
    their lengths. If `num_rows` is N or more, these are all texts in their own order.
    """
    if num_rows >= len(lengths_N):
        return np.arange(len(lengths_N))
    order_N = np.argsort(lengths_N, kind="stable")
    middles_S = ((np.arange(num_rows) + 0.5) * len(lengths_N) / num_rows).astype(np.intp)
    sample_S: NDArray[np.intp] = order_N[middles_S]
    return sample_S


def scale_equal(times_S: NDArray[np.float64], num_rows: int) -> Estimate:
    """Seconds of N texts of one cost (padded), by the median, so that interruptions do not count.

        T = N median(t),   SE(T) = N sqrt(1 - S/N) (t[S+1-c] - t[c]) / 2z

    with the times sorted, c = (S + 1)/2 - z sqrt(S/4) rounded, at least 1, and z = 2.5758. The
    least and the largest of fewer than 8 times hold the median less often than 99 times in 100,
    namely 1 - 2^(1-S), so z is that of this share.

    Args:
        times_S: Seconds of each timed text.
        num_rows: N. If all were timed, the result is their sum.

    Source:
        McKean and Schrader 1984, "A comparison of methods for studentizing the sample median".
    """
    num_timed = len(times_S)
    if num_timed == num_rows:
        return Estimate(seconds=float(times_S.sum()), standard_error_s=None)
    seconds = num_rows * float(np.median(times_S))
    if num_timed == 1:
        return Estimate(seconds=seconds, standard_error_s=None)
    place = max(1, round((num_timed + 1) / 2 - _Z * math.sqrt(num_timed / 4)))
    sorted_S = np.sort(times_S)
    z = min(_Z, NormalDist().inv_cdf(1 - 2.0 ** -min(num_timed, 50)))
    spread = float(sorted_S[num_timed - place] - sorted_S[place - 1]) / (2 * z)
    error = num_rows * math.sqrt(1 - num_timed / num_rows) * spread
    return Estimate(seconds=seconds, standard_error_s=error)


def scale_by_tokens(
    times_S: NDArray[np.float64],
    tokens_S: NDArray[np.integer],
    *,
    num_rows: int,
    num_tokens: int,
) -> Estimate:
    """Seconds of N texts, by the ratio of seconds to tokens in a sample of `spread_sample`.

        T = X r,   r = sum(t) / sum(x),   e = t - r x
        SE(T) = X / mean(x) sqrt((1 - S/N) / S) sqrt(sum((e[s+1] - e[s])^2) / (2 (S - 1)))

    X are the tokens of all texts. The sample is systematic: one text of each of S groups by length.
    Differences of neighbors estimate the variance inside the groups, for which one text of a group
    says nothing by itself; a cost that grows faster than the tokens, which moves neighbors alike,
    does not count as noise.

    Args:
        times_S: Seconds of each timed text, in the order of their lengths.
        tokens_S: Tokens of each, x.
        num_rows: N. If all were timed, the result is the sum of the times.
        num_tokens: X.

    Source:
        Cochran 1977, Sampling Techniques, 6.4 (ratio); Wolter 2007, Introduction to Variance
        Estimation, 8.2 (successive differences of a systematic sample).
    """
    num_timed = len(times_S)
    if num_timed == num_rows:
        return Estimate(seconds=float(times_S.sum()), standard_error_s=None)
    rate = float(times_S.sum() / tokens_S.sum())
    seconds = num_tokens * rate
    if num_timed == 1:
        return Estimate(seconds=seconds, standard_error_s=None)
    jumps = np.diff(times_S - rate * tokens_S)
    variance = float((jumps**2).sum()) / (2 * num_timed * (num_timed - 1))
    error = math.sqrt((1 - num_timed / num_rows) * variance) * num_tokens / float(tokens_S.mean())
    return Estimate(seconds=seconds, standard_error_s=error)
