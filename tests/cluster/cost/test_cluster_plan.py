import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.cluster.cost.cluster_plan import (
    SHARD_SIGMA,
    HelperOffer,
    MachineOffer,
    PlanSettings,
    is_allowed,
    plan_cluster,
    predict_cluster,
)
from fastformers.cluster.scaling.cluster_model import Machines, Scheduling, Work
from fastformers.cluster.scaling.simulation import simulate
from fastformers.errors import InputError


def make_offer(**changes):
    fields = {
        "instance_type": "x.large",
        "usd_per_hour": 0.8,
        "worker_usd_per_hour": 0.8,
        "num_actors": 16,
        "job_s": 100_000.0,
        "shard_s": 20.0,
    }
    return MachineOffer(**(fields | changes))


# A student at 2 ms a row on a core: a billion rows are 125,000 s of a machine of 16 cores.
BILLION = make_offer(job_s=1e9 * 2e-3 / 16)


def simulate_run(offer, num_instances, wish, *, is_calm=False, seed=0):
    """The simulated run of a planned cluster, whose machines, shards and starts differ."""
    rng = np.random.default_rng(100 + seed)
    ratios = np.exp(SHARD_SIGMA * rng.standard_normal(65_536) - SHARD_SIGMA**2 / 2)
    starts = np.full(1, wish.startup_s)
    if not is_calm:
        ratios[rng.random(len(ratios)) < 0.001] *= 4.0  # stragglers
        starts = wish.startup_s * np.exp(0.3 * rng.standard_normal(1000) - 0.3**2 / 2)
    work = Work(
        predicted_s=np.full(offer.num_shards, offer.job_s * offer.num_actors / offer.num_shards),
        ratios=ratios,
    )
    machines = Machines(
        num_actors=num_instances * offer.num_actors,
        actors_per_node=offer.num_actors,
        node_startup_s=tuple(starts.tolist()),
        node_sigma=0.0 if is_calm else 0.05,
        interruptions_per_hour=wish.interruptions_per_hour if wish.spot else 0.0,
    )
    return simulate(work, machines, Scheduling(jobs_in_hand=1), seed=seed)


def usd_of(run, offer, num_instances):
    """Price of a simulated run; a lost machine is paid for throughout."""
    usd_per_hour = offer.usd_per_hour + (num_instances - 1) * offer.worker_usd_per_hour
    return run.wall_s / 3600 * usd_per_hour


def test_one_machine_takes_its_time_and_more_share_it():
    one = predict_cluster(make_offer(), 1, PlanSettings())
    assert one.wall_s == pytest.approx(180 + 100_000, rel=1e-3)
    assert one.usd_total == pytest.approx(one.wall_s / 3600 * 0.8)
    ten = predict_cluster(make_offer(), 10, PlanSettings())
    assert ten.wall_s == pytest.approx(180 + 10_000, rel=1e-2)
    assert ten.usd_total > one.usd_total
    assert ten.startup_usd == pytest.approx(180 / 3600 * 8)
    assert (ten.interruptions, ten.interruption_usd) == (0, 0)


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


def test_more_actors_than_shards_do_not_help():
    offer = make_offer(job_s=20.0, shard_s=20.0)  # 16 shards
    assert predict_cluster(offer, 9, PlanSettings()).wall_s >= 180 + 20


