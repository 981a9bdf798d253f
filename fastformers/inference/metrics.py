"""How well numbers fit other numbers, whatever they mean.

    outputs + targets -> [metrics] -> tasks

Knows nothing of tasks.

Shape suffixes: N rows, C outputs of a row, K rows that are compared.
"""

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats

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
