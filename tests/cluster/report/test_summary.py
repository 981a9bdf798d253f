import json
from dataclasses import asdict, replace

import pytest

from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.devices.scoring import Scoring
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice, choose_price, load_prices
from fastformers.cluster.records.tally import RunTally
from fastformers.cluster.report.run_report import ActorReport, Energy, PhaseSeconds
from fastformers.cluster.report.summary import build_report, summarize_session
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.label_counts import LabelCounts
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Attempt, Receipt
from fastformers.cluster.storage.directory import open_directory
from fastformers.inference.cpu import Machine, Processor
from tests.cluster.report.shown_bill import show_bill

SLICE_PHASES = {"read": 0.5, "tokenize": 1.0, "write": 0.25}
TABLE = load_prices()
PRICE = MachinePrices(
    given=HourlyPrice(usd_per_hour=0.36, label="0.36 USD per hour, as given", is_estimate=False),
    table=TABLE,
)


def make_shard(number, *, num_rows=100, num_unique=80, num_tokens=1000):
    return Shard(
        name=f"00000-{number:05d}",
        num_rows=num_rows,
        num_unique=num_unique,
        num_tokens=num_tokens,
        num_unique_tokens=num_tokens - 200,
        predicted_s=1.5,
        spans=(("a.csv", num_rows),),
    )


def make_receipt(number, actor="host:0", *, start=0.0, seconds=2.0, **changes):
    shard = make_shard(number)
    fields = {
        "shard": shard.name,
        "actor": actor,
        "attempt": 1,
        "num_rows": shard.num_rows,
        "num_unique": shard.num_unique,
        "num_errors": 0,
        "num_tokens": shard.num_tokens,
        "num_scored_tokens": 800,
        "num_computed_tokens": 800,
        "num_batches": 4,
        "started_at": 1000.0 + start,
        "finished_at": 1000.0 + start + seconds,
        "predicted_s": shard.predicted_s,
        "expected_s": shard.predicted_s,
        "rss_bytes": 2**20 * 50,
        "peak_rss_bytes": 2**20 * (60 + number),
        "phase_s": {"read": 0.25, "infer": 1.5, "write": 0.125},
    }
    return Receipt(**{**fields, **changes})


def make_attempt(name, start_s, end_s, **changes):
    fields = {
        "node": "n0",
        "actor": "host:0",
        "job": "score",
        "name": name,
        "number": 1,
        "start_s": start_s,
        "end_s": end_s,
        "is_lost": False,
        "phase_s": {"read": 0.25, "infer": 1.5, "write": 0.125},
    }
    return Attempt(**{**fields, **changes})


@pytest.fixture
def job(bundle, tmp_path):
    output = open_directory(str(tmp_path / "out"))
    return ScoreJob(
        bundle=bundle,
        pinned=pin_bundle(bundle.path),
        output=output,
        shards=output.child("__run__").child("shards"),
        corpus=None,
        settings=CorpusSettings(),
        keep_columns=(),
        scorings=(
            Scoring(
                device="cpu",
                engine="onnxruntime",
                precision=bundle.precision,
                max_batch_tokens=256,
            ),
        ),
        identity={},
    )


SLICE = SliceReceipt(index=0, first_shard=0, shards=(), rest=None, phase_s=SLICE_PHASES)
EARLIER = (make_receipt(0, "other:0"),)
SCORED = (
    make_receipt(1, "host:0"),
    make_receipt(3, "host:0", start=3.0, attempt=2),
    make_receipt(2, "host:1", seconds=4.0),
)
ATTEMPTS = (
    make_attempt("slice 0", 2.0, 3.75, job="prepare", phase_s=SLICE_PHASES),
    make_attempt("00000-00003", 3.75, 4.25, is_lost=True, phase_s={}),
    make_attempt("00000-00001", 4.25, 6.5),
    make_attempt("00000-00003", 6.5, 9.0, number=2),
    make_attempt("00000-00002", 3.75, 8.0, actor="host:1"),
)


def make_tally(*, earlier=EARLIER, scored=SCORED, attempts=ATTEMPTS, slices=(SLICE,)):
    """Four shards: one scored before, three now, one of them at the second attempt."""
    tally = RunTally()
    for number in range(4):
        tally.known.add(make_shard(number))
    for receipt in earlier:
        tally.earlier.add(receipt)
    for receipt in slices:
        tally.add_slice(receipt)
    receipt_of = {(receipt.shard, receipt.attempt): receipt for receipt in scored}
    for attempt in attempts:
        tally.add_attempt(attempt)
        if receipt := receipt_of.get((attempt.name, attempt.number)):
            tally.add_receipt(receipt)
    tally.close()
    return tally


