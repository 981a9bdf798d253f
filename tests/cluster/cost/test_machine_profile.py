import json
from dataclasses import replace

import pytest

from fastformers.cluster.cost.machine_profile import (
    fit_to_run,
    load_profile,
    load_profiles,
    load_shipped_profiles,
    measure_machine_profile,
    profile_of_bundle,
    reference_profile,
    write_profile,
)
from fastformers.cluster.cost.measured.machine import describe_machine
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import InputError
from fastformers.inference.cpu import CPU_GENERATIONS


@pytest.fixture
def written(bundle, tmp_path):
    """Writes a profile file with the given changes."""

    def write(**changes):
        path = tmp_path / "profiles" / "here.json"
        write_profile(path, replace(profile_of_bundle(bundle), instance_type="c8a.4xlarge"))
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({**fields, **changes}))
        return path

    return write


def test_a_profile_comes_back_as_it_was_written(bundle, tmp_path):
    profile = replace(profile_of_bundle(bundle), instance_type="c8a.4xlarge", num_workers=16)
    write_profile(tmp_path / "new" / "a.json", profile)
    assert load_profiles([tmp_path / "new"], [bundle]) == [profile]
    # A file that is in a directory, too, is one machine, and teaches what one does.
    assert load_profiles([tmp_path / "new", tmp_path / "new" / "a.json"], [bundle]) == [profile]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_profile_of_another_bundle_is_refused_by_name(bundle, pair_bundle, written):
    path = written()
    assert load_profiles([path.parent], [pair_bundle, bundle])
    with pytest.raises(InputError, match=r"here\.json: profile of another bundle than .*pair"):
        load_profiles([path], [pair_bundle])


def test_profiles_of_the_built_in_bundle_are_of_use_for_every_bundle(bundle, tmp_path):
    write_profile(tmp_path / "demo.json", reference_profile())
    assert load_profiles([tmp_path / "demo.json"], [bundle]) == [reference_profile()]


def test_profiles_that_ship_are_of_this_versions_built_in_bundle():
    shipped = load_shipped_profiles()
    assert shipped
    for profile in shipped:
        assert profile.bundle_digest == reference_profile().bundle_digest
        assert profile.machine is not None
        assert profile.cost.cpu_generation in CPU_GENERATIONS
        assert profile.instance_type is None or profile.instance_type in load_prices()


def test_a_profile_of_an_earlier_format_is_read(written):
    path = written(format_version=2)
    fields = json.loads(path.read_text())
    del fields["machine"], fields["gpu_name"], fields["cost"]["waiting_share"]
    path.write_text(json.dumps(fields))
    assert load_profile(path).machine is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format_version": 99}, "profile format 99, this fastformers reads up to 3; upgrade"),
        ({"format_version": "one"}, "profile format one"),
        ({"num_workers": 0}, "damaged"),
        ({"overhead_share": -1}, "damaged"),
        ({"tokenize_s_per_token": "fast"}, "damaged"),
        ({"cost": {"engine": "x"}}, "damaged"),
        ({"color": "blue"}, "damaged"),
        ({"instance_type": 7}, r"damaged \(instance_type is of type int"),
        ({"origin": "rumor"}, r"damaged \(origin is 'rumor'"),
        ({"num_workers": "2"}, r"damaged \(num_workers is of type str"),
        ({"machine": {"num_cpus": 2}}, r"damaged \(machine\.memory_gib is missing"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_by_name(written, changes, what):
    path = written(**changes)
    with pytest.raises(InputError, match=rf"here\.json: {what}"):
        load_profile(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "no JSON"])
def test_another_file_is_no_profile(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"a\.json: is not a profile of ours"):
        load_profile(tmp_path / "a.json")


def test_a_directory_without_profiles_is_refused(bundle, tmp_path):
    with pytest.raises(InputError, match=r"no \.json file there; write one with --profile-out"):
        load_profiles([tmp_path], [bundle])
    with pytest.raises(InputError, match=r"gone: cannot be read: No such file .*give a file"):
        load_profiles([tmp_path / "gone"], [bundle])


@pytest.fixture
def report(make_report, bundle):
    """A whole run of `bundle` that took 1.2 times the seconds that were predicted."""
    used = replace(make_report().bundle, digest=bundle.digest)
    return make_report(bundle=used, tokens=1000, resumed_rows=0, num_actors=4)


def test_a_run_corrects_every_length_and_replaces_what_was_assumed(bundle, report):
    fitted = fit_to_run(bundle, report, path="out/report.json", instance_type="c8a.4xlarge")
    assert fitted.cost.seconds_per_row == pytest.approx(
        [1.2 * seconds for seconds in bundle.cost_profile.seconds_per_row]
    )
    assert fitted.tokenize_s_per_token == 5 / 1000
    assert fitted.overhead_share == 3 / 120
    assert (fitted.num_workers, fitted.origin) == (4, "run")
    assert fitted.instance_type == "c8a.4xlarge"


def test_a_run_of_prepared_shards_says_nothing_of_tokenizing(bundle, report):
    prepared = replace(report, phase_s=replace(report.phase_s, tokenize=0.0))
    fitted = fit_to_run(bundle, prepared, path="out/report.json")
    assert fitted.tokenize_s_per_token == profile_of_bundle(bundle).tokenize_s_per_token


def with_cores(report, cores):
    prediction = replace(report.bill.prediction, measured_core_s=cores * report.phase_s.infer)
    return replace(report, bill=replace(report.bill, prediction=prediction))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: replace(r, bundle=replace(r.bundle, digest="other")), "a run of another bundle"),
        (lambda r: replace(r, resumed_rows=3), "was resumed"),
        (lambda r: replace(r, predicted_s=0.0), "scored nothing"),
        (lambda r: replace(r, tokens=0), "scored nothing"),
        (lambda r: replace(r, phase_s=replace(r.phase_s, infer=0.0)), "scored nothing"),
        (lambda r: replace(r, bill=replace(r.bill, prediction=None)), "scored nothing"),
        (lambda r: with_cores(r, 2), "each actor had several cores"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_by_name(bundle, report, change, what):
    with pytest.raises(InputError, match=rf"out/report\.json: {what}"):
        fit_to_run(bundle, change(report), path="out/report.json")


def test_this_machine_is_measured_with_all_workers_at_once(bundle):
    import os

    cpus = sorted(os.sched_getaffinity(0))[:2]
    profile = measure_machine_profile(
        bundle,
        texts=["the cat sat on the mat"] * 50,
        core_sets=[frozenset([c]) for c in cpus],
        machine=describe_machine(),
    )
    assert profile.bundle_digest == bundle.digest
    assert profile.num_workers == len(cpus)
    assert profile.cost.lengths[-1] == bundle.max_length
    assert min(profile.cost.seconds_per_row) > 0
    assert 0 < profile.tokenize_s_per_token < 1
    with pytest.raises(ValueError, match="at least one text"):
        measure_machine_profile(
            bundle, texts=[], core_sets=[frozenset(cpus)], machine=describe_machine()
        )
