"""The plan that is chosen, and what is said where none will do."""

from dataclasses import replace

import pytest

from fastformers.cluster.cost.planning.candidates import list_candidates
from fastformers.cluster.cost.planning.cluster_plan import NUM_PLANS, plan_cluster
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.cost.planning.outcome import simulate_candidate
from fastformers.cluster.cost.planning.plan_tables import describe_plans, explain_plans
from fastformers.errors import InputError
from tests.cluster.cost.planning.make_offers import SLOW_HOST, make_offer


@pytest.mark.parametrize(
    ("offer", "settings"),
    [
        (make_offer(error_factor=1.6), PlanSettings(deadline_s=6 * 3600, max_instances=16)),
        (
            make_offer(worker_usd_per_hour=0.25, error_factor=1.3, job_s=20_000.0),
            PlanSettings(deadline_s=2 * 3600, max_instances=12, spot=True),
        ),
        (make_offer(), PlanSettings(budget_usd=26.0, max_instances=16)),
        (SLOW_HOST, PlanSettings(deadline_s=800, max_instances=6)),
    ],
)
def test_no_allowed_cluster_of_the_type_is_better(offer, settings):
    plan = plan_cluster([offer], settings)[0]
    assert plan.hold_chance >= 0.95
    assert plan.num_instances + plan.num_helpers <= settings.max_instances
    for candidate in list_candidates(offer, settings, range(1, settings.max_instances + 1)):
        outcome = simulate_candidate(candidate, settings)
        late_s = outcome.within_s(0.95)
        is_in_time = settings.deadline_s is None or late_s <= settings.deadline_s
        is_paid = settings.budget_usd is None or late_s * candidate.usd_per_s <= settings.budget_usd
        if is_in_time and is_paid and candidate.num_machines <= settings.max_instances:
            if settings.deadline_s is None:
                assert outcome.within_s(0.5) >= 0.99 * plan.wall_s
            else:
                assert outcome.mean_s * candidate.usd_per_s >= 0.99 * plan.usd_total


def test_more_confidence_takes_more_machines_where_less_is_known():
    def number(confidence, **changes):
        settings = PlanSettings(deadline_s=6 * 3600, confidence=confidence)
        return plan_cluster([make_offer(**changes)], settings)[0].num_instances

    known = [number(each) for each in (0.5, 0.95, 0.99)]
    scaled = [number(each, error_factor=2.0) for each in (0.5, 0.95, 0.99)]
    assert known[0] == scaled[0] == 5  # 100,000 s in 21,420
    assert known[0] < known[1] <= known[2]
    assert known[1] < scaled[1] < scaled[2]
    assert number(0.95) < number(0.95, sample_error=0.5)


@pytest.mark.parametrize(
    ("job_s", "asked"), [(60.0, {"budget_usd": 100.0}), (300.0, {"deadline_s": 181.0})]
)
def test_a_job_that_may_be_over_before_the_average_machine_has_started_has_a_plan(job_s, asked):
    """Twelve machines that start in 90 to 360 s: the first ones do all."""
    settings = PlanSettings(**asked)
    plan = plan_cluster([make_offer(job_s=job_s, shard_s=5.0)], settings)[0]
    assert plan.hold_chance >= 0.95
    assert 0 < plan.wall_s < settings.startup_s


def test_a_plan_says_what_it_leaves_of_the_deadline():
    settings = PlanSettings(deadline_s=6 * 3600, confidence=0.9)
    plans = plan_cluster([make_offer(error_factor=1.6, sample_error=0.02)], settings)
    shown = describe_plans(plans, settings)
    assert (shown["confidence"], shown["deadline_s"]) == (0.9, 21_600)
    assert shown["hold_chance"] >= 0.9
    assert shown["wall_s"] < shown["confident_wall_s"] <= 21_600
    assert shown["margin_s"] == pytest.approx(21_600 - shown["confident_wall_s"])
    assert shown["margin_usd"] is None
    assert shown["usd_total"] < shown["confident_usd"]
    text = "\n".join(explain_plans(plans, settings))
    assert "90%: of 90% of them (--confidence), and what that leaves of the deadline" in text
    assert "x.large was not measured: right up to x/÷ 1.6 in 95% of cases" in text
    assert "the work that was sampled up to 2.0%" in text
    measured = replace(plans[0], offer=replace(plans[0].offer, is_measured=True))
    text = "\n".join(explain_plans([measured], settings))
    assert (
        "x.large was measured: right up to x/÷ 1.6 in 95% of cases" in text
    )  # by several profiles