def make_node(**changes):
    """A machine with two actors, from the start of the run to its end."""
    fields = {
        "node": "n0",
        "name": "host",
        "instance_type": None,
        "joined_s": 0.0,
        "ready_s": 2.0,
        "left_s": 10.0,
        "num_cores": 2,
        "num_idle_cores": 0,
        "actor_cores": {"host:0": 1, "host:1": 1},
        "self_check": "host: 2 actors",
    }
    return NodeUse(**{**fields, **changes})


def make_result(*, nodes=None, **changes):
    """Two actors of one machine that worked for 10 seconds."""
    told = {
        name: changes.pop(name)
        for name in ("earlier", "scored", "attempts", "slices")
        if name in changes
    }
    fields = {
        "tally": make_tally(**told),
        "nodes": (make_node(),) if nodes is None else nodes,
        "dead_letters": 5,
        "dead_letter_reasons": {"null text": 5},
        "skipped_files": {},
        "started_at": 1000.0,
        "wall_s": 10.0,
        "setup_s": 2.0,
        "work_end_s": 9.25,
    }
    return RunResult(**{**fields, **changes})


def test_counts_are_of_the_corpus_and_rates_of_this_run(job):
    report = build_report(job, make_result(), PRICE)
    assert (report.rows, report.unique_rows, report.shards) == (400, 320, 4)
    assert (report.tokens, report.unique_tokens) == (4000, 3200)
    assert (report.resumed_shards, report.resumed_rows) == (1, 100)
    assert report.rows_per_second == pytest.approx(300 / 10)
    assert report.tokens_per_second == pytest.approx(3000 / 10)
    assert report.predicted_s == pytest.approx(3 * 1.5)
    receipts = [make_receipt(1, expected_s=0.15), make_receipt(2, expected_s=0.3)]
    report = build_report(job, make_result(scored=receipts), PRICE)  # cut for another bundle
    assert report.predicted_s == report.bill.prediction.predicted_core_s == pytest.approx(0.45)
    assert (report.dead_letters, report.retries) == (5, 1)


def test_cost_is_wall_seconds_of_all_machines_for_the_rows_of_this_run(job):
    report = build_report(job, make_result(), PRICE)
    assert report.usd_total == pytest.approx(0.36 * 10 / 3600)
    assert report.usd_per_million == pytest.approx(report.usd_total / 300 * 1e6)
    nodes = [make_node(node=f"n{n}", name=f"host{n}") for n in range(3)]
    three = build_report(job, make_result(nodes=nodes), PRICE)
    assert three.usd_total == pytest.approx(3 * report.usd_total)
    assert (three.num_machines, three.num_actors) == (3, 6)
    assert (report.usd_per_hour, report.price) == (0.36, PRICE.given.label)
    assert report.price_is_estimate is False


def test_a_machine_that_left_and_came_back_is_one_machine(job):
    stays = [make_node(left_s=4.0, reason="lost"), make_node(node="n0/2", joined_s=5.0)]
    report = build_report(job, make_result(nodes=stays), PRICE)
    assert (report.num_machines, [node.rows for node in report.nodes]) == (1, [300, 0])
    assert report.usd_total == pytest.approx(0.36 * 9 / 3600)


def test_phases_and_idle_add_up_to_the_actors_time(job):
    phase_s = build_report(job, make_result(), PRICE).phase_s
    assert phase_s.read == pytest.approx(0.5 + 3 * 0.25)
    assert phase_s.tokenize == pytest.approx(1.0)
    assert phase_s.infer == pytest.approx(3 * 1.5)
    assert phase_s.write == pytest.approx(0.25 + 3 * 0.125)
    assert sum(asdict(phase_s).values()) == pytest.approx(2 * (10.0 - 2.0))


def test_idle_time_is_never_negative(job):
    """An actor may have started before the driver looked at the clock."""
    report = build_report(job, make_result(wall_s=2.5, nodes=[make_node(left_s=2.5)]), PRICE)
    assert report.phase_s.idle == 0


