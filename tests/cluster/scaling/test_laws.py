"""The laws are found again in rates that follow them, with noise and without."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.cluster.scaling.laws import ScalingLaw, fit_law, fit_laws, solve_nonnegative

ACTORS = np.array([1.0, 2, 4, 8, 16, 32, 64])
LAW = ScalingLaw(base=440.0, contention=0.03, coordination=0.0004)


def rates_of(law, actors=ACTORS):
    return np.array([law.rate(number) for number in actors])


@settings(deadline=None)
@given(st.floats(1, 1e6), st.floats(0, 0.5), st.floats(0, 0.01))
def test_rates_without_noise_give_back_their_law(base, contention, coordination):
    law = ScalingLaw(base=base, contention=contention, coordination=coordination)
    found = fit_law(ACTORS, rates_of(law), has_coordination=True)
    assert found.base == pytest.approx(base)
    assert found.contention == pytest.approx(contention, abs=1e-6)
    assert found.coordination == pytest.approx(coordination, abs=1e-7)


def test_the_serial_share_of_two_points_is_amdahl_s():
    """Twice the actors are 1.9 times as fast: 1 / (s + (1 - s) / 2) = 1.9."""
    fitted = fit_laws(np.array([1.0, 2.0]), np.array([[100.0, 190.0]]))
    assert fitted.serial_share.value == pytest.approx(2 / 1.9 - 1)
    assert (fitted.universal, fitted.contention, fitted.knee) == (None, None, None)


def test_the_knee_is_where_throughput_is_highest():
    knee = LAW.knee
    assert knee == pytest.approx(math.sqrt((1 - 0.03) / 0.0004))
    assert LAW.rate(knee) > max(LAW.rate(knee - 1), LAW.rate(knee + 1))
    assert ScalingLaw(base=1.0, contention=0.1).knee is None
    assert ScalingLaw(base=1.0, contention=0.2, coordination=2.0).knee == 1.0


def test_more_than_linear_growth_is_no_negative_share():
    found = fit_law(ACTORS, 440.0 * ACTORS**1.05, has_coordination=True)
    assert (found.contention, found.coordination) == (0.0, 0.0)
    assert found.base > 440.0


@pytest.mark.parametrize("turns", [2, 3, 9])
def test_intervals_hold_the_truth_as_often_as_they_say(turns):
    """Turns of 2% noise; three are the default."""
    rng = np.random.default_rng(7)
    held = {"serial": 0, "contention": 0, "coordination": 0}
    amdahl = ScalingLaw(base=440.0, contention=0.05)
    num_trials = 100
    for _ in range(num_trials):
        noise = np.exp(0.02 * rng.standard_normal((turns, len(ACTORS))))
        serial = fit_laws(ACTORS, rates_of(amdahl) * noise).serial_share
        held["serial"] += serial.low <= 0.05 <= serial.high
        fitted = fit_laws(ACTORS, rates_of(LAW) * noise)
        held["contention"] += fitted.contention.low <= 0.03 <= fitted.contention.high
        held["coordination"] += fitted.coordination.low <= 0.0004 <= fitted.coordination.high
        assert fitted.knee == pytest.approx(49.2, rel=0.3)
    assert all(count >= 0.9 * num_trials for count in held.values()), held


def test_one_turn_does_not_say_how_turns_differ():
    fitted = fit_laws(ACTORS, rates_of(LAW)[None])
    for found in (fitted.serial_share, fitted.contention, fitted.coordination):
        assert (found.low, found.high) == (None, None)


def test_more_noise_makes_wider_intervals_and_no_noise_none():
    rng = np.random.default_rng(3)
    widths = []
    for sigma in (0.0, 0.01, 0.05):
        rates = rates_of(LAW) * np.exp(sigma * rng.standard_normal((9, len(ACTORS))))
        serial = fit_laws(ACTORS, rates).serial_share
        widths.append(serial.high - serial.low)
    assert widths[0] == pytest.approx(0, abs=1e-9)
    assert widths[0] < widths[1] < widths[2]


def test_a_slow_turn_slows_all_its_points_and_no_law():
    """All points of a turn at half speed: turns are drawn whole, so the law stays as it was."""
    rates = np.stack([rates_of(LAW), 0.5 * rates_of(LAW), rates_of(LAW)])
    contention = fit_laws(ACTORS, rates).contention
    assert contention.low == pytest.approx(0.03, abs=1e-6)
    assert contention.high == pytest.approx(0.03, abs=1e-6)


@pytest.mark.parametrize(
    ("actors", "rates"), [([1.0], [[5.0]]), ([2.0, 2.0], [[5.0, 5.0]]), ([1.0, 2.0], [[5.0, 0.0]])]
)
def test_what_no_law_can_be_fitted_to_is_refused(actors, rates):
    with pytest.raises(ValueError, match=r"at least two numbers|not above 0"):
        fit_laws(np.array(actors), np.array(rates))


@given(st.integers(0, 1000))
def test_nonnegative_solutions_meet_the_conditions_of_kuhn_and_tucker(seed):
    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((6, 3)), rng.standard_normal(6)
    solution = solve_nonnegative(matrix, target)
    gradient = matrix.T @ (target - matrix @ solution)
    assert (solution >= 0).all()
    assert (gradient <= 1e-9).all()
    assert gradient[solution > 0] == pytest.approx(0, abs=1e-9)
