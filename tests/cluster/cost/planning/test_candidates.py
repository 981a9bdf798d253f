"""What the closed formula says of clusters, against arithmetic by hand and the simulation."""

import itertools
import math
from statistics import NormalDist

import pytest

from fastformers.cluster.cost.planning.candidates import (
    MEASURED_ERROR,
    SHARD_SIGMA,
    list_candidates,
    name_machines,
    predict_cluster,
    rate_sigma,
    useful_share,
)
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.cost.planning.outcome import simulate_candidate
from tests.cluster.cost.planning.make_offers import SLOW_HOST, make_offer


def test_one_machine_takes_its_time_and_more_share_it():
    one = predict_cluster(make_offer(), 1, PlanSettings())
    assert one.wall_s == pytest.approx(180 + 100_000, rel=1e-3)
    assert one.usd_total == pytest.approx(one.wall_s / 3600 * 0.8)
    assert one.usd_per_s == pytest.approx(0.8 / 3600)
    ten = predict_cluster(make_offer(), 10, PlanSettings())
    assert ten.wall_s == pytest.approx(180 + 10_000, rel=1e-2)
    assert ten.usd_total > one.usd_total
    assert ten.startup_usd == pytest.approx(180 / 3600 * 8)
    assert (ten.interruptions, ten.interruption_usd) == (0, 0)


@pytest.mark.parametrize("num_actors", [1, 2, 3, 16])
def test_all_wait_for_the_largest_of_the_actors_last_shards(num_actors):
    """Of 20 s each: half of one is within the time of the work, the rest of the largest is not."""
    share = num_actors / (num_actors + 1)
    spread = math.exp(SHARD_SIGMA * NormalDist().inv_cdf(share)) if num_actors > 1 else 1.0
    candidate = predict_cluster(make_offer(num_actors=num_actors), 1, PlanSettings())
    assert candidate.tail_s == pytest.approx(20 * (share * spread - 0.5))
    assert candidate.tail_usd == pytest.approx(candidate.tail_s * 0.8 / 3600)
    each_one = predict_cluster(
        make_offer(num_actors=num_actors, job_s=20.0), 1, PlanSettings()
    )  # as many shards as actors: no actor waits without one
    assert each_one.wall_s == pytest.approx(180 + 20 + candidate.tail_s)


def test_spot_machines_are_interrupted_but_not_the_head():
    offer = make_offer(worker_usd_per_hour=0.3)
    steady = PlanSettings(spot=True, interruptions_per_hour=0.0)
    shaky = PlanSettings(spot=True, interruptions_per_hour=1.0)
    assert predict_cluster(offer, 1, shaky) == predict_cluster(offer, 1, steady)
    calm, troubled = predict_cluster(offer, 10, steady), predict_cluster(offer, 10, shaky)
    assert troubled.wall_s > calm.wall_s
    up_s = (troubled.wall_s - 180) / (1 + 180 / 3600)  # replacements start during the rest
    assert troubled.interruptions == pytest.approx(9 * up_s / 3600)
    assert troubled.interruption_usd == pytest.approx(
        (troubled.wall_s - calm.wall_s) / 3600 * (0.8 + 9 * 0.3), rel=0.01
    )


def test_helpers_tokenize_what_hosts_do_not_and_are_paid_for():
    alone = predict_cluster(SLOW_HOST, 4, PlanSettings())
    assert alone.wall_s == pytest.approx(180 + 4000 / 4 + alone.tail_s)
    helped = predict_cluster(SLOW_HOST, 4, PlanSettings(), num_helpers=3)
    assert helped.wall_s == pytest.approx(180 + 1000 / 4 + helped.tail_s)
    assert helped.usd_total == pytest.approx(helped.wall_s / 3600 * (4 * 4.0 + 3 * 0.5))
    few = predict_cluster(SLOW_HOST, 4, PlanSettings(), num_helpers=1)  # 4 / 4000 + 1 / 1000
    assert few.wall_s == pytest.approx(180 + 500 + few.tail_s)
    many = predict_cluster(SLOW_HOST, 4, PlanSettings(), num_helpers=9)
    assert many.wall_s == helped.wall_s