def test_actors_are_measured_one_by_one(job):
    actors = build_report(job, make_result(), PRICE).actors
    assert list(actors) == ["host:0", "host:1"]
    assert actors["host:0"] == ActorReport(
        shards=2,
        rows=200,
        rows_per_second=pytest.approx(200 / 4),
        tokens_per_second=pytest.approx(2000 / 4),
        busy_s=pytest.approx(4.0),
        peak_rss_bytes=2**20 * 63,
    )
    assert actors["host:1"].rows_per_second == pytest.approx(100 / 4)


def test_the_peak_is_that_of_the_largest_actor(job):
    assert build_report(job, make_result(), PRICE).peak_rss_bytes == 2**20 * 63


def test_padding_is_of_what_was_computed(job):
    scored = [make_receipt(1, num_scored_tokens=600, num_computed_tokens=800)]
    result = make_result(scored=scored, earlier=[])
    assert build_report(job, result, PRICE).padding_efficiency == pytest.approx(0.75)
    nothing = make_result(scored=[], earlier=[])
    assert build_report(job, nothing, PRICE).padding_efficiency is None


def test_the_timeline_has_every_attempt_of_this_run(job):
    report = build_report(job, make_result(), PRICE)
    timeline = report.timeline
    assert report.attempts == len(timeline)
    assert [(e.job, e.name, e.attempt, e.lost, e.rows, e.tokens) for e in timeline] == [
        ("prepare", "slice 0", 1, False, 0, 0),
        ("score", "00000-00003", 1, True, 0, 0),
        ("score", "00000-00001", 1, False, 100, 1000),
        ("score", "00000-00003", 2, False, 100, 1000),
        ("score", "00000-00002", 1, False, 100, 1000),
    ]
    assert [(e.predicted_s, e.rss_bytes) for e in timeline[1:3]] == [(0.0, 0), (1.5, 50 * 2**20)]
    assert (timeline[3].start_s, timeline[3].end_s) == (6.5, 9.0)
    assert timeline[3].infer_s == 1.5
    assert timeline[3].busy_s == 1.875


def test_the_bill_is_of_all_core_seconds(job):
    report = build_report(job, make_result(nodes=[make_node(num_idle_cores=1)]), PRICE)
    items = {item.heading: item for item in report.bill.items}
    assert sum(item.core_s for item in items.values()) == pytest.approx(3 * 10.0)
    assert items["compute"].core_s == pytest.approx(4.5)
    assert items["retries"].core_s == pytest.approx(0.5 + 2.25 - 1.875)
    assert items["unused cores"].core_s == pytest.approx(10.0)
    assert round(sum(item.usd for item in items.values()), 9) == report.bill.total_usd
    assert report.bill.total_usd == pytest.approx(report.usd_total)
    assert report.bill.prediction.error == pytest.approx(0.0)
    saved = 600 / 2400 * items["compute"].usd  # tokens of equal texts, of texts scored
    assert report.bill.duplicates_saved_usd == pytest.approx(saved, abs=1e-8)


def test_a_prediction_of_core_seconds_is_held_against_all_cores_of_an_actor(job):
    result = make_result(nodes=[make_node(actor_cores={"host:0": 4, "host:1": 4})])
    prediction = build_report(job, result, PRICE).bill.prediction
    assert prediction.measured_core_s == pytest.approx(4 * 4.5)
    assert prediction.error == pytest.approx(-0.75)


def test_an_actor_that_no_attempt_was_told_of_counts_as_one_core(job):
    result = make_result(attempts=[])
    for receipt in SCORED:
        result.tally.add_receipt(receipt)
    prediction = build_report(job, result, PRICE).bill.prediction
    assert prediction.measured_core_s == pytest.approx(4.5)
    assert prediction.error == pytest.approx(0.0)


def test_rates_of_less_than_a_second_are_rates(job):
    scored = [make_receipt(1, seconds=0.5), make_receipt(2, "host:1", seconds=0.0)]
    actors = build_report(job, make_result(scored=scored, earlier=[]), PRICE).actors
    assert list(actors) == ["host:0", "host:1"]
    other_order = make_result(attempts=ATTEMPTS[::-1], scored=scored, earlier=[])
    assert list(build_report(job, other_order, PRICE).actors) == ["host:0", "host:1"]
    rates = [(one.rows_per_second, one.tokens_per_second) for one in actors.values()]
    assert rates == [(200.0, 2000.0), (0.0, 0.0)]


