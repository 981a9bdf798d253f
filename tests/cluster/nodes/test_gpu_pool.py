"""Actors on logical GPUs and on cores, over one queue: Ray counts GPUs that are not there.

The engine computes on a CPU and sleeps, so that what is tested is who does what.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
import ray

from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.nodes.connect import connect
from fastformers.cluster.settings import ActorSettings, CorpusSettings, ScoringSettings
from tests.cluster.nodes.fake_gpus import LOG, read_seen
from tests.cluster.outputs import read_predictions

REPOSITORY = Path(__file__).parents[3]
NUM_ROWS = 1200

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A cluster of two cores and two logical GPUs; the directory of what its actors saw."""
    directory = str(tmp_path_factory.mktemp("seen"))
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        runtime_env={
            "worker_process_setup_hook": "tests.cluster.nodes.fake_gpus.use_fake_engine",
            "env_vars": {
                "PYTHONPATH": str(REPOSITORY),
                LOG: directory,
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", ""),
            },
        },
    )
    yield directory
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_rows):
    words = ("a cat", "the dog sat", "a bird sang on the mat", "a")
    rows = [{"id": n, "text": f"{words[n % 4]} {'cat ' * (n % 23)}"} for n in range(NUM_ROWS)]
    return write_rows(tmp_path_factory.mktemp("corpus") / "c.jsonl", [*rows, {"id": -1}])


def open_job(corpus, bundle, output, **scoring):
    return open_score_job(
        str(corpus),
        bundle.path,
        str(output),
        CorpusSettings(keep_columns=("id",), shard_seconds=0.02),
        max_batch_tokens=None,
        scoring=ScoringSettings(**scoring),
    )


def scored_by(result):
    return {device: sums.num_rows for (device, _), sums in result.tally.scored.kinds.items()}


def test_one_queue_scores_each_row_once_and_as_one_process_does(seen, corpus, two_graphs, tmp_path):
    """Four actors on two GPUs and two on cores; they share the cores of this machine."""
    job = open_job(corpus, two_graphs, tmp_path / "out", device="mixed", precision="float16")
    actors = ActorSettings(actors_per_gpu=2, oversubscribe=True)
    result = run_job(job, actors, connect)
    alone = open_job(corpus, two_graphs, tmp_path / "alone", precision="float16")
    run_job(alone, ActorSettings(), connect_here)

    assert sum(scored_by(result).values()) == NUM_ROWS + 1
    assert min(scored_by(result).values()) > 0
    assert {precision for _, precision in result.tally.scored.kinds} == {"float16"}
    assert result.tally.agreement.num_texts == 0  # one precision
    found = read_predictions(tmp_path / "out")
    assert found["id"].to_pylist() == [*range(NUM_ROWS), -1]
    columns = ["id", "label", "error"]
    expected = read_predictions(tmp_path / "alone")
    assert found.select(columns) == expected.select(columns)

    own = [one for one in read_seen(seen) if one["order"] == "PCI_BUS_ID"]  # not the node's check
    assert Counter(one["visible"] for one in own) == {"0": 2, "1": 2}
    assert len({(one["visible"], *one["cpus"]) for one in own}) == 2  # each card has its cores
    devices = {use.device: len(use.actor_cores) for use in result.nodes}
    assert devices == {"cuda": 4, "cpu": 2}
    assert result.num_machines == 1


def test_cores_tokenize_for_gpus_and_are_let_go(seen, corpus, two_graphs, tmp_path):
    job = open_job(corpus, two_graphs, tmp_path / "out", device="cuda")
    result = run_job(job, ActorSettings(oversubscribe=True), connect)
    assert scored_by(result) == {"cuda": NUM_ROWS + 1}
    kinds = Counter((a.attempt.job, a.attempt.actor.split(":")[1][:4]) for a in attempts(result))
    assert {job for job, place in kinds if place == "cuda"} == {"score"}
    assert {use.reason for use in result.nodes} == {"nothing is left to tokenize", None}


def attempts(result):
    return result.tally.attempts.attempts()
