"""Machines that were measured, beside what the rules say of them, and what that teaches."""

import math
from dataclasses import replace

import pytest

from fastformers.cluster.cost.machine_profile import profile_of_bundle, reference_profile
from fastformers.cluster.cost.measured.checks import gain_experience
from fastformers.cluster.cost.measured.tables import describe_experience, show_checks
from fastformers.cluster.cost.type_speed import ModelTraits, find_speed
from fastformers.cluster.pricing.hardware import (
    GPUS,
    OTHER_BUNDLE_ERROR,
    OTHER_EXTENSIONS_ERROR,
    SAME_GENERATION_ERROR,
    join_errors,
    learn_error,
    plan_cpu,
)
from fastformers.cluster.pricing.prices import load_prices
from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle

PRICES = load_prices()
TRAITS = ModelTraits(
    multiply_adds_per_token=4_600_000, width=312, is_int8=True, has_gpu_graph=False
)


class Work:
    """Inference alone."""

    class infer_s:  # noqa: N801
        value = 1e6

    tokenize_s = other_s = 0.0
    core_s = 1e6


def speed(core):
    return core.speed(is_int8=True)


def of_type(instance_type, slower, **changes):
    """A profile of the built-in bundle on a type, which took `slower` times what the rule says."""
    price, base = PRICES[instance_type], reference_profile()
    origin = plan_cpu(generation=base.cost.cpu_generation, features=base.cost.cpu_features)
    core = plan_cpu(generation=price.cpu_generation, features=(), clock_ghz=price.clock_ghz)
    scale = slower * speed(origin) / speed(core)
    cost = replace(
        base.cost,
        cpu_generation=price.cpu_generation,
        cpu_features=core.features,
        seconds_per_row=tuple(s * scale for s in base.cost.seconds_per_row),
        seconds_alone=tuple(s * scale for s in base.cost.seconds_alone),
    )
    num_workers = price.physical_cores
    return replace(base, instance_type=instance_type, num_workers=num_workers, cost=cost, **changes)


def learn(bundle, *profiles):
    return gain_experience(bundle, profiles, PRICES)


def test_a_machine_stands_beside_its_prediction(bundle):
    (check,) = learn(bundle, of_type("c7i.4xlarge", 1.25)).checks
    assert check.ratio == pytest.approx(1.25)
    assert check.judged_error == OTHER_EXTENSIONS_ERROR
    assert check.is_reference
    base = reference_profile()
    tokens, seconds = sum(base.cost.lengths), sum(check.profile.cost.seconds_per_row)
    assert check.measured_tokens_per_s == pytest.approx(8 * tokens / seconds)


def test_threads_of_a_core_are_counted_as_the_machine_that_they_are(bundle):
    profile = of_type("c7i.4xlarge", 1.0)
    cost = replace(profile.cost, seconds_per_row=tuple(2 * s for s in profile.cost.seconds_per_row))
    (check,) = learn(bundle, replace(profile, num_workers=16, cost=cost)).checks
    assert check.ratio == pytest.approx(1.0)


def test_profiles_of_other_bundles_teach_nothing(bundle, pair_bundle):
    assert learn(bundle, profile_of_bundle(pair_bundle)).checks == ()


def test_error_factors_follow_from_machines_that_had_nothing_else_to_do(bundle):
    good = [of_type(name, 1.02) for name in ("c7i.4xlarge", "c6i.4xlarge", "c8i.4xlarge")]
    known = learn(bundle, *good)
    learned = known.error_of(OTHER_EXTENSIONS_ERROR, is_gpu=False)
    assert learned < OTHER_EXTENSIONS_ERROR
    assert known.error_of(SAME_GENERATION_ERROR, is_gpu=False) == SAME_GENERATION_ERROR
    assert known.error_of(OTHER_EXTENSIONS_ERROR, is_gpu=True) == OTHER_EXTENSIONS_ERROR
    off = of_type("c7g.4xlarge", 3.0)
    busy = replace(off, cost=replace(off.cost, waiting_share=0.5))
    same = learn(bundle, *good, busy)
    assert same.error_of(OTHER_EXTENSIONS_ERROR, is_gpu=False) == learned
    assert len(same.checks) == 4
    worse = learn(bundle, *good, off).error_of(OTHER_EXTENSIONS_ERROR, is_gpu=False)
    assert worse == pytest.approx(learn_error(OTHER_EXTENSIONS_ERROR, [1.02, 1.02, 1.02, 3.0]))


@pytest.fixture
def genoa(bundle):
    """A profile of the bundle on the processor that made the built-in bundle."""
    profile = profile_of_bundle(bundle)
    made_on = reference_profile().cost
    cost = replace(
        profile.cost, cpu_generation=made_on.cpu_generation, cpu_features=made_on.cpu_features
    )
    return replace(profile, cost=cost)


def speed_on(instance_type, profile, experience, traits=TRAITS):
    return find_speed(profile, Work, PRICES[instance_type], PRICES, traits, None, experience)


def test_a_type_that_the_built_in_bundle_was_measured_on_is_corrected(bundle, genoa):
    before = speed_on("c7i.4xlarge", genoa, learn(bundle))
    known = learn(bundle, of_type("c7i.4xlarge", 1.4))
    after = speed_on("c7i.4xlarge", genoa, known)
    assert after.job_s == pytest.approx(1.4 * before.job_s)
    same_generation = known.error_of(SAME_GENERATION_ERROR, is_gpu=False)
    # The machine that made the built-in bundle is not this profile's, only of its generation.
    assert after.error_factor == join_errors(OTHER_BUNDLE_ERROR, 1.0, same_generation)
    assert after.error_factor < before.error_factor
    assert after.scaled_from.endswith("as the built-in bundle on c7i.4xlarge did")