@pytest.mark.parametrize(("left_s", "shares"), [(0.0, (0.0, 1.0)), (0.25, (0.5, 0.5))])
def test_a_run_that_was_charged_nothing_has_the_price_of_its_dearest_machine(job, left_s, shares):
    """And one that was charged for half a second the mean of both."""
    cores_of = {"c7i.4xlarge": 8, "c7a.4xlarge": 16}
    nodes = [
        make_node(node=name, name=name, instance_type=name, num_cores=cores, left_s=left_s)
        for name, cores in cores_of.items()
    ]
    result = make_result(nodes=nodes, scored=[], attempts=[], slices=[], wall_s=1.0)
    given = choose_price(usd_per_hour=None, instance_type=None, num_cores=1, prices=TABLE)
    report = build_report(job, result, MachinePrices(given=given, table=TABLE))
    usd = [TABLE[name].usd_per_hour_on_demand for name in cores_of]
    expected = sum(share * each for share, each in zip(shares, usd, strict=True))
    assert report.usd_per_hour == pytest.approx(expected)
    assert report.usd_total == pytest.approx(left_s * sum(usd) / 3600)


def test_a_resumed_run_sums_its_sessions(job):
    """The first session was killed after it scored 80 of the 100 rows that the second one found."""
    killed = summarize_session(
        make_result(
            earlier=[],
            scored=[make_receipt(0, num_rows=80, num_tokens=800)],
            attempts=[make_attempt("00000-00000", 3.0, 6.0)],
            nodes=[make_node(left_s=6.0)],
            wall_s=6.0,
            work_end_s=6.0,
            is_cut=True,
        ),
        PRICE,
        run="a",
    )
    report = build_report(job, make_result(), PRICE, run="b", earlier=[killed])
    assert [(one.run, one.state, one.rows) for one in report.sessions] == [
        ("a", "running", 80),
        ("b", "finished", 300),
    ]
    assert report.unrecorded_rows == 20
    assert report.wall_s == pytest.approx(6 + 10)
    assert report.usd_total == pytest.approx(0.36 * (6 + 10) / 3600)
    assert report.rows_per_second == pytest.approx(380 / 16)
    assert report.usd_per_million == pytest.approx(report.usd_total / 380 * 1e6)
    items = {item.heading: item.core_s for item in report.bill.items}
    assert items["compute"] == pytest.approx(1.5 + 4.5)
    assert items["cut off"] == pytest.approx(4.0)  # of its other actor
    assert sum(items.values()) == pytest.approx(2 * (6 + 10))
    assert round(sum(item.usd for item in report.bill.items), 9) == report.bill.total_usd
    assert report.phase_s.infer == pytest.approx(1.5 + 4.5)
    assert (report.num_actors, len(report.nodes)) == (2, 1)  # of the last one
    text = show_bill(report)
    assert "running" in text
    assert "20 rows were scored in the last seconds of sessions that ended early" in " ".join(
        text.split()
    )


def test_a_run_in_one_session_shows_no_sessions(job):
    report = build_report(job, make_result(earlier=[]), PRICE)
    assert (len(report.sessions), report.unrecorded_rows) == (1, 0)
    assert "Sessions" not in show_bill(report)


def test_a_run_with_nothing_left_to_do_costs_its_seconds_and_has_no_rate(job):
    here = make_node(
        left_s=0.5, ready_s=None, num_cores=0, num_idle_cores=0, actor_cores={}, self_check=""
    )
    result = make_result(
        scored=[],
        earlier=[make_receipt(number) for number in range(4)],
        slices=[],
        attempts=[],
        nodes=[here],
        wall_s=0.5,
        setup_s=0.0,
        work_end_s=0.0,
    )
    report = build_report(job, result, PRICE)
    assert (report.rows, report.resumed_rows) == (400, 400)
    assert report.rows_per_second == 0
    assert report.usd_per_million is None
    assert report.usd_total == pytest.approx(0.36 * 0.5 / 3600)
    assert report.phase_s == PhaseSeconds(read=0, tokenize=0, infer=0, audit=0, write=0, idle=0)
    assert report.actors == {}
    assert "per million rows" not in show_bill(report)
    assert [item.heading for item in report.bill.items] == ["start-up"]


def test_the_report_names_what_scored_and_where(job, bundle, tmp_path):
    report = build_report(job, make_result(), PRICE)
    assert report.output == str(tmp_path / "out")
    assert report.corpus == str(job.shards)
    asked = replace(job, asked={"corpus": "s3://bucket/corpus"})
    assert build_report(asked, make_result(), PRICE).corpus == "s3://bucket/corpus"
    assert report.bundle.digest == bundle.digest
    assert report.cores == ("host: 2 actors",)


