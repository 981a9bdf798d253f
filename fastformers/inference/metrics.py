"""How well numbers fit other numbers, whatever they mean, and how sure a sample makes of it.

    outputs + targets -> [metrics] -> tasks
    sums over a sample -> [metrics] -> interval

An interval holds the truth in 95% of samples. Knows nothing of tasks.

Shape suffixes: N rows, C outputs of a row, K rows that are compared.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats

Z95 = 1.959964  # standard normal quantile of a 95% interval

# The number of pairs grows with the square of the texts: 1,000 texts make half a million.
MAX_COMPARED_TEXTS = 1000


def best_of_groups(scores_N: Floats, groups_N: NDArray[np.int64]) -> NDArray[np.intp]:
    """Row of the largest score in each group, in the order of the groups; the first of equals."""
    order_N = np.lexsort((-scores_N, groups_N))
    _, firsts = np.unique(groups_N[order_N], return_index=True)
    return order_N[firsts]


def spearman(first_N: NDArray[np.generic], second_N: NDArray[np.generic]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 0 if one is constant."""
    first_ranks_N, second_ranks_N = ranks_of(first_N), ranks_of(second_N)
    if np.array_equal(first_ranks_N, second_ranks_N):
        return 1.0
    first_ranks_N -= first_ranks_N.mean()
    second_ranks_N -= second_ranks_N.mean()
    norm = np.sqrt(np.square(first_ranks_N).sum() * np.square(second_ranks_N).sum())
    return float((first_ranks_N * second_ranks_N).sum() / norm) if norm else 0.0


def rank_agreement(embeddings_NC: Floats, teacher_embeddings_NC: Floats) -> float:
    """Agreement of two models in how they rank pairs of texts by similarity.

    It is Spearman's correlation of the cosines of all pairs of at most `MAX_COMPARED_TEXTS` rows,
    evenly spaced. Where it is 1, a search with either model finds the same texts.
    """
    cosines_KK, teacher_cosines_KK = (
        compared_cosines(vectors_NC) for vectors_NC in (embeddings_NC, teacher_embeddings_NC)
    )
    upper = np.triu_indices(len(cosines_KK), k=1)
    return spearman(cosines_KK[upper], teacher_cosines_KK[upper])


def compared_cosines(embeddings_NC: Floats) -> Floats:
    """Cosines (K, K) of the rows that `rank_agreement` compares."""
    num_rows = len(embeddings_NC)
    rows_K = np.linspace(0, num_rows - 1, min(num_rows, MAX_COMPARED_TEXTS)).astype(int)
    unit_KC = unit_rows(embeddings_NC[rows_K])
    cosines_KK: Floats = unit_KC @ unit_KC.T
    return cosines_KK


def f1(is_predicted: NDArray[np.bool_], is_true: NDArray[np.bool_]) -> float:
    """F1 over all entries; 1 where nothing is true and nothing was predicted."""
    num_marked = int(is_predicted.sum()) + int(is_true.sum())
    return 2 * int((is_predicted & is_true).sum()) / num_marked if num_marked else 1.0


def macro_f1(classes_N: NDArray[np.intp], targets_N: NDArray[np.generic]) -> float:
    """Mean F1 of the classes that occur, in the targets or among the predictions."""
    occurring = np.union1d(classes_N, targets_N)
    return float(np.mean([f1(classes_N == c, targets_N == c) for c in occurring]))


def ranks_of(values_N: NDArray[np.generic]) -> NDArray[np.float64]:
    """Rank of each value from 0, equal values sharing their mean rank."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return ranks[inverse_N]


def unit_rows(vectors_NC: Floats) -> Floats:
    """The vectors at length 1; zeros stay zeros."""
    norms_N = np.linalg.norm(vectors_NC, axis=1, keepdims=True).astype(np.float32)
    unit_NC: Floats = vectors_NC / np.maximum(norms_N, np.float32(1e-12))
    return unit_NC


def share_interval(num_equal: float, num_rows: float) -> tuple[float, float]:
    """Interval of a share of rows, each drawn by itself; it keeps to 0-1, however few they are.

    Args:
        num_equal, num_rows: Rows that count, and all rows, at least 1. Where a sample is a share f
            of all rows there are, give both over 1 - f: what was seen needs no guess.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    share, weight = num_equal / num_rows, Z95**2 / num_rows
    center = (share + weight / 2) / (1 + weight)
    half = Z95 * math.sqrt(share * (1 - share) / num_rows + weight / num_rows / 4) / (1 + weight)
    return max(0.0, center - half), min(1.0, center + half)


def is_share_below(least: float, num_equal: int, num_rows: int, *, chance: float) -> bool:
    """Whether a share is below `least`, however often this is asked while rows are drawn.

    Of runs whose share is `least`, at most a part of `chance` is ever told so: the ratio of the
    likelihood under all shares, weighed alike, to that under `least` is a martingale.

    Args:
        least: The share, above 0 and at most 1.
        num_equal, num_rows: Rows so far that count, and all of them.
        chance: Chance of an error.

    Source:
        Robbins 1970, doi:10.1214/aoms/1177696786.
    """
    num_others = num_rows - num_equal
    if num_equal >= least * num_rows:
        return False
    if least == 1:
        return True
    mixed = math.lgamma(num_equal + 1) + math.lgamma(num_others + 1) - math.lgamma(num_rows + 2)
    exact = num_equal * math.log(least) + num_others * math.log1p(-least)
    return mixed - exact > -math.log(chance)


def difference_interval(
    only_first: float, only_second: float, num_rows: float
) -> tuple[float, float]:
    """Interval of the accuracy of one model less that of another, on the same rows.

    Args:
        only_first, only_second: Rows that one of the two has right and the other has wrong.
        num_rows: All rows, at least 1; of a large share of all as for `share_interval`.

    Source:
        Agresti and Min 2005, doi:10.1002/sim.1781: half a row is added to each of the four kinds.
    """
    rows = num_rows + 2
    center = (only_first - only_second) / rows
    variance = ((only_first + only_second + 1) / rows - center**2) / rows
    half = Z95 * math.sqrt(variance)
    return max(-1.0, center - half), min(1.0, center + half)


def mean_interval(mean: float, mean_square: float, num_rows: float) -> tuple[float, float]:
    """Interval of a mean over rows, by the normal distribution, so of 30 rows or more.

    Args:
        mean, mean_square: Means of the values and of their squares.
        num_rows: Rows, at least 2; of a large share of all as for `share_interval`.
    """
    half = Z95 * math.sqrt(max(0.0, mean_square - mean**2) / (num_rows - 1))
    return mean - half, mean + half


def spearman_interval(correlation: float, num_rows: float) -> tuple[float, float]:
    """Fisher's interval of Spearman's rank correlation, between -1 and 1, of 4 pairs or more.

    Source:
        Fieller, Hartley and Pearson 1957, Biometrika 44:470, of its variance.
    """
    center, half = math.atanh(correlation), Z95 * math.sqrt(1.06 / (num_rows - 3))
    return math.tanh(center - half), math.tanh(center + half)


def student_quantile(z: float, freedom: float) -> float:
    """Quantile of Student's t where the standard normal distribution has z.

    That of 97.5% is 3% too low with 2 degrees of freedom, 0.7% with 3, 0.3% with 4, 0.1% with 5.

    Source:
        Abramowitz and Stegun 1964, 26.7.5, the expansion of Cornish and Fisher.
    """
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
