"""What a run would have cost elsewhere: computed by hand, and for a run on this machine."""

import time
from dataclasses import replace
from datetime import date

import pytest

import fastformers.cluster.cost.machine_profile
from fastformers.cluster.cost.instances import JOB_START_S
from fastformers.cluster.cost.run_elsewhere import NUM_TYPES, RunWork, estimate_elsewhere
from fastformers.cluster.cost.type_speed import ModelTraits
from fastformers.cluster.cost.workload import Interval
from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.pricing.hardware import GPUS
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice, load_prices
from fastformers.cluster.report.summary import build_report
from fastformers.cluster.settings import CorpusSettings
from fastformers.inference.cpu import Processor
from fastformers.inference.engine import OnnxEngine

TODAY = date(2026, 11, 24)
PRICES = load_prices()
GENOA = Processor(model="AMD EPYC 9R14", generation="genoa", features=("avx2", "avx512", "vnni"))


@pytest.fixture
def on_genoa(monkeypatch):
    """Take this machine for a Genoa, whatever it is."""
    monkeypatch.setattr(fastformers.cluster.cost.machine_profile, "read_processor", lambda: GENOA)


@pytest.fixture
def report(make_report, bundle):
    """123.4 core-seconds of inference, 5 of tokenizing, 3 of reading and writing, by 4 actors."""
    used = replace(make_report().bundle, digest=bundle.digest)
    return make_report(bundle=used, resumed_rows=0, other_types=(), audit=None)


def elsewhere(report, bundle, *, own_type=None, prices=PRICES):
    return estimate_elsewhere(report, bundle, prices, own_type=own_type, today=TODAY)


def only(*names):
    return {name: PRICES[name] for name in names}


def test_the_same_core_takes_the_same_core_seconds(on_genoa, report, bundle):
    [cost] = elsewhere(report, bundle, prices=only("c7a.4xlarge")).other_types
    assert PRICES["c7a.4xlarge"].cpu_generation == "genoa"
    assert cost.wall_s == pytest.approx(JOB_START_S + (123.4 + 5 + 3) / 16)
    assert cost.usd == pytest.approx(cost.wall_s / 3600 * 0.82112)
    assert (cost.usd_low, cost.usd_high) == pytest.approx((cost.usd / 1.15, cost.usd * 1.15))
    assert (cost.basis, cost.scaled_from) == ("scaled", "genoa at 3.7 GHz")
    assert (cost.region, cost.as_of) == ("us-east-1", "2026-07-20")


def test_an_audit_is_carried_over(on_genoa, report, make_report, bundle):
    audited = replace(report, audit=make_report().audit)
    [without] = elsewhere(report, bundle, prices=only("c7a.4xlarge")).other_types
    [cost] = elsewhere(audited, bundle, prices=only("c7a.4xlarge")).other_types
    assert cost.wall_s - without.wall_s == pytest.approx(audited.audit.core_s / 16)


def test_the_cheapest_others_come_first(on_genoa, report, bundle):
    found = elsewhere(report, bundle)
    usd = [cost.usd for cost in found.other_types]
    assert len(usd) == NUM_TYPES
    assert usd == sorted(usd)
    assert found.other_types_unknown is None
    cheapest = found.other_types[0].instance_type
    others = elsewhere(report, bundle, own_type=cheapest).other_types
    assert cheapest not in {cost.instance_type for cost in others}
    assert others[0].instance_type == found.other_types[1].instance_type


def test_a_machine_of_a_known_type_has_that_type_s_clock(on_genoa, report, bundle):
    """The Genoa of c3d has a lower clock than the one assumed for an unknown Genoa."""
    own = PRICES["c3d-standard-16"]
    whole = replace(report, num_actors=2 * own.physical_cores, num_machines=2)
    [cost] = elsewhere(
        whole, bundle, own_type="c3d-standard-16", prices=only("c3d-standard-16", "c7a.4xlarge")
    ).other_types
    assert cost.scaled_from == f"genoa at {own.clock_ghz:g} GHz"
    assert cost.wall_s - JOB_START_S == pytest.approx(131.4 / 16 * own.clock_ghz / 3.7)
    in_part = replace(report, num_actors=1)  # the speed of a full machine was not measured
    [cost] = elsewhere(
        in_part, bundle, own_type="c3d-standard-16", prices=only("c3d-standard-16", "c7a.4xlarge")
    ).other_types
    assert cost.scaled_from == "genoa at 3.7 GHz"


def test_actors_of_many_cores_count_all_of_them(on_genoa, report, bundle):
    """The model's core-seconds are those of the bill, not of the actors' clocks."""
    prediction = replace(report.bill.prediction, measured_core_s=4 * 123.4)
    wide = replace(report, bill=replace(report.bill, prediction=prediction))
    [cost] = elsewhere(wide, bundle, prices=only("c7a.4xlarge")).other_types
    assert cost.wall_s == pytest.approx(JOB_START_S + (4 * 123.4 + 5 + 3) / 16)


