"""Fit how throughput grows with the number of actors, and find where it stops to.

    rows per second by actors, of several turns -> [laws] -> serial share, knee -> report

Amdahl's law says that a share of the work cannot be divided; the universal scalability law adds
what actors lose by agreeing with each other, so that throughput has a peak, the knee. Both are
fitted to medians over the turns, and to each turn by itself: how these fits differ is the interval,
by Student's t, because turns are few. This module knows nothing of actors, shards or prices.

Shape suffixes: T turns, P points (numbers of actors).

Sources:
    Amdahl 1967, Validity of the single processor approach (AFIPS 30).
    Gunther 2007, Guerrilla Capacity Planning, chapter 6; arXiv:0808.1431 for the proof that the law
    is the throughput of a queue whose jobs also wait for each other.
"""

import itertools
import math
import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.inference.metrics import Z95, student_quantile

# Two-sided 95% quantiles of Student's t with 1 to 4 degrees of freedom, where an expansion is off.
_FEW_T = (12.7062, 4.3027, 3.1824, 2.7764)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A fitted number.

    Attributes:
        value: The fit to the medians.
        low, high: Bounds of the interval that holds the truth in 95% of tests, 0 or above; None of
            one turn, which does not say how turns differ.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """Throughput of N actors: base N / (1 + contention (N - 1) + coordination N (N - 1)).

    Attributes:
        base: Rows per second of one actor, by the fit.
        contention: Share of the time that actors wait for something that only one can have.
        coordination: What each pair of actors costs; 0 for Amdahl's law.
    """

    base: float
    contention: float
    coordination: float = 0.0

    def rate(self, num_actors: float) -> float:
        """Rows per second of a number of actors."""
        pairs = num_actors * (num_actors - 1)
        lost = self.contention * (num_actors - 1) + self.coordination * pairs
        return self.base * num_actors / (1 + lost)

    @property
    def knee(self) -> float | None:
        """Number of actors of the highest throughput; None where more actors always bring more."""
        if self.coordination <= 0:
            return None
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coordination))


@dataclass(frozen=True, kw_only=True)
class FittedLaws:
    """Both laws, and how well the turns determine them.

    Attributes:
        amdahl: Fit with coordination 0; its contention is the serial share.
        universal: Fit of the universal scalability law; None with fewer than three numbers of
            actors, which cannot tell contention from coordination.
        serial_share: Serial share of Amdahl's law.
        contention, coordination: Parameters of the universal law (sigma and kappa).
        knee: Number of actors of its highest throughput; None where more always bring more.
    """

    amdahl: ScalingLaw
    universal: ScalingLaw | None
    serial_share: Estimate
    contention: Estimate | None
    coordination: Estimate | None
    knee: float | None


def fit_laws(num_actors_P: NDArray[np.float64], rates_TP: NDArray[np.float64]) -> FittedLaws:
    """Fit both laws to measured rates.

    Args:
        num_actors_P: Numbers of actors, at least two different ones.
        rates_TP: Rows per second of each point in each turn. A turn is fitted as a whole, because a
            slow moment of the machine slows all of its points.

    Raises:
        ValueError: There are fewer than two numbers of actors, or a rate is not above 0.
    """
    if len(set(num_actors_P.tolist())) < 2:
        raise ValueError("a law needs at least two numbers of actors")
    if not (np.isfinite(rates_TP).all() and (rates_TP > 0).all()):
        raise ValueError("a rate is not above 0 and finite")
    has_three = len(set(num_actors_P.tolist())) > 2
    amdahl = fit_law(num_actors_P, np.median(rates_TP, axis=0), has_coordination=False)
    universal = None
    if has_three:
        universal = fit_law(num_actors_P, np.median(rates_TP, axis=0), has_coordination=True)
    serial, contention, coordination = [], [], []
    for rates_P in rates_TP:
        of_turn = fit_law(num_actors_P, rates_P, has_coordination=False)
        serial.append(of_turn.contention)
        if has_three:
            of_turn = fit_law(num_actors_P, rates_P, has_coordination=True)
            contention.append(of_turn.contention)
            coordination.append(of_turn.coordination)
    return FittedLaws(
        amdahl=amdahl,
        universal=universal,
        serial_share=_estimate(amdahl.contention, serial),
        contention=None if universal is None else _estimate(universal.contention, contention),
        coordination=None if universal is None else _estimate(universal.coordination, coordination),
        knee=None if universal is None else universal.knee,
    )


def fit_law(
    num_actors_P: NDArray[np.float64], rates_P: NDArray[np.float64], *, has_coordination: bool
) -> ScalingLaw:
    """Fit one law by least squares without negative parameters.

    N over the rate is linear: 1 / base + contention / base (N - 1) + coordination / base N (N - 1).
    Each equation is multiplied by rate / N, so that errors are relative to the measured rate.

    Args:
        num_actors_P: Numbers of actors.
        rates_P: Rows per second of each.
        has_coordination: Whether to fit the universal law rather than Amdahl's.
    """
    others_P = num_actors_P - 1
    columns = [np.ones_like(others_P), others_P]
    if has_coordination:
        columns.append(num_actors_P * others_P)
    weights_P = rates_P / num_actors_P
    solution = solve_nonnegative(
        np.stack(columns, axis=1) * weights_P[:, None], np.ones_like(weights_P)
    )
    inverse_base = float(solution[0])
    return ScalingLaw(
        base=1 / inverse_base,
        contention=float(solution[1]) / inverse_base,
        coordination=float(solution[2]) / inverse_base if has_coordination else 0.0,
    )


def solve_nonnegative(
    matrix_PK: NDArray[np.float64], target_P: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares with no component below 0, for a handful of components.

    The solution is the unconstrained one of some subset of the components, the others being 0; all
    subsets are tried, of which there are few.

    Source:
        Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23: the conditions of Kuhn
        and Tucker that single out that subset.
    """
    num = matrix_PK.shape[1]
    best, least = np.zeros(num), math.inf
    for size in range(1, num + 1):
        for subset in itertools.combinations(range(num), size):
            part, *_ = np.linalg.lstsq(matrix_PK[:, subset], target_P, rcond=None)
            if (part < 0).any():
                continue
            error = float(np.sum((matrix_PK[:, subset] @ part - target_P) ** 2))
            if error < least:
                best, least = np.zeros(num), error
                best[list(subset)] = part
    return best


def _estimate(value: float, of_turns: list[float]) -> Estimate:
    """A fit to medians, with the interval of the fits to each turn; it holds both."""
    turns = len(of_turns)
    if turns < 2:
        return Estimate(value=value, low=None, high=None)
    mean, deviation = statistics.fmean(of_turns), statistics.stdev(of_turns)
    half = _student_t(turns - 1) * deviation / math.sqrt(turns)
    low, high = max(0.0, mean - half), mean + half
    return Estimate(value=value, low=min(value, low), high=max(value, high))


def _student_t(freedom: int) -> float:
    """Two-sided 95% quantile of Student's t."""
    return _FEW_T[freedom - 1] if freedom <= len(_FEW_T) else student_quantile(Z95, freedom)
