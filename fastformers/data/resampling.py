"""How sure a metric is that was measured on held-out rows: the paired bootstrap.

    HeldOut, outputs -> [resampling] -> the metric on 1,000 draws of the rows -> intervals

The rows are drawn anew with replacement, as many as there are, and the metric is taken of each
draw. Where rows share a question, as in MultiRC, ReCoRD and multiple choice, whole questions are
drawn, because their rows are right or wrong together. All models meet the same draws, so that two
of them can be compared draw by draw: what both get wrong says nothing of their difference.

Nothing is measured again for a draw. A draw is a weight for each unit that is drawn, and each
metric is made of weighted sums: a ratio of two for accuracies and F1, a correlation for the
others, whose ranks stay those of all rows.

Shape suffixes: N rows, C outputs, U units that are drawn (rows or questions), R draws, K rows whose
pairs are compared, P pairs.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.data.held_out import HeldOut
from fastformers.inference.metrics import compared_cosines, ranks_of

NUM_DRAWS = 1000
_PERCENTILES = (2.5, 97.5)
_BLOCK = 100  # draws at a time: 20 MB of weights for 25,000 rows

Values = NDArray[np.float64]
Interval = tuple[float, float]


def resample_metric(
    held_out: HeldOut, outputs_NC: Floats, teacher_outputs_NC: Floats, *, seed: int = 0
) -> Values:
    """The metric of a model on 1,000 draws of the held-out rows, (R,).

    Args:
        held_out: Targets of the rows.
        outputs_NC: Outputs of the model.
        teacher_outputs_NC: Outputs of the teacher; embeddings have no other target.
        seed: Seed of the draws; values are comparable draw by draw where it is the same.
    """
    targets = held_out.task.targets
    if targets == "none":
        return _rank_agreements(outputs_NC, teacher_outputs_NC, seed)
    if targets == "number":
        x_N, y_N = ranks_of(outputs_NC[:, 0]), ranks_of(held_out.targets_N)
        terms = np.stack([np.ones(len(x_N)), *_terms(x_N - x_N.mean(), y_N - y_N.mean())])
        return _correlation(np.concatenate([terms @ w.T for w in _draw(len(x_N), seed)], axis=1))
    right_U, judged_U = held_out.count_right(outputs_NC)
    parts = np.stack([right_U, judged_U])
    sums = np.concatenate([parts @ weights.T for weights in _draw(len(right_U), seed)], axis=1)
    right_R, judged_R = sums
    values_R: Values = np.divide(right_R, judged_R, out=np.ones(NUM_DRAWS), where=judged_R > 0)
    return values_R


def interval_of(values_R: Values) -> Interval:
    """The 95% interval of a metric, or of a difference, by its values on the draws."""
    low, high = np.percentile(values_R, _PERCENTILES)
    return float(low), float(high)


def is_within_noise(values_R: Values, other_values_R: Values) -> bool:
    """Whether the paired 95% interval of the difference of two models includes 0."""
    low, high = interval_of(values_R - other_values_R)
    return low <= 0 <= high


def _draw(num_units: int, seed: int) -> Iterator[Values]:
    """How many times each unit is in each draw, (R, U), some draws at a time."""
    rng = np.random.default_rng(seed)
    for _ in range(NUM_DRAWS // _BLOCK):
        units_RU = rng.integers(num_units, size=(_BLOCK, num_units))
        yield np.stack([np.bincount(u, minlength=num_units) for u in units_RU]).astype(np.float64)


def _rank_agreements(outputs_NC: Floats, teacher_outputs_NC: Floats, seed: int) -> Values:
    """Correlation over the pairs of different texts; a pair counts as often as both were drawn."""
    cosines = [compared_cosines(vectors) for vectors in (outputs_NC, teacher_outputs_NC)]
    num_rows = len(cosines[0])
    upper = np.triu_indices(num_rows, k=1)
    ranks = []
    for cosines_KK in cosines:
        ranks_KK = np.zeros((num_rows, num_rows))
        ranks_P = ranks_of(cosines_KK[upper])
        ranks_KK[upper] = ranks_P - ranks_P.mean()
        ranks.append(ranks_KK)
    pairs = np.zeros((num_rows, num_rows))
    pairs[upper] = 1
    terms = [pairs, *_terms(*ranks)]
    sums = [[((w @ term) * w).sum(axis=1) for term in terms] for w in _draw(num_rows, seed)]
    return _correlation(np.concatenate(sums, axis=1))


def _terms(x: Values, y: Values) -> list[Values]:
    """What a correlation sums up, beside the number of values."""
    return [x, y, x * x, y * y, x * y]


def _correlation(sums: Values) -> Values:
    """Correlation on each draw, from the sums (6, R); as `spearman`, 0 where one is constant."""
    count, x, y, xx, yy, xy = sums
    both = xy * count - x * y
    norm = np.sqrt(np.maximum((xx * count - x * x) * (yy * count - y * y), 0))
    values_R: Values = np.divide(both, norm, out=np.zeros_like(both), where=norm > 0)
    return values_R