def test_a_gpu_runs_the_tokens_that_were_scored_and_its_host_the_rest(on_genoa, report, bundle):
    size = ModelTraits.of_bundle(bundle)
    tokens_per_s = GPUS["L4-24GB"].multiply_adds_per_s(size.width) / size.multiply_adds_per_token
    many = replace(report, unique_tokens=round(100 * tokens_per_s))
    [cost] = elsewhere(many, bundle, prices=only("g6.xlarge")).other_types
    assert cost.wall_s == pytest.approx(JOB_START_S + 100)
    assert cost.basis == "scaled (published)"
    few = replace(report, unique_tokens=1)
    [cost] = elsewhere(few, bundle, prices=only("g6.xlarge")).other_types
    assert cost.wall_s == pytest.approx(JOB_START_S + (5 + 3) * 3.7 / 3.4)  # on one of 2 cores


def test_a_bundle_that_does_not_say_its_size_is_a_reason_and_no_error(on_genoa, report, bundle):
    older = replace(bundle, multiply_adds_per_token=None, width=None)
    found = elsewhere(report, older)
    assert found.other_types == ()
    assert "write it again with compress" in found.other_types_unknown


def test_core_seconds_are_those_of_all_phases():
    known = Interval(value=1.0, low=1.0, high=1.0)
    work = RunWork(rows=known, scored_tokens=known, infer_s=known, tokenize_s=2.0, other_s=4.0)
    assert work.core_s == 7.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: replace(r, resumed_rows=r.rows, tokens=0), "was resumed, so it is not whole"),
        (lambda r: replace(r, predicted_s=0.0), "scored nothing"),
        (lambda r: replace(r, rows=0, tokens=0), "scored nothing"),
        (lambda r: replace(r, bill=replace(r.bill, prediction=None)), "scored nothing"),
    ],
)
def test_a_run_that_says_nothing_has_a_reason_instead(on_genoa, report, bundle, change, reason):
    found = elsewhere(change(report), bundle)
    assert found.other_types == ()
    assert found.other_types_unknown == reason


def test_a_processor_that_is_not_known_is_the_reason(report, bundle, monkeypatch):
    hidden = replace(GENOA, generation=None)
    monkeypatch.setattr(fastformers.cluster.cost.machine_profile, "read_processor", lambda: hidden)
    found = elsewhere(report, bundle)
    assert found.other_types == ()
    assert found.other_types_unknown == "ran on a processor of unknown speed: Some CPU"


def test_a_table_without_another_type_is_the_reason(on_genoa, report, bundle):
    found = elsewhere(report, bundle, own_type="c7a.4xlarge", prices=only("c7a.4xlarge"))
    assert found.other_types_unknown == "no other type of the price table can be costed"


def refuse(*_, **__):
    pytest.fail("something is measured")


def test_a_run_on_this_machine(run_locally, bundle, tmp_path, monkeypatch):
    """Real shards, scored here: other types take their share of what was just measured."""
    from fastformers.inference.cpu import read_processor

    here = read_processor()
    known = replace(here, generation=here.generation or "turin")  # this one may be hidden
    monkeypatch.setattr(fastformers.cluster.cost.machine_profile, "read_processor", lambda: known)
    texts = [f"the cat {n} sat on the mat and ran" + " fast" * (n % 40) for n in range(2000)]
    (tmp_path / "corpus.csv").write_text("text\n" + "\n".join(texts) + "\n")
    job = open_score_job(
        str(tmp_path / "corpus.csv"),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=None,
    )
    price = HourlyPrice(usd_per_hour=0.36, label="given", is_estimate=False)
    measured = build_report(job, run_locally(job), MachinePrices(given=price, table=PRICES))
    with monkeypatch.context() as patch:  # nothing is scored again, and no clock is read
        patch.setattr(OnnxEngine, "__init__", refuse)
        patch.setattr(OnnxEngine, "run", refuse)
        patch.setattr(time, "perf_counter", refuse)
        report = elsewhere(measured, job.bundle)
    assert len(report.other_types) == NUM_TYPES
    phase_s = report.phase_s
    core_s = phase_s.infer + phase_s.tokenize + phase_s.read + phase_s.write
    assert core_s > 0
    for cost in report.other_types:
        price = PRICES[cost.instance_type]
        assert cost.usd == pytest.approx(cost.wall_s / 3600 * price.usd_per_hour_on_demand)
        if not price.gpu_count:  # no core is 20 times as fast as another
            assert 1 / 20 < (cost.wall_s - JOB_START_S) * price.physical_cores / core_s < 20
