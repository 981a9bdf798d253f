"""Costs and offers of whole bundles, and settings that are refused by the flags of the command."""

from dataclasses import replace
from datetime import date

import pytest

from fastformers.cluster.cost.bundle_cost import CostSettings, estimate_cost, plan_offers
from fastformers.cluster.cost.machine_profile import profile_of_bundle
from fastformers.cluster.cost.planning.cluster_plan import plan_cluster
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.cost.planning.plan_tables import describe_plans, explain_plans
from fastformers.cluster.cost.tables import (
    describe_cost,
    explain_instances,
)
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import InputError
from fastformers.inference.cascade.record import first_graph

TODAY = date(2026, 11, 26)


@pytest.mark.parametrize("percent", [-1, 100, float("nan")])
def test_a_discount_that_makes_no_sense_is_refused(percent):
    message = f"--discount {percent:g}: give percent, at least 0 and below 100"
    with pytest.raises(InputError, match=message):
        CostSettings(today=TODAY, discount_percent=percent)


def test_no_rows_cannot_be_costed():
    with pytest.raises(InputError, match="--rows 0: give at least 1"):
        CostSettings(today=TODAY, rows=0)


@pytest.fixture
def cost_of(tmp_path, rows, write_rows, take):
    """Costs of 1e9 rows: `cost_of(bundle, *profiles)`."""
    path = write_rows(tmp_path / "a.parquet", rows)

    def cost(bundle, *profiles):
        sample = take(path, bundle)
        settings = CostSettings(today=TODAY, rows=10**9)
        cost = estimate_cost(
            bundle, sample, profiles=profiles, prices=load_prices(), settings=settings
        )
        return cost, plan_offers(cost, settings)

    return cost


def on_l4(bundle, *, seconds_per_token):
    """A profile of the bundle on an L4 of a g6.2xlarge, of the same seconds for all tokens."""
    own = profile_of_bundle(bundle)
    seconds = tuple(seconds_per_token * length for length in own.cost.lengths)
    return replace(
        own,
        cost=replace(own.cost, seconds_per_row=seconds, seconds_alone=(), cpu_generation="milan"),
        gpu_name="L4-24GB",
        instance_type="g6.2xlarge",
        origin="calibration",
        measured_at="2026-11-26",
    )


def test_a_bundle_without_a_graph_for_gpus_is_costed_on_them_and_not_planned(cost_of, bundle):
    cost, offers = cost_of(bundle)
    needing = [i for i in describe_cost(cost)["instances"] if i["needs_gpu_graph"]]
    assert {i["instance_type"] for i in needing} == {
        name for name, price in load_prices().items() if price.gpu_count
    }
    assert not any(offer.uses_gpus for offer in offers)
    assert len(needing) == 26
    text = " ".join(explain_instances(cost, top=5))
    assert "!: 26 types with GPUs come last, for they need a float16 graph" in text
    assert f"the cheapest is {needing[0]['instance_type']} " in text


def test_a_cascade_is_costed_by_the_share_of_its_lengths_and_not_planned_on_gpus(
    cost_of, cascade_bundle
):
    cost, offers = cost_of(cascade_bundle)
    assert 0.25 <= describe_cost(cost)["second_share"] < 0.75
    assert not any(offer.uses_gpus for offer in offers)
    text = " ".join(explain_instances(cost, top=5))
    assert "which the bundle lacks (a cascade has none: its graphs are for cores)" in text
    alone, _ = cost_of(first_graph(cascade_bundle))
    assert cost.workload.infer_s.value > 3 * alone.workload.infer_s.value
    assert alone.workload.second_share is None


def test_a_measured_gpu_is_planned_with_those_that_tokenize_for_it(cost_of, two_graphs):
    profile = on_l4(two_graphs, seconds_per_token=1e-7)
    cost, offers = cost_of(two_graphs, profile)
    assert [p.gpu_name for p in cost.profiles] == [None, "L4-24GB"]  # seconds shown are of cores
    own = next(i for i in cost.instances.costs if i.price.instance_type == "g6.2xlarge")
    gpu_s = 1e-7 * cost.workload.scored_tokens.value
    assert own.job_s == pytest.approx(gpu_s)
    assert own.basis == "measured"
    offer = next(offer for offer in offers if offer.instance_type == "g6.2xlarge")
    assert offer.helper.gpu_s == pytest.approx(gpu_s)
    core_s = cost.workload.tokens.value / 900_000 + 0.005 * gpu_s
    assert offer.helper.own_s == pytest.approx(core_s / 3)  # four cores, one of which is the GPU's
    assert offer.job_s == pytest.approx(offer.helper.own_s)
    assert offer.num_shards == cost.workload.num_gpu_shards
    settings = PlanSettings(deadline_s=3600)
    plans = plan_cluster([offer], settings)
    shown = describe_plans(plans, settings)
    assert (shown["device"], shown["helper_type"]) == ("cuda", own.helper.price.instance_type)
    assert shown["num_helpers"] > 0
    assert "score with --device cuda: the GPUs score, and cores tokenize" in explain_plans(
        plans, settings
    )
