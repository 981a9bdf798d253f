"""Metrics of a run as Ray is told of them and exports them, and the dashboard that draws them."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import pytest

from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.nodes import metrics
from fastformers.cluster.nodes.metrics import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    LABELS,
    RunMetrics,
    driver_metrics,
    run_of,
)
from fastformers.cluster.scheduling.nodes import Ended, NodeReport
from fastformers.cluster.scheduling.progress import Progress
from fastformers.cluster.scheduling.work import Failed, Finished, Lost, Returned, Ticket
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt

REPOSITORY = Path(__file__).parents[3]
RECEIPT = Receipt(
    shard="shard-0",
    actor="vm:0",
    attempt=1,
    num_rows=100,
    num_unique=90,
    num_errors=2,
    num_tokens=5000,
    num_scored_tokens=4500,
    num_computed_tokens=4600,
    num_batches=3,
    started_at=1000.0,
    finished_at=1002.5,
    predicted_s=2.0,
    rss_bytes=1,
    peak_rss_bytes=1,
    phase_s={"read": 0.25, "tokenize": 0.5, "infer": 1.5, "write": 0.25},
)


def finished(result=RECEIPT):
    return Finished(ticket=Ticket(1), result=result, seconds=2.5)


def report(*outcomes, **doing):
    """A node's report; the times of what ended are not the receipts' own."""
    ended = [Ended(outcome=each, slot="vm:0", start_s=0.0, end_s=9.0) for each in outcomes]
    return NodeReport(ended=tuple(ended), doing=doing)


@pytest.fixture
def told(monkeypatch):
    """Calls that Ray gets: (name, value, tags without run and node), in their order."""
    calls = []

    class Recorded:
        def __init__(self, name, description, *arguments):
            assert description
            self.name, self.tag_keys = name, arguments[-1]

        def _record(self, value, tags):
            assert set(tags) == set(self.tag_keys)
            assert (tags.pop("run"), tags.pop("node")) == ("run-1", "vm")
            calls.append((self.name.removeprefix("fastformers_"), value, *tags.values()))

        def inc(self, value, tags):
            assert value > 0  # Ray refuses others
            self._record(value, dict(tags))

        def set(self, value, tags):
            self._record(value, dict(tags))

        def observe(self, value, tags):
            self._record(value, dict(tags))

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, Recorded)
    return calls


@pytest.fixture
def run_metrics(told, clock):
    clock.now = 50.0
    return RunMetrics("run-1", node="vm", clock=clock)


def values_of(told, name):
    return [value for metric, value, *_ in told if metric == name]


def test_receipts_are_added_up_and_told_once(run_metrics, told):
    other = replace(RECEIPT, num_rows=7, num_errors=0, finished_at=1000.5)
    run_metrics.add_report(report(finished(), finished(None), finished(1.5)), num_in_hand=0)
    run_metrics.add_report(report(finished(other)), num_in_hand=3)
    assert told == []
    run_metrics.flush(force=True)
    assert sorted(told) == [
        ("dead_letters", 2),
        ("jobs_in_hand", 3),
        ("phase_seconds", 0.5, "read"),
        ("phase_seconds", 0.5, "write"),
        ("phase_seconds", 1.0, "tokenize"),
        ("phase_seconds", 3.0, "infer"),
        ("rows", 107),
        ("shard_seconds", 0.5),
        ("shard_seconds", 2.5),
        ("shards", 2),
        ("storage_outage_seconds", 0.0),
        ("tokens", 10000),
    ]
    told.clear()
    run_metrics.flush(force=True)
    assert sorted(told) == [("jobs_in_hand", 3), ("storage_outage_seconds", 0.0)]


def test_the_time_of_cutting_slices_counts_and_they_are_no_shards(run_metrics, told):
    cut = SliceReceipt(index=0, first_shard=0, shards=(), rest=None, phase_s={"tokenize": 2.0})
    run_metrics.add_report(report(finished(cut), finished(cut)), num_in_hand=0)
    run_metrics.flush(force=True)
    assert [call for call in told if call[0] == "phase_seconds"] == [
        ("phase_seconds", 4.0, "tokenize")
    ]
    assert values_of(told, "shards") == values_of(told, "rows") == []


def test_ray_is_told_at_most_once_a_second(run_metrics, told, clock):
    for tenth in range(1, 36):
        clock.now = 50.0 + tenth / 10
        run_metrics.add_report(report(finished()), num_in_hand=1)
    assert values_of(told, "shards") == [10, 10, 10]
    assert values_of(told, "jobs_in_hand") == [1, 1, 1]
    run_metrics.flush(force=True)
    assert values_of(told, "shards") == [10, 10, 10, 5]


def test_only_lost_jobs_are_retries(run_metrics, told):
    ticket = Ticket(1)
    lost = Lost(ticket=ticket, reason="its actor died")
    failed = Failed(ticket=ticket, error=ValueError())
    run_metrics.add_report(report(lost, failed, Returned(ticket=ticket), lost), num_in_hand=0)
    run_metrics.flush(force=True)
    assert values_of(told, "retries") == [2]
    assert values_of(told, "shards") == []


def test_a_state_without_actors_is_told_as_none(run_metrics, told):
    run_metrics.add_report(report(infer=2, wait=1), num_in_hand=2)
    run_metrics.flush(force=True)
    states = [call for call in told if call[0] == "actors"]
    assert sorted(states) == [("actors", 1, "wait"), ("actors", 2, "infer")]
    told.clear()
    run_metrics.add_report(report(infer=3), num_in_hand=3)
    run_metrics.flush(force=True)
    states = [call for call in told if call[0] == "actors"]
    assert sorted(states) == [("actors", 0, "wait"), ("actors", 3, "infer")]


def test_an_outage_lasts_and_counts_once_until_the_storage_answers(run_metrics, told, clock):
    for second, num_silent in enumerate((0, 1, 2, 1, 0, 1), start=51):
        clock.now = float(second)  # a second later, so that Ray is told
        run_metrics.add_report(report(infer=1, store=num_silent), num_in_hand=2)
    assert values_of(told, "storage_outages") == [1, 1]
    assert values_of(told, "storage_outage_seconds") == [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]


def progress(**changes):
    sums = dict.fromkeys(("num_rows", "num_tokens", "num_errors", "num_actors"), 9)
    where = {"num_done": 2, "num_known": 7, "predicted_left_s": 1.5, "num_slices_left": 3}
    rest = {"elapsed_s": 9.0, "predicted_done_s": 9.0, "machine_s": {}}
    return Progress(**sums, **where, **rest, **{"num_nodes": 4, "num_retries": 5, **changes})


def test_values_of_the_run_are_the_last_that_were_set(run_metrics, told):
    run_metrics.set_progress(progress(num_nodes=1), usd=0.25)
    run_metrics.set_progress(progress(), usd=0.5)
    run_metrics.flush(force=True)
    assert sorted(told) == [
        ("core_seconds_left", 1.5),
        ("lost_leases", 5),
        ("nodes", 4),
        ("shards_done", 2),
        ("shards_known", 7),
        ("slices_left", 3),
        ("usd", 0.5),
    ]


def test_progress_is_told_without_a_flush(run_metrics, told, clock):
    clock.now += 1.0
    run_metrics.set_progress(progress(), usd=0.5)
    assert values_of(told, "shards_done") == [2]


@pytest.mark.parametrize("scores", [True, False])
def test_driver_and_supervisors_name_a_run_by_its_output(bundle, tmp_path, write_rows, scores):
    output = str(tmp_path / "out")
    corpus = str(write_rows(tmp_path / "c.jsonl", [{"text": "a cat"}]))
    settings = CorpusSettings()
    if scores:
        options = {"max_batch_tokens": 256}
        job = open_score_job(corpus, bundle.path, output, settings, **options)
    else:
        job = open_prepare_job(corpus, bundle.path, output, settings)
    assert run_of(job.worker_spec()) == (job.output or job.shards).path == output


def test_the_driver_has_one_set_of_metrics_for_a_run(told):
    assert driver_metrics("a") is driver_metrics("a")
    assert driver_metrics("a") is not driver_metrics("b")
    driver_metrics.cache_clear()


def test_without_an_agent_nothing_is_said():
    script = (
        "from fastformers.cluster.nodes.metrics import RunMetrics\n"
        "told = RunMetrics('run-1', node='vm')\n"
        "from fastformers.cluster.scheduling.nodes import NodeReport\n"
        "told.add_report(NodeReport(doing={'infer': 1}), num_in_hand=1)\n"
        "told.flush(force=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def load_dashboard():
    return json.loads((files("fastformers.cluster.nodes") / "grafana_dashboard.json").read_text())


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def metrics_in(text):
    return set(re.findall(r"\bray_\w+", text))


def exported_names():
    """Names under which Prometheus has our metrics."""
    return {
        *(f"ray_{name}_total" for name in COUNTERS),
        *(f"ray_{name}" for name in GAUGES),
        *(f"ray_{name}_bucket" for name in HISTOGRAMS),
    }


def test_the_dashboard_draws_every_metric_and_no_other():
    dashboard = load_dashboard()
    drawn = set().union(*map(metrics_in, expressions(dashboard)))
    assert drawn == exported_names()
    variables = {entry["name"]: entry for entry in dashboard["templating"]["list"]}
    for name in ("run", "node"):
        assert metrics_in(variables[name]["definition"]) <= exported_names()
        assert variables[name]["query"]["query"] == variables[name]["definition"]


def test_the_dashboard_can_be_imported():
    dashboard = load_dashboard()
    assert dashboard["title"] == dashboard["uid"] == "fastformers"
    assert "id" not in dashboard  # Grafana gives it one
    assert dashboard["schemaVersion"] >= 33  # from which on sources are objects
    variables = dashboard["templating"]["list"]
    assert [entry["name"] for entry in variables] == ["datasource", "run", "node"]
    assert (variables[0]["type"], variables[0]["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert [entry["datasource"] for entry in variables[1:]] == [source, source]
    panels = dashboard["panels"]
    assert (
        len({panel["id"] for panel in panels}) == len({p["title"] for p in panels}) == len(panels)
    )
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["description"].endswith(".")
        assert panel["datasource"] == source
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"run", "node", "__rate_interval"}
            assert target["expr"].count("(") == target["expr"].count(")")
            # a line for each node needs the node in its name
            assert ("{{node}}" in target["legendFormat"]) == ("by (node)" in target["expr"])


def test_panels_do_not_overlap_and_fit_the_page():
    taken = set()
    for panel in load_dashboard()["panels"]:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, row) for column in range(x, x + w) for row in range(y, y + h)}
        assert x >= 0
        assert x + w <= 24
        assert not cells & taken
        taken |= cells


@pytest.mark.cluster
@pytest.mark.skipif(
    importlib.util.find_spec("opencensus") is None, reason="Ray's agent needs ray[default]"
)
def test_ray_exports_what_the_dashboard_draws():
    script = Path(__file__).parent / "exported_metrics.py"
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, script, json.dumps(asdict(RECEIPT))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    samples = json.loads(done.stdout.splitlines()[-1])
    assert exported_names() <= {name for name, *_ in samples}
    for name, label in LABELS.items():
        exported = f"ray_{name}_total" if name in COUNTERS else f"ray_{name}"
        assert {label} == set().union(*(own for sample, _, own, _ in samples if sample == exported))
    values = {
        (name.removeprefix("ray_fastformers_"), node, *own.values()): value
        for name, node, own, value in samples
    }
    assert values["rows_total", "vm"] == 200
    assert values["tokens_total", "vm"] == 10000
    assert values["dead_letters_total", "vm"] == 4
    assert values["retries_total", "vm"] == 1
    assert values["phase_seconds_total", "vm", "infer"] == 3.0
    assert values["actors", "vm", "infer"] == 2
    assert values["storage_outages_total", "vm"] == 1
    assert values["usd", "driver"] == 0.25
    assert values["shards_known", "driver"] == 7
    assert values["shard_seconds_count", "vm"] == 2
    assert values["shard_seconds_bucket", "vm", "3.0"] == 2
    assert values["shard_seconds_bucket", "vm", "1.0"] == 0