def test_the_types_are_ordered_by_what_they_are_expected_to_cost():
    offers = [
        make_offer(instance_type=f"x{number}", usd_per_hour=price, worker_usd_per_hour=price)
        for number, price in enumerate((0.9, 0.8, 1.0, 1.2, 0.85, 1.1, 1.3))
    ]
    plans = plan_cluster(offers, PlanSettings(deadline_s=6 * 3600))
    assert [plan.offer.instance_type for plan in plans] == ["x1", "x4", "x0", "x2", "x5"]
    assert len(plans) == NUM_PLANS


def test_a_deadline_out_of_reach_says_what_comes_nearest_and_what_would_do():
    settings = PlanSettings(deadline_s=3600, max_instances=10)
    with pytest.raises(InputError) as refused:
        plan_cluster([make_offer()], settings)
    text = str(refused.value)
    assert text.startswith(
        "no cluster makes --deadline 60 min and --max-instances 10 with --confidence 0.95; "
        "the nearest allowed is 10 x x.large, with a chance of 0% (95% of its runs take up to 3."
    )
    number = int(text.split("the deadline would take ")[1].split(" x ")[0])
    enough = PlanSettings(deadline_s=3600, max_instances=number)
    assert plan_cluster([make_offer()], enough)[0].num_instances == number


def test_what_a_deadline_would_take_is_a_type_that_can_keep_it_however_cheap_another_is():
    """A shard of the cheap type alone takes longer than there is time."""
    cheap = make_offer(
        instance_type="cheap", usd_per_hour=0.01, worker_usd_per_hour=0.01, shard_s=7200.0
    )
    with pytest.raises(InputError, match=r"the deadline would take \d+ x x\.large"):
        plan_cluster([cheap, make_offer()], PlanSettings(deadline_s=3600, max_instances=4))


def test_the_fastest_type_of_many_is_found_where_the_budget_is_less_than_twice_the_work():
    """One machine of it is the slowest of all; a budget of 8 USD buys many for a short time."""
    large = [
        make_offer(instance_type=f"large{number}", job_s=10_000.0, shard_s=10_000.0)
        for number in range(5)  # of one shard an actor: a second machine has nothing to do
    ]
    small = make_offer(instance_type="small", usd_per_hour=0.2, worker_usd_per_hour=0.2)
    plans = plan_cluster([*large, small], PlanSettings(budget_usd=8.0))
    assert plans[0].offer.instance_type == "small"
    assert plans[0].num_instances > 10


def test_a_cluster_that_would_do_half_of_the_time_is_no_plan():
    settings = PlanSettings(deadline_s=3600, max_instances=32)
    offer = make_offer(error_factor=1.6)
    with pytest.raises(
        InputError, match=r"nearest allowed is 32 x x\.large, with a chance of [67]"
    ):
        plan_cluster([offer], settings)
    half = PlanSettings(deadline_s=3600, max_instances=32, confidence=0.5)
    assert plan_cluster([offer], half)[0].num_instances < 32


def test_a_deadline_before_a_machine_has_started_is_said_to_be_one():
    with pytest.raises(InputError, match="no number of machines makes that deadline: starting"):
        plan_cluster([make_offer()], PlanSettings(deadline_s=100))


def test_a_budget_that_is_too_small_says_what_comes_nearest():
    with pytest.raises(InputError, match=r"--budget 1 .*the nearest allowed is 1 x x\.large"):
        plan_cluster([make_offer()], PlanSettings(budget_usd=1))
    with pytest.raises(InputError, match="or need a float16 graph"):
        plan_cluster([], PlanSettings(budget_usd=1))