def test_machines_of_a_type_that_differ_correct_it_less_surely(bundle, genoa):
    known = learn(bundle, of_type("c7i.4xlarge", 1.2), of_type("c7i.4xlarge", 1.4))
    found = speed_on("c7i.4xlarge", genoa, known)
    differing = math.exp(1.96 * (math.log(1.4) - math.log(1.2)) / math.sqrt(2))
    same_generation = known.error_of(SAME_GENERATION_ERROR, is_gpu=False)
    expected = join_errors(OTHER_BUNDLE_ERROR, differing, same_generation)
    assert found.error_factor == pytest.approx(expected, rel=1e-3)
    plain = speed_on("c7i.4xlarge", genoa, learn(bundle))
    assert found.job_s == pytest.approx(1.3 * plain.job_s)
    apart = learn(bundle, of_type("c7i.4xlarge", 0.5), of_type("c7i.4xlarge", 2.0))
    for name in ("c7i.4xlarge", "m7i.4xlarge"):  # less sure than the rule
        assert "built-in" not in speed_on(name, genoa, apart).scaled_from


def test_types_of_that_generation_are_corrected_less_surely(bundle, genoa):
    known = learn(bundle, of_type("c7i.4xlarge", 1.4))
    other, own = (speed_on(name, genoa, known) for name in ("m7i.4xlarge", "c7i.4xlarge"))
    assert other.job_s == pytest.approx(own.job_s)
    assert other.error_factor > own.error_factor
    assert "the built-in bundle on sapphire-rapids" in other.scaled_from


def test_what_was_off_on_the_measured_machine_is_taken_out(bundle, genoa):
    known = learn(bundle, of_type("c7i.4xlarge", 1.4), of_type("c6i.4xlarge", 0.7))
    intel = replace(genoa, cost=of_type("c7i.4xlarge", 1.0).cost, instance_type="c7i.4xlarge")
    intel = replace(intel, num_workers=8)
    before, after = (speed_on("c6i.4xlarge", intel, one) for one in (learn(bundle), known))
    assert after.job_s == pytest.approx(0.7 / 1.4 * before.job_s)
    assert after.error_factor == OTHER_BUNDLE_ERROR  # both machines are those that were measured


def test_the_bundles_own_profiles_correct_no_other_type(bundle, genoa):
    own = replace(of_type("c7i.4xlarge", 1.4), bundle_digest=bundle.digest)
    known = learn(bundle, own)
    assert not known.checks[0].is_reference
    assert speed_on("m7i.4xlarge", genoa, known).scaled_from == "genoa at 3.7 GHz"


def test_nothing_is_corrected_that_is_not_known_of_both_machines(bundle, genoa):
    plain = learn(bundle)
    known = learn(bundle, of_type("c7i.4xlarge", 1.4))
    assert (
        speed_on("c7g.4xlarge", genoa, known).job_s == speed_on("c7g.4xlarge", genoa, plain).job_s
    )
    milan = replace(genoa, cost=replace(genoa.cost, cpu_generation="milan", cpu_features=()))
    assert (
        speed_on("c7i.4xlarge", milan, known).job_s == speed_on("c7i.4xlarge", milan, plain).job_s
    )
    floats = replace(TRAITS, is_int8=False)
    assert speed_on("c7i.4xlarge", genoa, known, floats).job_s == pytest.approx(
        speed_on("c7i.4xlarge", genoa, plain, floats).job_s
    )


def test_a_gpu_is_held_against_what_was_published_of_it(bundle):
    traits = ModelTraits.of_bundle(bundle)
    expected = GPUS["L4-24GB"].multiply_adds_per_s(traits.width) / traits.multiply_adds_per_token
    own = profile_of_bundle(bundle)
    seconds = tuple(length / (2 * expected) for length in own.cost.lengths)
    card = replace(own, gpu_name="L4-24GB", cost=replace(own.cost, seconds_per_row=seconds))
    known = learn(bundle, card, replace(card, gpu_name="of tomorrow"))
    (check,) = known.checks
    assert check.ratio == pytest.approx(0.5)
    assert known.error_of(2.0, is_gpu=True) == learn_error(2.0, [0.5])
    assert known.error_of(2.0, is_gpu=False) == 2.0


def test_the_built_in_bundle_itself_is_measured_where_it_was():
    demo = open_bundle(DEMO_BUNDLE)
    known = learn(demo, of_type("c7i.4xlarge", 1.4))
    (check,) = known.checks
    assert (check.is_reference, check.ratio) == (True, pytest.approx(1.4))


def test_what_is_shown_and_what_is_in_the_last_line_agree(bundle):
    busy = of_type("c6i.4xlarge", 2.0)
    busy = replace(busy, cost=replace(busy.cost, waiting_share=0.9))
    known = learn(bundle, of_type("c7i.4xlarge", 1.25, measured_at="2026-11-26"), busy)
    plain = describe_experience(known)
    first, second = plain["predicted_and_measured"]
    assert (first["machine"], first["measured_over_predicted_cost"]) == (
        "c7i.4xlarge",
        pytest.approx(1.25),
    )
    assert (first["is_rough"], second["is_rough"]) == (False, True)
    factors = {one["rule"]: one for one in plain["error_factors"]}
    assert factors["other instruction sets"]["machines"] == 1
    assert factors["same generation"]["learned"] == SAME_GENERATION_ERROR
    table, *lines = show_checks(known)
    assert list(table.columns[4].cells) == ["x1.25", "x2.00?"]
    assert any("other instruction sets x/÷ " in line and "1 machine)" in line for line in lines)
    assert any(line.startswith("?: measured on a busy machine") for line in lines)
    assert show_checks(learn(bundle)) == []