# A GPU that scores the job in 1,000 s; its own cores tokenize it in 4,000 s, a helper in 1,000 s.
SLOW_HOST = make_offer(
    instance_type="gpu.large",
    usd_per_hour=4.0,
    worker_usd_per_hour=4.0,
    num_actors=1,
    job_s=4000.0,
    shard_s=10.0,
    uses_gpus=True,
    helper=HelperOffer(
        instance_type="cpu.large", usd_per_hour=0.5, gpu_s=1000.0, own_s=4000.0, helper_s=1000.0
    ),
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


def test_the_planned_helpers_are_as_many_as_the_gpus_need():
    plan = plan_cluster([SLOW_HOST], PlanSettings(deadline_s=600))[0]
    assert (plan.num_instances, plan.num_helpers) == (3, 3)  # 2.25 would do
    for machines, helpers in itertools.product(range(1, 12), range(12)):
        other = predict_cluster(SLOW_HOST, machines, PlanSettings(), num_helpers=helpers)
        assert other.wall_s > 600 or other.usd_total >= plan.usd_total


def test_helpers_count_among_the_machines_allowed():
    fastest = plan_cluster([SLOW_HOST], PlanSettings(budget_usd=1000, max_instances=5))[0]
    others = [
        predict_cluster(SLOW_HOST, machines, PlanSettings(), num_helpers=helpers)
        for machines in range(1, 6)
        for helpers in range(6 - machines)
    ]
    assert fastest.num_instances + fastest.num_helpers <= 5
    assert fastest.wall_s == min(plan.wall_s for plan in others)


def test_spot_helpers_are_interrupted_too():
    shaky = PlanSettings(spot=True, interruptions_per_hour=1.0)
    calm = PlanSettings(spot=True, interruptions_per_hour=0.0)
    one = predict_cluster(SLOW_HOST, 1, shaky, num_helpers=1)
    assert one.wall_s == predict_cluster(SLOW_HOST, 1, calm, num_helpers=1).wall_s  # to spare
    assert one.interruptions > 0
    assert predict_cluster(SLOW_HOST, 1, shaky).interruptions == 0


offers = st.lists(
    st.builds(
        make_offer,
        instance_type=st.sampled_from(["a", "b", "c"]),
        usd_per_hour=st.floats(0.1, 5),
        worker_usd_per_hour=st.floats(0.05, 5),
        num_actors=st.integers(1, 32),
        job_s=st.floats(100, 1e5),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda offer: offer.instance_type,
)
wishes = st.builds(
    PlanSettings,
    deadline_s=st.none() | st.floats(200, 1e5),
    budget_usd=st.none() | st.floats(0.1, 100),
    max_instances=st.integers(1, 12),
    spot=st.booleans(),
    interruptions_per_hour=st.floats(0, 2),
)


@settings(deadline=None)
@given(offers, wishes)
def test_no_allowed_cluster_is_better_than_the_planned_one(offers, wish):
    clusters = [
        predict_cluster(offer, number, wish)
        for offer, number in itertools.product(offers, range(1, wish.max_instances + 1))
    ]
    fitting = [cluster for cluster in clusters if is_allowed(cluster, wish)]
    if not fitting:
        with pytest.raises(InputError, match="no cluster makes"):
            plan_cluster(offers, wish)
        return
    best = plan_cluster(offers, wish)[0]
    assert is_allowed(best, wish)
    assert best.num_instances <= wish.max_instances
    if wish.deadline_s is None:
        assert best.wall_s == min(cluster.wall_s for cluster in fitting)
    else:
        assert best.usd_total == min(cluster.usd_total for cluster in fitting)


def test_an_impossible_deadline_says_what_would_do():
    wish = PlanSettings(deadline_s=3600, max_instances=10)
    with pytest.raises(InputError) as refused:
        plan_cluster([make_offer()], wish)
    text = str(refused.value)
    assert "no cluster makes --deadline 60 min and --max-instances 10" in text
    assert "the fastest allowed is 10 x x.large (2.8 h" in text
    assert "the deadline would take 30 x x.large" in text
    enough = PlanSettings(deadline_s=3600, max_instances=30)
    assert plan_cluster([make_offer()], enough)[0].num_instances == 30


def test_a_deadline_before_a_machine_has_started_is_said_to_be_one():
    with pytest.raises(InputError, match="no number of machines makes that deadline: starting"):
        plan_cluster([make_offer()], PlanSettings(deadline_s=100))


def test_a_budget_that_is_too_small_says_what_is_cheapest():
    with pytest.raises(InputError, match=r"--budget 1 .*the cheapest is 1 x x\.large"):
        plan_cluster([make_offer()], PlanSettings(budget_usd=1))
    with pytest.raises(InputError, match="or need a float16 graph"):
        plan_cluster([], PlanSettings(budget_usd=1))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"deadline_s": 0}, "--deadline 0"),
        ({"budget_usd": -5}, "--budget -5"),
        ({"max_instances": 0}, "--max-instances 0"),
        ({"startup_s": -1}, "--startup-s -1"),
        ({"interruptions_per_hour": -1}, "--interruptions-per-hour -1"),
    ],
)
def test_wishes_that_make_no_sense_are_refused_by_their_flag(changes, flag):
    with pytest.raises(InputError, match=flag):
        PlanSettings(**changes)


@pytest.mark.parametrize(
    ("wish", "offer"),
    [
        (PlanSettings(deadline_s=6 * 3600), BILLION),
        (PlanSettings(deadline_s=6 * 3600, spot=True), BILLION),
        (PlanSettings(deadline_s=3600, spot=True, interruptions_per_hour=0.5), BILLION),
        (PlanSettings(deadline_s=24 * 3600, startup_s=900), BILLION),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_simulated_billion_rows_take_what_was_planned(wish, offer, seed):
    plan = plan_cluster([offer], wish)[0]
    run = simulate_run(offer, plan.num_instances, wish, seed=seed)
    assert run.num_shards == 100_000
    assert run.wall_s == pytest.approx(plan.wall_s, rel=0.1)
    usd = usd_of(run, offer, plan.num_instances)
    assert usd == pytest.approx(plan.usd_total, rel=0.1)


def test_interruptions_cost_what_was_planned():
    wish = PlanSettings(spot=True, interruptions_per_hour=3.0)
    offer = make_offer(job_s=BILLION.job_s, shard_s=100.0)
    plan = predict_cluster(offer, 40, wish)
    calm = predict_cluster(offer, 40, PlanSettings())
    runs = [simulate_run(offer, 40, wish, seed=seed) for seed in range(3)]
    assert sum(run.interruptions for run in runs) / 3 == pytest.approx(plan.interruptions, rel=0.15)
    assert sum(run.wall_s for run in runs) / 3 == pytest.approx(plan.wall_s, rel=0.05)
    assert plan.wall_s > 1.15 * calm.wall_s
    lost_s = sum(run.lost_s for run in runs) / 3
    assert lost_s == pytest.approx(plan.interruptions * 16 * 50, rel=0.25)


def test_the_end_of_a_run_is_as_idle_as_was_planned():
    for number in (1, 3, 30):
        offer = make_offer(job_s=2000.0 * number)
        plan = predict_cluster(offer, number, PlanSettings())
        runs = [simulate_run(offer, number, PlanSettings(), is_calm=True, seed=s) for s in range(5)]
        mean_s = sum(run.wall_s for run in runs) / len(runs)
        assert mean_s - 2180 == pytest.approx(plan.tail_s, abs=0.5 * plan.offer.shard_s)


def test_a_simulation_is_the_same_each_time():
    wish = PlanSettings(spot=True)
    assert simulate_run(make_offer(), 5, wish, seed=4) == simulate_run(
        make_offer(), 5, wish, seed=4
    )
