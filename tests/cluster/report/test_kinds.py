"""What a report says of actors on GPUs and on cores, and what each of them costs."""

import math
from dataclasses import replace

import pytest

from fastformers.cluster.cost.machine_profile import find_misfit
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.devices.scoring import Scoring
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import load_prices, price_on_demand
from fastformers.cluster.records.tally import RunTally
from fastformers.cluster.report.page import render_page
from fastformers.cluster.report.summary import build_report
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.receipts import Attempt, Receipt
from fastformers.cluster.storage.directory import open_directory
from tests.cluster.report.shown_bill import show_bill

GPU_TYPE, CPU_TYPE = "g6.xlarge", "c7i.4xlarge"
WALL_S = 100.0


def make_receipt(number, device, *, start, infer_s, **changes):
    fields = {
        "shard": f"000000-{number:05d}",
        "actor": f"host:{device}",
        "attempt": 1,
        "num_rows": 1000,
        "num_unique": 1000,
        "num_errors": 0,
        "num_tokens": 9000,
        "num_scored_tokens": 9000,
        "num_computed_tokens": 9000,
        "num_batches": 10,
        "started_at": start,
        "finished_at": start + infer_s,
        "predicted_s": 1.0,
        "rss_bytes": 1,
        "peak_rss_bytes": 1,
        "phase_s": {"read": 0.0, "infer": infer_s, "write": 0.0},
        "device": device,
        "precision": "float16" if device == "cuda" else "int8",
    }
    return Receipt(**{**fields, **changes})


def make_use(device, instance_type, *, machine, joined_s=0.0, left_s=WALL_S, cores=1, reason=None):
    return NodeUse(
        node=f"{machine}:{device}",
        name=f"{machine}:{device}",
        instance_type=instance_type,
        joined_s=joined_s,
        left_s=left_s,
        num_cores=cores,
        num_idle_cores=0,
        actor_cores={f"host:{device}": cores},
        self_check="",
        ready_s=joined_s,
        reason=reason,
        device=device,
        machine=machine,
    )


@pytest.fixture
def report_of(bundle, tmp_path):
    """Makes the report of a run of these nodes and receipts."""

    def make(uses, receipts, *, devices=("cpu", "cuda"), earlier=(), agreement=None):
        output = open_directory(str(tmp_path / "out"))
        scorings = {
            "cpu": Scoring(
                device="cpu", engine="onnxruntime", precision="int8", max_batch_tokens=2048
            ),
            "cuda": Scoring(
                device="cuda",
                engine="onnxruntime-cuda",
                precision="float16",
                max_batch_tokens=32768,
            ),
        }
        job = ScoreJob(
            bundle=bundle,
            pinned=pin_bundle(bundle.path),
            output=output,
            shards=output.child("shards"),
            corpus=None,
            settings=CorpusSettings(),
            keep_columns=(),
            scorings=tuple(scorings[device] for device in devices),
            identity={},
        )
        tally = RunTally()
        for receipt in earlier:
            tally.earlier.add(receipt)
        node_of = {actor: use.node for use in uses for actor in use.actor_cores}
        for receipt in receipts:
            attempt = Attempt(
                node=node_of[receipt.actor],
                actor=receipt.actor,
                job="score",
                name=receipt.shard,
                number=1,
                start_s=receipt.started_at,
                end_s=receipt.finished_at,
                is_lost=False,
                phase_s=receipt.phase_s,
            )
            tally.add_attempt(attempt)
            tally.add_receipt(receipt)
        tally.agreement = agreement or Agreement()
        result = RunResult(
            tally=tally,
            nodes=tuple(uses),
            dead_letters=0,
            dead_letter_reasons={},
            skipped_files={},
            started_at=0.0,
            wall_s=WALL_S,
            setup_s=0.0,
            work_end_s=WALL_S,
        )
        table = load_prices()
        prices = MachinePrices(given=price_on_demand(table[CPU_TYPE]), table=table)
        return build_report(job, result, prices)

    return make


def usd_per_hour(instance_type):
    return price_on_demand(load_prices()[instance_type]).usd_per_hour


@pytest.fixture
def mixed(report_of):
    """A machine with a GPU, which computes for 60 of 80 s, and one without."""
    uses = (
        make_use("cuda", GPU_TYPE, machine="a"),
        make_use("cpu", CPU_TYPE, machine="b", cores=8),
    )
    receipts = [
        make_receipt(0, "cuda", start=10.0, infer_s=30.0, gpu_busy=0.5),
        make_receipt(1, "cuda", start=60.0, infer_s=30.0, gpu_busy=0.75),
        make_receipt(2, "cpu", start=0.0, infer_s=99.0),
    ]
    earlier = [make_receipt(3, "cuda", start=0.0, infer_s=1.0)]
    agreement = Agreement(num_texts=400, num_equal=399, largest_difference=0.03)
    return report_of(uses, receipts, earlier=earlier, agreement=agreement)


