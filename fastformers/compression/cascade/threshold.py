"""Choose which rows a student hands on to a better graph, by what that loses on held-out rows.

    logits of both graphs, held-out targets -> [threshold] -> threshold, share that goes on -> build

The threshold is set on held-out rows, which trained no student: a student is surer of rows that it
was trained on. It starts where all rows go on, which loses nothing, and falls step by step for as
long as the loss stays below what is allowed with a confidence of 90%: the estimate plus 1.28
standard errors of the difference between cascade and second graph, row by row. Stopping at the
first step that fails keeps the confidence however many steps there are (fixed sequence testing),
and the last one that holds is the cheapest, as each step sends fewer rows on. This module knows
nothing of graphs.

Shape suffixes: N held-out rows, C outputs.

Source:
    Angelopoulos et al. 2021, arXiv:2110.01052 (fixed sequence testing).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.data.held_out import HeldOut
from fastformers.errors import InputError, QualityError
from fastformers.inference.cascade.margins import margins
from fastformers.inference.cascade.record import ShareByLength
from fastformers.inference.tasks import MULTI_LABEL_CLASSIFICATION

# One-sided 90% quantile of a normal distribution; steps from all rows that go on to none.
_CONFIDENCE_Z, _NUM_STEPS = 1.2816, 400
# Lengths at which the share is stored, and rows that each is estimated from at least.
_MAX_BINS, _MIN_BIN_ROWS = 8, 200


@dataclass(frozen=True, kw_only=True)
class CascadePlan:
    """Which rows go on to a second graph, and what that loses on held-out rows.

    Attributes:
        threshold: Rows with a smaller margin go on.
        share: Share of the held-out rows that go on.
        share_by_length: The same by their length.
        num_held_out: Number of held-out rows.
        drop: Points of 100 x the metric that the cascade loses to the second graph.
        drop_bound: Points that it loses at most, with a confidence of 90%.
    """

    threshold: float
    share: float
    share_by_length: ShareByLength
    num_held_out: int
    drop: float
    drop_bound: float


def plan_cascade(
    first_NC: Floats,
    second_NC: Floats,
    lengths_N: NDArray[np.integer],
    held_out: HeldOut,
    *,
    max_drop: float,
) -> CascadePlan:
    """The threshold that sends the fewest rows on and loses no more than allowed.

    Args:
        first_NC, second_NC: Logits of the two graphs on held-out rows.
        lengths_N: Tokens of the rows.
        held_out: Their targets.
        max_drop: Points of 100 x the metric that may be lost to the second graph.

    Raises:
        QualityError: Even next to all rows must go on, or none needs to.
    """
    margins_N = margins(held_out.task, first_NC)
    loss = _Loss(first_NC, second_NC, held_out)
    ordered_N = np.sort(margins_N)
    steps = np.unique(np.linspace(0, len(ordered_N) - 1, _NUM_STEPS + 1).astype(np.intp))[::-1]
    thresholds = dict.fromkeys(ordered_N[steps].tolist())
    held: tuple[float, float, float] | None = None
    for threshold in thresholds:
        drop, bound = loss.at(margins_N < threshold)
        if bound > max_drop:
            break
        held = threshold, drop, bound
    if held is None:
        raise QualityError(
            f"--cascade-drop {max_drop:g}: the rows that choose ({len(margins_N):,}) cannot show "
            f"that so little is lost where some are left to the student ({bound:.2f} points with "
            "nearly all of them going on, at a confidence of 90%); allow more, or give more rows "
            "by --select or --select-share"
        )
    threshold, drop, bound = held
    goes_on_N = margins_N < threshold
    if not goes_on_N.any():
        raise QualityError(
            f"--cascade-drop {max_drop:g}: the student alone loses no more ({drop:.2f} points to "
            "the second graph); leave --cascade out"
        )
    return CascadePlan(
        threshold=threshold,
        share=float(goes_on_N.mean()),
        share_by_length=_share_by_length(goes_on_N, lengths_N),
        num_held_out=len(margins_N),
        drop=drop,
        drop_bound=bound,
    )


def check_enough_rows(num_rows: int, max_drop: float) -> None:
    """Refuse rows so few that the first step, of which next to all go on, would not hold.

    Args:
        num_rows: Number of held-out rows.
        max_drop: Points of 100 x the metric that may be lost to the second graph.

    Raises:
        InputError: A threshold would be set by chance alone.
    """
    least = 100 * _CONFIDENCE_Z / num_rows
    if least > max_drop:
        raise InputError(
            f"--cascade-drop {max_drop:g}: the rows that choose ({num_rows:,}) cannot show a loss "
            f"below {least:.2f} points at a confidence of 90%; allow more, or give more rows by "
            "--select or --select-share"
        )


class _Loss:
    """What a cascade loses to its second graph on held-out rows, by which of them go on.

    The metric is a ratio of sums over rows: right rows over rows, or for several labels twice the
    right ones over those predicted and those that hold. Its standard error follows from what each
    row adds (the delta method); rows of one question count together.
    """

    def __init__(self, first_NC: Floats, second_NC: Floats, held_out: HeldOut) -> None:
        self._first, self._second = (
            _ratio_parts(outputs_NC, held_out) for outputs_NC in (first_NC, second_NC)
        )
        groups_N = held_out.groups_N
        self._group_N = None if groups_N is None else np.unique(groups_N, return_inverse=True)[1]

    def at(self, goes_on_N: NDArray[np.bool_]) -> tuple[float, float]:
        """Points of 100 x the metric that are lost, as estimated and at most (90%)."""
        second, second_N = _influence(*self._second)
        parts = (
            np.where(goes_on_N, of_second, of_first)
            for of_first, of_second in zip(self._first, self._second, strict=True)
        )
        own, own_N = _influence(*parts)
        apart_N = second_N - own_N
        if self._group_N is not None:
            apart_N = np.bincount(self._group_N, weights=apart_N).astype(np.float64)
        # No difference at all in few rows does not mean none in others: one is assumed.
        error = max(math.sqrt(float(np.square(apart_N).sum())), 1.0) / len(goes_on_N)
        drop = second - own
        return 100 * drop, 100 * (drop + _CONFIDENCE_Z * error)


def _ratio_parts(
    outputs_NC: Floats, held_out: HeldOut
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each row adds to the metric's numerator (N,) and denominator (N,)."""
    targets_N = held_out.targets_N
    if held_out.task == MULTI_LABEL_CLASSIFICATION:
        is_true_NC, is_predicted_NC = targets_N != 0, outputs_NC >= 0
        right_N = 2.0 * (is_true_NC & is_predicted_NC).sum(axis=1)
        return right_N, (is_true_NC.sum(axis=1) + is_predicted_NC.sum(axis=1)).astype(np.float64)
    is_right_N = (outputs_NC.argmax(axis=1) == targets_N).astype(np.float64)
    return is_right_N, np.ones(len(is_right_N))


def _influence(
    above_N: NDArray[np.float64], below_N: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """A ratio of sums, and what each row moves it by, times the number of rows."""
    total = float(below_N.sum())
    if total == 0:
        return 1.0, np.zeros(len(below_N))
    ratio = float(above_N.sum()) / total
    return ratio, (above_N - ratio * below_N) * (len(below_N) / total)


def _share_by_length(goes_on_N: NDArray[np.bool_], lengths_N: NDArray[np.integer]) -> ShareByLength:
    """Share of rows that go on, in bins of about equally many rows, at the bins' mean lengths."""
    num_bins = int(np.clip(len(lengths_N) // _MIN_BIN_ROWS, 1, _MAX_BINS))
    bins = np.array_split(np.argsort(lengths_N, kind="stable"), num_bins)
    by_length: dict[float, list[NDArray[np.intp]]] = {}
    for rows in bins:
        by_length.setdefault(float(lengths_N[rows].mean()), []).append(rows)
    shares = [float(goes_on_N[np.concatenate(rows)].mean()) for rows in by_length.values()]
    return ShareByLength(lengths=tuple(by_length), shares=tuple(shares))
