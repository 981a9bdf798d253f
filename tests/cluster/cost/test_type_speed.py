"""What a bundle says of its own speed, and what profiles of others teach of a type."""

from dataclasses import replace

import pytest

from fastformers.cluster.cost.machine_profile import profile_of_bundle
from fastformers.cluster.cost.measured.experience import Correction, Experience
from fastformers.cluster.cost.type_speed import ModelTraits, find_speed
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import BundleError
from tests.cluster.cost.test_instances import STUDENT, exactly, make_work

PRICES = load_prices()
WORK = make_work(infer_s=exactly(1e6), tokenize_s=0.0, other_s=0.0)


class Learned(Experience):
    """Has learned an error of GPUs, one of cores, and what a type did for its generation."""

    def error_of(self, judged, *, is_gpu):
        return 7.0 if is_gpu else 1.5

    def correct(self, *, instance_type, **machines):
        errors = {"c8a.4xlarge": 1.2, "c7i.4xlarge": 1.5}
        if instance_type not in errors:
            return None
        return Correction(ratio=3.0, error_factor=errors[instance_type], source="another")


@pytest.mark.parametrize("missing", ["multiply_adds_per_token", "width"])
def test_a_bundle_must_say_all_of_its_arithmetic(bundle, missing):
    assert ModelTraits.of_bundle(bundle).width == bundle.width
    with pytest.raises(BundleError, match="write it again with compress"):
        ModelTraits.of_bundle(replace(bundle, **{missing: None}))


def test_what_machines_have_taught_counts_for_cores_and_gpus_apart(bundle):
    own = profile_of_bundle(bundle)
    profile = replace(own, cost=replace(own.cost, cpu_generation="genoa"))

    def speed(name, experience, traits=STUDENT):
        return find_speed(profile, WORK, PRICES[name], PRICES, traits, None, experience)

    assert speed("g6.xlarge", Learned()).error_factor == 7.0
    assert speed("m7a.4xlarge", Learned()).error_factor == 1.5
    plain, taught = speed("c8a.4xlarge", Experience()), speed("c8a.4xlarge", Learned())
    assert (taught.job_s, taught.error_factor) == (pytest.approx(3 * plain.job_s), 1.2)
    assert taught.scaled_from == f"{plain.scaled_from}, as another did"
    for name, traits in (
        ("c7i.4xlarge", STUDENT),  # no better known than by the rule
        ("c8a.4xlarge", replace(STUDENT, is_int8=False)),  # the built-in bundle is int8
    ):
        assert speed(name, Learned(), traits).job_s == speed(name, Experience(), traits).job_s
