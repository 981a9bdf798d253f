"""Several profiles of one type: which counts, how sure it is, and what is left out."""

import math
from dataclasses import replace

import pytest

from fastformers.cluster.cost.machine_profile import profile_of_bundle
from fastformers.cluster.cost.profile_choice import choose_speed
from fastformers.cluster.cost.type_speed import NO_EXPERIENCE, ModelTraits
from fastformers.cluster.cost.workload import Interval
from fastformers.cluster.pricing.prices import load_prices
from tests.cluster.cost.test_instances import make_work

PRICES = load_prices()
OTHER = "Standard_F16als_v7"  # the processor of c8a.4xlarge
STUDENT = ModelTraits(
    multiply_adds_per_token=4_500_000, width=312, is_int8=True, has_gpu_graph=True
)


@pytest.fixture
def measured(bundle):
    """Make a profile of c8a.4xlarge, and work of so many core-seconds by it."""

    def make(core_s, *, busy=False, engine="onnxruntime 1.32.0", **changes):
        own = profile_of_bundle(bundle)
        cost = replace(
            own.cost,
            cpu_generation="turin",
            cpu_features=("avx2", "avx512", "vnni"),
            engine=engine,
            waiting_share=0.5 if busy else 0.0,
        )
        fields = {
            "instance_type": "c8a.4xlarge",
            "num_workers": 16,
            "origin": "calibration",
            "measured_at": "2026-11-20",
        }
        profile = replace(own, cost=cost, **(fields | changes))
        infer_s = Interval(value=core_s, low=core_s, high=core_s)
        return profile, make_work(infer_s=infer_s, tokenize_s=0.0, other_s=0.0)

    return make


def choose(*works, instance_type="c8a.4xlarge"):
    return choose_speed(works, PRICES[instance_type], PRICES, STUDENT, None, NO_EXPERIENCE)


def test_the_middle_profile_counts_whatever_the_order_and_its_error_is_what_they_differ_by(
    measured,
):
    works = [measured(core_s) for core_s in (1.6e6, 2.0e6, 1.7e6)]
    for order in (works, works[::-1]):
        found = choose(*order)
        assert (found.speed.job_s, found.num_profiles) == (1.7e6 / 16, 3)
        assert found.work.core_s == 1.7e6
    logs = [math.log(core_s) for core_s in (1.6, 2.0, 1.7)]
    spread = math.sqrt(sum((log - sum(logs) / 3) ** 2 for log in logs) / 2)
    assert found.speed.error_factor == pytest.approx(math.exp(1.96 * spread), rel=1e-3)
    assert found.speed.basis == "measured"
    assert found.speed.scaled_from.endswith(" (the middle of 3 profiles)")
    assert choose(*works[:2]).speed.job_s == choose(*works[1::-1]).speed.job_s == 2.0e6 / 16
    alone = choose(works[0])
    assert (alone.speed.error_factor, alone.num_profiles, alone.num_left_out) == (1.0, 1, 0)
    assert alone.speed.scaled_from == "calibration of 2026-11-20"
    with_another = choose(measured(1e6, instance_type=None), works[0])  # of a type that is like it
    assert (with_another.speed.job_s, with_another.speed.error_factor) == (1.6e6 / 16, 1.0)


def test_a_busy_machine_and_an_older_engine_do_not_count_beside_others(measured):
    old = measured(3e6, engine="onnxruntime 1.20.0")
    busy = measured(9e6, busy=True, measured_at="2026-11-26")
    new = measured(2e6, measured_at="2026-11-21")
    found = choose(old, busy, new)
    assert (found.speed.job_s, found.num_profiles, found.num_left_out) == (2e6 / 16, 1, 2)
    assert found.speed.error_factor == 1.0
    own = [measured(2e6, origin="bundle", engine=f"onnxruntime 1.{n}.0") for n in (20, 32)]
    assert choose(*own).num_left_out == 1
    assert choose(busy).speed.job_s == 9e6 / 16
    assert choose(busy, old).speed.job_s == 3e6 / 16


def test_machines_that_are_equally_near_are_scaled_from_by_the_middle_one(measured, bundle):
    """The bundle's own profile, of one thread alone, counts where there is no other."""
    works = [measured(core_s, instance_type=None, num_workers=1) for core_s in (1e6, 4e6, 2e6)]
    own = measured(9e9, instance_type=None, num_workers=1, origin="bundle")
    found = choose(*works, own, instance_type=OTHER)
    assert found.speed.job_s == pytest.approx(2e6 / PRICES[OTHER].physical_cores)
    assert (found.num_profiles, found.num_left_out) == (3, 0)
    assert found.speed.error_factor == pytest.approx(2**1.96, rel=1e-3)
    near = choose(*works[:1], measured(1.01e6, instance_type=None), instance_type=OTHER)
    assert near.speed.error_factor == 1.15


def test_types_that_nothing_says_anything_of_have_no_speed(measured):
    assert choose(measured(1e6), instance_type="g6.xlarge") is not None  # as was published
    gpu = measured(1e6, gpu_name="L4-24GB")
    assert choose(gpu) is None