def test_the_bill_says_what_was_lost_of_kept_columns(job):
    slices = [replace(SLICE, unfit={"k": 1200}), replace(SLICE, unfit={"k": 1, "*": 3})]
    report = build_report(job, make_result(slices=slices), PRICE)
    assert report.unfit_values == {"k": 1201, "*": 3}
    assert "are null: 1,201 of 'k', 3 of columns that were not known before" in show_bill(report)
    assert "kept columns" not in show_bill(build_report(job, make_result(), PRICE))


def test_the_bill_names_files_that_were_skipped(job):
    skipped = {f"{number}.csv": "empty" for number in range(11)}
    text = show_bill(build_report(job, make_result(skipped_files=skipped), PRICE))
    assert "7.csv: empty" in text
    assert "8.csv" not in text
    assert "8 of 11 files" in text


def test_the_bill_says_what_the_report_says(job):
    text = show_bill(build_report(job, make_result(skipped_files={"b.csv": "empty"}), PRICE))
    for words in (
        "400 (320 different texts scored, 100 rows by earlier sessions)",
        "4,000 (padding efficiency 1.000)",
        "30 rows/s, 300 tokens/s in 10.0 s",
        "50 rows/s, 500 tokens/s, 2 shards, peak 63 MiB",
        "1 leases retried, 1 files skipped",
        "0.3600 USD/h (0.36 USD per hour, as given)",
        "0.0010 USD",
        "3.33 USD",
        "infer 28.1%",
    ):
        assert words in text


def test_the_bill_says_where_the_money_went(job):
    energy = Energy(
        kwh=0.0012,
        cpu_kwh=0.001,
        gpu_kwh=0.0,
        memory_kwh=0.0002,
        co2_kg=0.0005,
        country="DEU",
        cpu_basis="modelled",
        gpu_basis="none",
        covered_s=9.0,
        source="codecarbon",
    )
    report = build_report(job, make_result(), PRICE, energy=energy)
    text = show_bill(report)
    for words in ("start-up", "idle tail", "retries", "saved: equal texts", "0.0010000"):
        assert words in text
    assert "4.5 core-seconds predicted, 4.5 measured (+0.0%)" in text
    assert "1.2 Wh, 0.5 g CO2e by the mix of DEU (CPU modelled, memory modelled;" in " ".join(
        text.split()
    )


def test_a_machine_that_is_not_of_its_type_is_said_and_priced_by_the_part_that_is_owned(job):
    """Two of the 8 cores of a type, on a machine that is another."""
    own = choose_price(usd_per_hour=None, instance_type="c7i.4xlarge", num_cores=2, prices=TABLE)
    prices = MachinePrices(given=own, table=TABLE)
    seen = Machine(
        processor=Processor(model="AMD EPYC 9B45", generation="turin", features=()),
        num_cpus=2,
        memory_bytes=4 * 2**30,
    )
    nodes = [make_node(num_cores=2, machine_seen=seen)]
    report = build_report(job, make_result(nodes=nodes), prices)
    whole = TABLE["c7i.4xlarge"].usd_per_hour_on_demand
    assert report.usd_per_hour == pytest.approx(whole * 2 / 8)
    assert report.usd_total == pytest.approx(whole * 2 / 8 * 10 / 3600)
    assert report.price.startswith("2 of the 8 cores of c7i.4xlarge on demand, ")
    [mismatch] = report.price_mismatches
    assert mismatch == (
        "priced as c7i.4xlarge, but it has 2 CPUs, not 16; 4 GiB of memory, not 32; "
        "AMD EPYC 9B45 (turin), not Intel Xeon 8488C Sapphire Rapids (x86 AMX, 2 vCPU/core)"
    )
    assert mismatch in " ".join(show_bill(report).split())


def test_the_bill_names_the_commonest_reasons_of_dead_letters(job):
    text = show_bill(build_report(job, make_result(), PRICE))
    assert "5: null text" in text