def test_each_kind_has_its_precision_its_share_and_its_price(mixed):
    on_cores, on_gpus = mixed.kinds
    assert (on_cores.device, on_cores.precision, on_cores.engine) == ("cpu", "int8", "onnxruntime")
    assert (on_gpus.precision, on_gpus.max_batch_tokens) == ("float16", 32768)
    assert (on_cores.shards, on_gpus.shards) == (1, 3)  # those of earlier runs, too
    assert (on_cores.share_of_tokens, on_gpus.share_of_tokens) == (0.25, 0.75)
    assert on_gpus.usd == pytest.approx(usd_per_hour(GPU_TYPE) * WALL_S / 3600)
    assert on_gpus.usd_per_million == pytest.approx(on_gpus.usd / 2000 * 1e6)
    assert mixed.usd_total == pytest.approx(on_cores.usd + on_gpus.usd)
    assert math.fsum(item.usd for item in mixed.bill.items) == pytest.approx(mixed.bill.total_usd)


def test_seconds_of_gpus_are_not_compared_with_a_profile_of_cores(mixed, bundle):
    assert mixed.bill.prediction is None
    whole = replace(mixed, bundle=replace(mixed.bundle, digest=bundle.digest), resumed_rows=0)
    assert find_misfit(bundle, whole) == "was scored on GPUs, whose seconds say nothing of cores"


def test_a_gpu_that_waits_is_bound_by_its_host(mixed):
    on_cores, on_gpus = mixed.kinds
    assert on_gpus.computing == pytest.approx(60 / 80)
    assert on_gpus.waiting == pytest.approx(20 / 80)
    assert on_gpus.gpu_busy == pytest.approx((0.5 * 30 + 0.75 * 50) / 80)
    assert (on_gpus.bound_by, on_cores.bound_by) == ("host", None)
    assert on_cores.gpu_busy is None


@pytest.mark.parametrize(("busy", "bound_by"), [(None, "card"), (0.95, "card"), (0.5, "host")])
def test_a_gpu_that_always_computes_is_the_limit_unless_its_kernels_say_otherwise(
    report_of, busy, bound_by
):
    receipts = [
        make_receipt(n, "cuda", start=10.0 * n, infer_s=9.9, gpu_busy=busy) for n in range(9)
    ]
    report = report_of([make_use("cuda", GPU_TYPE, machine="a")], receipts, devices=("cuda",))
    (on_gpus,) = report.kinds
    assert on_gpus.bound_by == bound_by


def test_a_machine_that_is_two_nodes_is_paid_for_once(report_of):
    """Its other cores, which tokenize, cost nothing while it has actors on GPUs."""
    uses = (
        make_use("cuda", GPU_TYPE, machine="a", joined_s=10.0, left_s=80.0, reason="lost"),
        make_use("cpu", GPU_TYPE, machine="a", cores=3),
    )
    report = report_of(uses, [make_receipt(0, "cuda", start=10.0, infer_s=60.0)], devices=("cuda",))
    assert report.usd_total == pytest.approx(usd_per_hour(GPU_TYPE) * WALL_S / 3600)
    assert report.usd_per_hour == usd_per_hour(GPU_TYPE)
    on_gpus, on_cores = report.nodes
    assert (on_gpus.device, on_cores.device) == ("cuda", "cpu")
    assert on_cores.usd == pytest.approx(usd_per_hour(GPU_TYPE) * 30 / 3600)
    assert report.num_machines == 1
    by_kind = {kind.device: kind for kind in report.kinds}
    assert (by_kind["cpu"].precision, by_kind["cpu"].engine) == (None, None)
    assert (by_kind["cpu"].rows, by_kind["cpu"].usd_per_million) == (0, None)


def test_cores_alone_are_one_kind_and_compare_nothing(report_of):
    report = report_of(
        [make_use("cpu", CPU_TYPE, machine="")],
        [make_receipt(0, "cpu", start=0.0, infer_s=50.0)],
        devices=("cpu",),
    )
    (kind,) = report.kinds
    assert (kind.device, kind.share_of_tokens, report.agreement) == ("cpu", 1.0, None)
    assert not report.uses_gpus
    assert "Actors" not in show_bill(report)


def test_it_is_shown_in_the_terminal_and_on_the_page(mixed):
    assert (mixed.agreement.texts, mixed.agreement.equal_labels) == (400, 399 / 400)
    shown = show_bill(mixed)
    assert (
        "int8 and float16: 99.75% equal labels of 400 texts scored in both, values differ" in shown
    )
    assert "75.0%" in shown
    page = render_page(mixed)
    assert "1 actor on GPUs scored 75.0% of the tokens in float16, and computed 75.0% of" in page
    assert "(GPU busy 65.6%), held up by the host" in page
