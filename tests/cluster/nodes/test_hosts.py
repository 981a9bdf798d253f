"""Jobs on several nodes of a real Ray cluster, some of which are bad, leave, join or are busy.

Each job is compared cell by cell with one that ran in this process, without Ray.
"""

import shutil
import subprocess
from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.cache import CACHE_VARIABLE
from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.cluster.shards.predictions import read_receipt
from fastformers.cluster.storage.directory import open_directory
from fastformers.inference.bundle import DEMO_BUNDLE
from tests.cluster.chaos.jobs import num_done
from tests.cluster.nodes.hosts import CORES, REPOSITORY, Hosts, Job
from tests.cluster.nodes.three_hosts import joined, replace_host
from tests.cluster.outputs import read_predictions

pytestmark = pytest.mark.cluster

NUM_ROWS, MEAN_WORDS, SHARD_SECONDS, MAX_BATCH_TOKENS = 14000, 60, 0.2, 2048
WORDS = np.array(["the", "of", "model", "returns", "a", "list", "value", "index", "type", "is"])
SETTINGS = ("--keep-columns", "id", "--shard-seconds", str(SHARD_SECONDS))
SETTINGS += ("--max-batch-tokens", str(MAX_BATCH_TOKENS))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Rows of skewed lengths in several slices, some without text."""
    rng = np.random.default_rng(15)
    lengths = rng.geometric(1 / MEAN_WORDS, NUM_ROWS).clip(1, 240)
    texts = [" ".join(rng.choice(WORDS, length)) for length in lengths]
    texts[5], texts[NUM_ROWS // 2], texts[11] = None, "", texts[12]
    path = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    table = pa.table({"id": list(range(NUM_ROWS)), "text": texts})
    pyarrow.parquet.write_table(table, path, row_group_size=500)
    return path


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory):
    """What one worker in this process predicts."""
    output = tmp_path_factory.mktemp("here") / "out"
    job = open_score_job(
        str(corpus),
        DEMO_BUNDLE,
        str(output),
        CorpusSettings(keep_columns=("id",), shard_seconds=SHARD_SECONDS),
        max_batch_tokens=MAX_BATCH_TOKENS,
    )
    run_job(job, ActorSettings(), connect_here)
    table = read_predictions(output)
    assert table.num_rows == NUM_ROWS
    assert table["label"].null_count == 2
    return table


@pytest.fixture
def hosts(tmp_path):
    """A cluster whose head does not work; its nodes are gone after the test."""
    with (tmp_path / "cluster.log").open("wb") as log, Hosts(log) as running:
        yield running


@pytest.fixture
def start(hosts, corpus, tmp_path):
    """Starts a job on the cluster, which is gone after the test."""
    with ExitStack() as jobs:

        def start(*options):
            job = Job(hosts, corpus, tmp_path / "out", *SETTINGS, *options, bundle=DEMO_BUNDLE)
            return jobs.enter_context(job)

        yield start


def actors_of(output):
    """Actors that have scored a shard."""
    predictions = open_directory(str(output)).child("predictions")
    receipts = (read_receipt(predictions, name) for name in predictions.list_files())
    return {receipt.actor for receipt in receipts if receipt is not None}


def attempts_at_shards(report):
    return [entry for entry in report["timeline"] if entry["job"] == "score"]


def test_three_hosts_one_killed_one_added_one_bad(hosts, start, expected, tmp_path):
    """A node that is lost costs no shard an attempt, and one that joins works at once."""
    (tmp_path / "file").write_text("")
    goes, _ = hosts.add(), hosts.add()
    hosts.add(env_vars={CACHE_VARIABLE: str(tmp_path / "file")})
    job = start()
    job.wait_for_line("is left out")
    job.wait_until(lambda: len(actors_of(job.output)) == 2, "a shard of either node")
    seconds = replace_host(hosts, job, goes)
    num_then = num_done(job.output)
    summary = job.succeed()
    print(seconds)
    assert read_predictions(job.output).equals(expected)

    report = job.report
    shards = attempts_at_shards(report)
    assert num_then < summary["shards"] - 4
    assert summary["retries"] == 0
    assert {entry["attempt"] for entry in shards} == {1}
    [bad] = [line for line in job.lines if "is left out" in line]
    reason = f"{tmp_path}/file/bundles: cannot be written (Not a directory); set {CACHE_VARIABLE}"
    assert reason in bad
    first, second, last = report["nodes"]
    [gone] = [node for node in (first, second) if node["left_because"] is not None]
    assert last["left_because"] is None
    assert last["joined_s"] > gone["left_s"] > 0
    assert first["shards"] >= 1
    assert second["shards"] >= 1
    assert f"node {gone['name']} has left" in "\n".join(job.lines)
    assert seconds["noticed_s"] < 20.0
    assert seconds["used_s"] < 30.0


@pytest.mark.slow
def test_actors_are_shared_out_over_nodes(hosts, start, expected):
    for _ in range(2):
        hosts.add(CORES, num_cpus=len(CORES))
    number = min(3, 2 * len(CORES))
    job = start("--num-actors", str(number))
    assert job.succeed()["num_actors"] == number
    assert read_predictions(job.output).equals(expected)
    actors = sorted(node["actors"] for node in job.report["nodes"])
    assert actors == [number // 2, number - number // 2]


@pytest.mark.slow
def test_one_node_at_once_and_the_other_when_it_is_lost(hosts, start, expected):
    hosts.add(), hosts.add()
    job = start("--num-nodes", "1")
    job.wait_for_shards(3)
    assert len(joined(job)) == 1
    hosts.remove(min(hosts.names))  # the first that Ray names in order
    job.succeed()
    assert read_predictions(job.output).equals(expected)
    one, other = job.report["nodes"]
    assert one["left_because"] is not None
    assert other["joined_s"] >= one["left_s"]


@pytest.mark.slow
def test_other_work_on_a_node_leaves_fewer_slots(hosts, start, expected):
    node = hosts.add(CORES, num_cpus=2)
    with hosts.other_work(node, 1):
        job = start()
        assert job.succeed()["num_actors"] == 1
    assert read_predictions(job.output).equals(expected)


@pytest.mark.slow
def test_a_cluster_without_free_cpus_is_waited_for(hosts, start, expected):
    """The head does not work, and the only node is busy until another has joined."""
    node = hosts.add()
    with hosts.other_work(node, 1):
        job = start()
        job.wait_for_line("no node works; waiting 300 s for one to join")
        assert not joined(job)
        hosts.add()
        job.wait_for_shards(1)
        assert len(joined(job)) == 1
    job.succeed()
    assert read_predictions(job.output).equals(expected)
    first, second = job.report["nodes"]
    assert first["shards"] >= 1
    assert second["joined_s"] > first["joined_s"] > 0.0


@pytest.mark.slow
def test_a_node_with_other_code_is_left_out(hosts, start, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Ray's workers look for modules where the driver was started
    shutil.copytree(REPOSITORY / "fastformers", tmp_path / "other/fastformers")
    with (tmp_path / "other/fastformers/cluster/settings.py").open("a") as file:
        file.write("# another version\n")
    hosts.add()
    hosts.add(env_vars={"PYTHONPATH": str(tmp_path / "other")})
    job = start()
    job.succeed()
    assert read_predictions(job.output).equals(expected)
    [bad] = [line for line in job.lines if "is left out" in line]
    assert "source" in bad


@pytest.mark.slow
def test_a_node_without_room_for_the_bundle_is_left_out(hosts, start, expected, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small])
    if mounted.returncode != 0:
        pytest.skip("a small filesystem cannot be mounted here")
    try:
        hosts.add()
        hosts.add(env_vars={CACHE_VARIABLE: str(small)})
        job = start()
        job.succeed()
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert read_predictions(job.output).equals(expected)
    [bad] = [line for line in job.lines if "is left out" in line]
    assert str(small) in bad


def test_a_node_whose_memory_monitor_ends_what_it_starts_is_done_without(hosts, start, expected):
    hosts.add()
    low = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "250"}
    hosts.add(env_vars=low)
    job = start()
    assert job.succeed()["retries"] == 0
    assert read_predictions(job.output).equals(expected)
    [bad] = [line for line in job.lines if "is left out" in line]
    assert "Ray's memory monitor ended it, because the node is short of memory: " in bad
    assert bad.endswith("GB were free")


@pytest.mark.slow
def test_the_control_store_is_killed(hosts, start, expected):
    hosts.add(), hosts.add()
    job = start()
    job.wait_for_shards(3)
    [store] = [process for process in hosts.processes if process.name() == "gcs_server"]
    store.kill()
    job.succeed()
    assert read_predictions(job.output).equals(expected)


@pytest.mark.slow
def test_a_killed_job_goes_on_elsewhere_with_what_was_missing(hosts, start, expected):
    """Elastic restart: from two nodes to one that was not there before."""
    hosts.add(), hosts.add()
    job = start()
    job.wait_for_shards(5)
    job.end()
    kept = num_done(job.output)
    hosts.add()
    for node in hosts.names[:2]:
        hosts.remove(node)
    again = start()
    summary = again.succeed()
    assert read_predictions(again.output).equals(expected)
    assert summary["resumed_shards"] == kept
    scored = attempts_at_shards(again.report)
    assert len(scored) == summary["shards"] - kept
    assert len(again.report["nodes"]) == 1


@pytest.mark.slow
def test_actors_that_share_cores_all_find_room(hosts, start, expected):
    """More actors than CPUs on each of two nodes: Ray is asked for a share of a CPU each."""
    hosts.add(), hosts.add()
    job = start("--num-actors", "4", "--oversubscribe")
    assert job.succeed()["num_actors"] == 4
    assert read_predictions(job.output).equals(expected)
    assert [node["actors"] for node in job.report["nodes"]] == [2, 2]
    assert all(node["left_because"] is None for node in job.report["nodes"])