def test_labels_of_the_rows_say_how_right_the_predictions_are(job):
    """Two of the three labeled rows are right."""
    counts = LabelCounts(
        num_rows=3,
        pairs={'"a"': {"0": 2}, '"b"': {"0": 1}},
        labels={'"a"': 2, '"b"': 1},
        classes={"0": 3},
    )
    names = job.bundle.labels
    renamed = {json.dumps(names[0]): counts.pairs['"a"'], json.dumps(names[1]): counts.pairs['"b"']}
    counts.pairs = renamed
    counts.labels = {json.dumps(names[0]): 2, json.dumps(names[1]): 1}
    scored = [make_receipt(1, labels=asdict(counts))]
    labeled = replace(job, label_column="label")
    result = make_result(scored=scored, earlier=[make_receipt(0, labels=asdict(counts))])
    report = build_report(labeled, result, PRICE)
    assert report.quality.value == pytest.approx(4 / 6)
    assert report.quality.confusion == ((4, 0), (2, 0))
    assert (
        "accuracy 66.67% (95%: 30.00 to 90.32) on 6 rows; column 'label' read by name"
        in " ".join(show_bill(report).split())
    )
    unread = replace(counts, labels={'"x"': 3}, pairs={'"x"': {"0": 3}})
    result = make_result(scored=[make_receipt(1, labels=asdict(unread))], earlier=[])
    report = build_report(labeled, result, PRICE)
    assert report.quality is None
    assert report.quality_unknown.startswith("column 'label': label 'x' is not one of the model's")
    assert "not known: column 'label'" in show_bill(report)


def test_the_bill_of_an_untroubled_run_mentions_no_trouble(job):
    text = show_bill(build_report(job, make_result(attempts=ATTEMPTS[2:3], earlier=[]), PRICE))
    assert "trouble" not in text
    assert "earlier sessions" not in text


def test_nodes_of_two_types_are_paid_for_at_the_price_of_each(job):
    """One joins after 4 seconds and is gone after 8; it is of a type four times as dear or so."""
    nodes = [
        make_node(instance_type="c7i.4xlarge", num_cores=8, actor_cores={"host:0": 1}),
        make_node(
            node="n1",
            name="spot",
            instance_type="c7a.4xlarge",
            joined_s=4.0,
            ready_s=5.0,
            left_s=8.0,
            num_cores=16,
            actor_cores={"host:1": 1},
            reason="its cloud took it back",
        ),
    ]
    attempts = [*ATTEMPTS[:4], make_attempt("00000-00002", 5.5, 7.75, node="n1", actor="host:1")]
    given = choose_price(usd_per_hour=None, instance_type=None, num_cores=1, prices=TABLE)
    prices = MachinePrices(given=given, table=TABLE)
    report = build_report(job, make_result(nodes=nodes, attempts=attempts), prices)
    cheap = TABLE["c7i.4xlarge"].usd_per_hour_on_demand
    dear = TABLE["c7a.4xlarge"].usd_per_hour_on_demand
    assert report.usd_total == pytest.approx((10 * cheap + 4 * dear) / 3600)
    assert report.usd_per_hour == pytest.approx((10 * cheap + 4 * dear) / 14)
    assert report.price_is_estimate is False
    first, second = report.price.split("; ")
    assert first.startswith("c7i.4xlarge on demand")
    assert second.startswith("c7a.4xlarge on demand")
    assert sum(item.core_s for item in report.bill.items) == pytest.approx(10 + 4)
    assert round(sum(item.usd for item in report.bill.items), 9) == report.bill.total_usd
    stayed, left = report.nodes
    assert (stayed.shards, stayed.rows, stayed.rows_per_second) == (2, 200, 20.0)
    assert (left.shards, left.rows, left.rows_per_second) == (1, 100, 25.0)
    assert left.usd == pytest.approx(4 * dear / 3600)
    assert left.left_because == "its cloud took it back"
    text = show_bill(report)
    assert "c7a.4xlarge" in text
    assert "its cloud took it back" in text


def test_tokens_over_time_are_those_of_the_shards(job):
    tokens = build_report(job, make_result(), PRICE).tokens_over_time
    assert {name: sum(bins) for name, bins in tokens.groups.items()} == pytest.approx(
        {"CPU 0": 2000, "CPU 1": 1000}
    )
    bin_of = int(4.25 / tokens.bin_s)
    assert sum(tokens.groups["CPU 0"][:bin_of]) == 0  # it reads a slice and dies over a shard
    assert sum(tokens.groups["CPU 1"][:bin_of]) == 0  # it loads until the shard begins


def test_actors_of_a_node_that_came_back_are_one_name_and_two_in_number(job):
    attempts = [ATTEMPTS[2], make_attempt("00000-00003", 6.5, 9.0, number=2, node="n1")]
    both = [make_node(left_s=7.0, reason="lost"), make_node(node="n1", joined_s=7.0)]
    report = build_report(job, make_result(attempts=attempts, nodes=both), PRICE)
    assert report.actors["host:0"].shards == 2
    assert report.num_actors == 4