def test_a_spot_machine_loses_half_a_shard_and_the_start_of_its_replacement():
    """Once an hour, of which a shard is a fifth and a start a tenth."""
    settings = PlanSettings(spot=True, interruptions_per_hour=1.0, startup_s=360.0)
    assert useful_share(make_offer(shard_s=720.0), settings) == pytest.approx(0.9 / 1.1)
    assert useful_share(make_offer(shard_s=7200.0), settings) == 0.0
    assert useful_share(make_offer(), PlanSettings(interruptions_per_hour=1.0)) == 1.0


def test_helpers_are_none_just_too_few_or_just_enough():
    """Each host of the slow type needs three quarters of one."""
    listed = list_candidates(SLOW_HOST, PlanSettings(), range(1, 4))
    assert [(each.num_instances, each.num_helpers) for each in listed] == [
        *((1, 0), (1, 1)),
        *((2, 0), (2, 1), (2, 2)),
        *((3, 0), (3, 2), (3, 3)),
    ]


def test_spot_helpers_are_interrupted_too():
    shaky = PlanSettings(spot=True, interruptions_per_hour=1.0)
    calm = PlanSettings(spot=True, interruptions_per_hour=0.0)
    one = predict_cluster(SLOW_HOST, 1, shaky, num_helpers=1)
    assert one.wall_s == predict_cluster(SLOW_HOST, 1, calm, num_helpers=1).wall_s  # to spare
    assert one.interruptions > 0
    assert predict_cluster(SLOW_HOST, 1, shaky).interruptions == 0


def test_the_best_number_of_helpers_is_a_candidate():
    listed = list(list_candidates(SLOW_HOST, PlanSettings(), range(1, 12)))
    cheapest = min(each.usd_total for each in listed if each.wall_s <= 600)
    for machines, helpers in itertools.product(range(1, 12), range(12)):
        other = predict_cluster(SLOW_HOST, machines, PlanSettings(), num_helpers=helpers)
        assert other.wall_s > 600 or other.usd_total >= cheapest


def test_machines_without_a_shard_are_no_candidates():
    offer = make_offer(job_s=50.0)  # 40 shards
    listed = list_candidates(offer, PlanSettings(), range(1, 9))
    assert [each.num_instances for each in listed] == [1, 2, 3]
    assert predict_cluster(offer, 9, PlanSettings()).wall_s >= 180 + 20


def test_the_spread_of_the_rate_adds_up_what_is_not_known():
    measured = rate_sigma(make_offer(), 10_000)
    assert measured == pytest.approx(math.log(MEASURED_ERROR) / 1.96, rel=0.01)
    scaled = rate_sigma(make_offer(error_factor=2.0), 10_000)
    assert scaled == pytest.approx(math.log(2) / 1.96, rel=0.01)
    sampled = rate_sigma(make_offer(error_factor=2.0, sample_error=0.3), 10_000)
    assert sampled == pytest.approx(math.hypot(scaled, math.log(1.3) / 1.96), rel=0.01)
    assert rate_sigma(make_offer(), 1) == pytest.approx(math.hypot(measured, 0.05), rel=0.01)


@pytest.mark.parametrize(
    ("offer", "number", "settings"),
    [
        (make_offer(), 6, PlanSettings()),
        (make_offer(job_s=2000.0), 1, PlanSettings()),
        (make_offer(job_s=60_000.0), 30, PlanSettings(spot=True, interruptions_per_hour=0.5)),
        (make_offer(shard_s=100.0), 40, PlanSettings(spot=True, interruptions_per_hour=3.0)),
        (make_offer(), 5, PlanSettings(startup_s=900)),
    ],
)
def test_the_formula_proposes_what_the_simulation_finds(offer, number, settings):
    candidate = predict_cluster(offer, number, settings)
    outcome = simulate_candidate(candidate, settings)
    assert outcome.within_s(0.5) == pytest.approx(candidate.wall_s, rel=0.05)


def test_machines_are_named_with_their_helpers():
    assert name_machines(SLOW_HOST, 3, 1) == "3 x gpu.large + 1 x cpu.large"
    assert name_machines(SLOW_HOST, 3, 0) == "3 x gpu.large"
