"""Simulated candidates: what is simplified against what is not, and what must be counted."""

import math

import numpy as np
import pytest

from fastformers.cluster.cost.planning.candidates import (
    MEASURED_ERROR,
    NODE_SIGMA,
    predict_cluster,
    rate_sigma,
)
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.cost.planning.outcome import HABITS, _Runs, simulate_candidate
from fastformers.cluster.scaling.cluster_model import Machines, Work
from fastformers.cluster.scaling.simulation import simulate
from fastformers.cluster.scheduling.work import CALLS_IN_HAND
from tests.cluster.cost.planning.make_offers import SLOW_HOST, make_offer


def simulate_cluster(offer, number, settings=None, **changes):
    settings = settings or PlanSettings()
    return simulate_candidate(predict_cluster(offer, number, settings), settings, **changes)


@pytest.mark.parametrize(
    ("offer", "number", "settings"),
    [
        (make_offer(job_s=900.0), 4, PlanSettings()),  # 11 shards an actor
        (make_offer(job_s=130.0), 4, PlanSettings()),  # less than two
        (
            make_offer(job_s=3000.0, num_actors=4),
            4,
            PlanSettings(spot=True, interruptions_per_hour=6.0),
        ),
    ],
)
def test_a_smaller_run_in_bundles_ends_when_the_whole_one_does(offer, number, settings):
    """The whole run: every machine, actor and shard, with spread of its own."""
    rng = np.random.default_rng(9)
    ratios = np.exp(0.2 * rng.standard_normal(4000) - 0.2**2 / 2)
    ratios[rng.random(4000) < 0.001] *= 4.0
    starts = settings.startup_s * np.exp(0.3 * rng.standard_normal(1000) - 0.3**2 / 2)
    machines = Machines(
        num_actors=number * offer.num_actors,
        actors_per_node=offer.num_actors,
        node_startup_s=tuple(starts.tolist()),
        node_sigma=0.05,
        interruptions_per_hour=settings.interruptions_per_hour if settings.spot else 0.0,
        noticed_after_s=10.0,
    )
    work = Work(predicted_s=np.full(offer.num_shards, offer.shard_s), ratios=ratios)
    whole = [simulate(work, machines, HABITS, seed=seed).wall_s for seed in range(12)]
    outcome = simulate_cluster(offer, number, settings)
    assert outcome.within_s(0.5) == pytest.approx(np.median(whole), rel=0.06)


def test_of_more_actors_than_are_simulated_the_last_shard_is_later():
    """A thousand actors with a shard of 600 s each, on machines that are half as fast."""
    candidate = predict_cluster(
        make_offer(num_actors=64, job_s=600.0 * 16, shard_s=600.0), 16, PlanSettings()
    )
    runs = _Runs(candidate, PlanSettings(), 240)
    later, wall_s = runs._later, runs.wall_s(2.0, seed=1)
    assert 0 < later < 1
    runs._later = 0.0
    assert wall_s - runs.wall_s(2.0, seed=1) == pytest.approx(later * 1200)


def test_only_single_shards_are_read_ahead():
    for job_s, jobs_in_hand in ((130.0, HABITS.jobs_in_hand), (9000.0, 1)):
        candidate = predict_cluster(make_offer(job_s=job_s), 4, PlanSettings())
        assert _Runs(candidate, PlanSettings(), 240)._habits.jobs_in_hand == jobs_in_hand
    assert HABITS.jobs_in_hand > 1


def test_the_error_of_the_rate_is_the_spread_of_the_time():
    offer = make_offer(error_factor=2.0)
    outcome = simulate_cluster(offer, 5)
    sigma = rate_sigma(offer, 5)
    for sigmas, chance in ((-1.645, 0.05), (1.645, 0.95), (2.326, 0.99)):
        expected = 180 + math.exp(sigmas * sigma) * (outcome.within_s(0.5) - 180)
        assert outcome.within_s(chance) == pytest.approx(expected, rel=0.03)
    assert outcome.mean_s == pytest.approx(180 + 20_000 * math.exp(sigma**2 / 2), rel=0.02)
    assert outcome.chance_of(outcome.within_s(0.95)) == pytest.approx(0.95, abs=0.001)


def test_the_spread_of_machines_is_counted_once():
    """Their mean is in the rate of a run, how they differ around it in the simulation."""
    offer = make_offer()
    outcome = simulate_cluster(offer, 1, num_runs=64)
    times = [outcome.within_s(chance) - 180 for chance in (0.5, 0.95)]
    pace = math.log(MEASURED_ERROR) / 1.96
    assert math.log(times[1] / times[0]) / 1.645 == pytest.approx(
        math.hypot(pace, NODE_SIGMA), rel=0.03
    )


def test_a_few_runs_say_what_many_do():
    offer, settings = make_offer(job_s=4000.0, error_factor=1.3), PlanSettings(spot=True)
    few, many = (simulate_cluster(offer, 8, settings, num_runs=runs) for runs in (32, 256))
    for chance in (0.5, 0.95, 0.99):
        assert few.within_s(chance) == pytest.approx(many.within_s(chance), rel=0.02)


def test_the_seed_decides_all_that_is_random():
    first, again, other = (
        simulate_cluster(make_offer(), 3, PlanSettings(seed=seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.walls_G, again.walls_G)
    assert not np.array_equal(first.walls_G, other.walls_G)
    assert other.within_s(0.95) == pytest.approx(first.within_s(0.95), rel=0.02)


def test_lost_machines_and_lost_helpers_take_time():
    for offer, helpers in ((make_offer(), 0), (SLOW_HOST, 5)):
        walls = []
        for rate in (0.0, 2.0):
            settings = PlanSettings(spot=True, interruptions_per_hour=rate, startup_s=600)
            candidate = predict_cluster(offer, 8, settings, num_helpers=helpers)
            walls.append(simulate_candidate(candidate, settings).within_s(0.5) - 600)
        assert walls[1] > 1.2 * walls[0]


def test_the_driver_s_habits_are_those_of_the_driver():
    assert HABITS.jobs_in_hand == CALLS_IN_HAND
