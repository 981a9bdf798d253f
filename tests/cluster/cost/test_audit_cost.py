"""What an audit adds to the cost of a corpus on each type."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from fastformers.cluster.cost.audit_cost import AuditPlan, plan_audit
from fastformers.cluster.cost.bundle_cost import CostSettings, estimate_cost, plan_offers
from fastformers.cluster.cost.machine_profile import profile_of_bundle
from fastformers.cluster.cost.tables import describe_cost, render_workload
from fastformers.cluster.pricing.prices import load_prices
from fastformers.cluster.settings import AuditSettings
from fastformers.cluster.storage.options import NO_OPTIONS
from fastformers.errors import InputError

PRICES = load_prices()


@pytest.fixture(scope="module")
def auditor(bundle_factory, tmp_path_factory):
    """Another bundle, said to take ten times as long for a row."""
    made = bundle_factory(tmp_path_factory.mktemp("auditor") / "bundle", num_layers=1)
    profile = made.cost_profile
    slow = tuple(10 * seconds for seconds in profile.seconds_per_row)
    return replace(made, cost_profile=replace(profile, seconds_per_row=slow))


@pytest.fixture
def cost_of(tmp_path, rows, write_rows, take, bundle, auditor):
    """Costs of 1e9 rows with a share of them audited: `cost_of(share, *profiles)`."""
    sample = take(write_rows(tmp_path / "a.parquet", rows), bundle)
    settings = CostSettings(today=date(2026, 11, 26), rows=10**9)

    def cost(share, *profiles):
        audit = None if share is None else AuditPlan(bundle=auditor, share=share)
        return estimate_cost(
            bundle, sample, profiles=profiles, prices=PRICES, settings=settings, audit=audit
        )

    cost.settings = settings
    return cost


def by_type(cost):
    return {instance.price.instance_type: instance for instance in cost.instances.costs}


def test_the_audit_s_price_is_its_bundle_s_seconds_times_the_share(cost_of):
    without, with_audit = by_type(cost_of(None)), by_type(cost_of(0.01))
    cost = cost_of(0.01)
    # A tenth of the time of running the model; texts of one length occur in a shard by dozens.
    assert cost.audit.core_s.value == pytest.approx(0.1 * cost.workload.infer_s.value, rel=0.15)
    assert cost.audit.core_s.low <= cost.audit.core_s.value <= cost.audit.core_s.high
    for name, before in without.items():
        after = with_audit[name]
        assert after.audit_usd > 0
        assert after.audit_usd == pytest.approx(after.usd_total - before.usd_total)
        scale = after.usd_total / before.usd_total
        for field in ("usd_per_million", "usd_low", "usd_high", "wall_s", "kwh"):
            assert getattr(after, field) == pytest.approx(scale * getattr(before, field))
        assert after.job_s - before.job_s == pytest.approx(after.wall_s - before.wall_s)
        assert before.audit_usd == 0
    types = [(one.needs_gpu_graph, one.usd_total) for one in cost.instances.costs]
    assert types == sorted(types)


def test_an_audit_is_scaled_by_cores_also_on_machines_with_gpus(cost_of):
    without, with_audit = by_type(cost_of(None)), by_type(cost_of(0.01))
    on_cpu, on_gpu = "c6a.4xlarge", "g6.2xlarge"  # of the same generation of cores
    assert PRICES[on_cpu].cpu_generation == PRICES[on_gpu].cpu_generation
    added = {name: with_audit[name].job_s - without[name].job_s for name in (on_cpu, on_gpu)}
    core_s = added[on_cpu] * PRICES[on_cpu].physical_cores
    # One actor for its one GPU; the clocks differ a little.
    assert added[on_gpu] == pytest.approx(core_s, rel=0.15)
    assert with_audit[on_gpu].pace.alone_s > without[on_gpu].pace.alone_s


def test_a_measured_profile_of_the_audit_bundle_counts(cost_of, auditor):
    profile = profile_of_bundle(auditor)
    fast = replace(profile.cost, seconds_per_row=tuple(np.array(profile.cost.seconds_per_row) / 10))
    measured = replace(
        profile, cost=fast, instance_type="c7i.4xlarge", num_workers=8, origin="calibration"
    )
    slow, quick = cost_of(0.01), cost_of(0.01, measured)
    assert quick.audit.core_s.value == pytest.approx(slow.audit.core_s.value / 10)
    name = "c7i.4xlarge"
    assert by_type(quick)[name].audit_usd < 0.5 * by_type(slow)[name].audit_usd
    threads = replace(measured, num_workers=16)  # two on each of the machine's 8 cores
    before = by_type(cost_of(None))[name].job_s
    added_s = [by_type(one)[name].job_s - before for one in (quick, cost_of(0.01, threads))]
    assert added_s[1] == pytest.approx(added_s[0] / 2)


def test_a_plan_rents_machines_for_the_audit_too(cost_of):
    offers = [plan_offers(cost_of(share), cost_of.settings) for share in (None, 0.1)]
    job_s = [{offer.instance_type: offer.job_s for offer in one} for one in offers]
    assert all(job_s[1][name] > 1.5 * seconds for name, seconds in job_s[0].items())


def test_tables_and_json_say_what_it_adds(cost_of, auditor):
    cost = cost_of(0.01)
    shown = describe_cost(cost)
    assert shown["audit"]["share"] == 0.01
    assert shown["audit"]["bundle_digest"] == auditor.digest
    assert shown["instances"][0]["audit_usd"] == cost.instances.costs[0].audit_usd
    labels, texts = (list(column.cells) for column in render_workload(cost).columns)
    line = texts[labels.index("audit")]
    assert line.startswith(f"1% of the rows by {auditor}: ")
    assert f"% of the USD on {cost.instances.costs[0].price.instance_type}" in line
    assert describe_cost(cost_of(None))["audit"] is None


def test_what_is_asked_for_is_planned_and_nothing_else(bundle, auditor):
    assert plan_audit(AuditSettings(), bundle, NO_OPTIONS) is None
    plan = plan_audit(AuditSettings(share=0.1, bundle=str(auditor.path)), bundle, NO_OPTIONS)
    assert (plan.share, plan.bundle.digest) == (0.1, auditor.digest)


def test_a_bundle_that_cannot_audit_is_refused(bundle, pair_bundle):
    settings = AuditSettings(share=0.1, bundle=str(pair_bundle.path))
    with pytest.raises(InputError, match="--audit-bundle"):
        plan_audit(settings, bundle, NO_OPTIONS)
