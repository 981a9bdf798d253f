"""The pool on Ray, with actors that live and die, as the driver sees it; scoring is not tested."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet
import pytest

from cluster.execution.job import open_score_job
from cluster.execution.run import run_job
from cluster.scheduling.pool import Failed, Finished, Lost, running
from cluster.scheduling.work import JOBS_IN_HAND, MeasureRate, TimeEngine
from cluster.settings import ActorSettings, CorpusSettings
from fastformers.errors import InputError

REPOSITORY = Path(__file__).parents[3]
KNOWS_NO_RAY = [
    *("execution.job", "execution.run", "execution.claim", "execution.local", "execution.worker"),
    *("execution.topology", "execution.core_split", "execution.engine_alone"),
    *("scheduling.driver", "scheduling.pool"),
]


@pytest.mark.parametrize("module", KNOWS_NO_RAY)
def test_only_the_pool_of_ray_loads_ray(module):
    script = f"import sys, cluster.{module}; sys.exit('ray' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


@pytest.fixture(scope="module")
def ray_pool():
    """The module, connected to a cluster on this machine."""
    from cluster.nodes import ray_pool

    with ray_pool.connect(None):
        yield ray_pool


@pytest.fixture
def spec(bundle, tmp_path, write_rows):
    path = write_rows(tmp_path / "c.jsonl", [{"text": "a cat"}])
    return open_score_job(
        str(path),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
        fail_on_bad_row=False,
    ).worker_spec()


def actor_processes():
    """Processes of scoring actors below this one."""
    family = psutil.Process().children(recursive=True)
    return [child for child in family if "ScoringActor" in " ".join(_command_line(child))]


def _command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def outcomes(pool, number):
    found = []
    while len(found) < number:
        found.extend(pool.wait(60.0))
    return {outcome.ticket: outcome for outcome in found}


@pytest.mark.cluster
def test_an_actor_that_dies_with_two_jobs_is_replaced_once_and_works(ray_pool, spec):
    pool = ray_pool.plan_ray_pool(spec, num_actors=1, cores_per_actor=1, oversubscribe=False)
    [slot] = pool.slots
    assert (slot.num_cores, slot.max_jobs) == (1, JOBS_IN_HAND)
    with running(pool):
        warm = pool.submit(slot, MeasureRate(seconds=0.01))
        assert isinstance(outcomes(pool, 1)[warm], Finished)
        [first] = actor_processes()
        tickets = [pool.submit(slot, MeasureRate(seconds=60.0)) for _ in range(2)]
        assert pool.wait(0.2) == []
        first.send_signal(signal.SIGKILL)
        [lost] = outcomes(pool, 1).values()
        again = pool.submit(slot, MeasureRate(seconds=0.01))  # lost if replaced a second time
        lost_too, finished = outcomes(pool, 2).values()
        assert sorted([lost.ticket, lost_too.ticket]) == sorted(tickets)
        for outcome in (lost, lost_too):
            assert isinstance(outcome, Lost)
            assert outcome.reason.startswith("its actor died (Actor")
        assert isinstance(finished, Finished)
        assert finished.ticket == again
        assert pool.slots == [slot]
        [second] = actor_processes()
        assert second.pid != first.pid


@pytest.mark.cluster
def test_a_job_is_killed_with_its_actor_and_errors_come_back_as_they_were(ray_pool, spec):
    pool = ray_pool.plan_ray_pool(spec, num_actors=1, cores_per_actor=1, oversubscribe=False)
    [slot] = pool.slots
    with running(pool):
        hangs = pool.submit(slot, MeasureRate(seconds=3600.0))
        assert pool.wait(0.2) == []
        pool.kill(hangs)
        assert isinstance(outcomes(pool, 1)[hangs], Lost)
        wrong = pool.submit(slot, TimeEngine(shards=("no shard",)))
        failed = outcomes(pool, 1)[wrong]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, AttributeError)
        assert "'str' object has no attribute" in str(failed.error)


@pytest.mark.cluster
def test_actors_that_die_as_they_start_end_the_run(ray_pool, spec, tmp_path):
    broken = replace(spec, bundle_path=tmp_path / "none")
    pool = ray_pool.plan_ray_pool(broken, num_actors=1, cores_per_actor=1, oversubscribe=False)
    [slot] = pool.slots
    with (
        running(pool),
        pytest.raises(InputError, match="died 4 times in a row as they started; see Ray's log"),
    ):
        for _ in range(10):
            pool.submit(slot, MeasureRate(seconds=0.01))
            outcomes(pool, 1)


@pytest.mark.cluster
def test_cpus_that_others_hold_are_not_waited_for(ray_pool, spec, monkeypatch):
    plan = {"num_actors": None, "cores_per_actor": 1, "oversubscribe": False}
    holder = ray_pool.plan_ray_pool(spec, **plan)
    with running(holder):
        for slot in holder.slots:
            holder.submit(slot, MeasureRate(seconds=0.01))
        outcomes(holder, len(holder.slots))
        while ray_pool._free_cpus()[slot.host]:  # Ray learns of it with a delay
            time.sleep(0.05)
        monkeypatch.setattr(ray_pool, "_FREE_WITHIN_S", 0.5)
        with pytest.raises(InputError, match=r"has 0 free CPUs in Ray, \d+ are needed; lower"):
            ray_pool.plan_ray_pool(spec, **plan)
    monkeypatch.setattr(ray_pool, "_FREE_WITHIN_S", 60.0)
    assert len(ray_pool.plan_ray_pool(spec, **plan).slots) == len(holder.slots)


def predictions(output):
    parts = sorted((output / "predictions").glob("part-*.parquet"))
    return pa.concat_tables(pyarrow.parquet.read_table(p).replace_schema_metadata() for p in parts)


def write_corpus(path, write_rows):
    """Rows of several shards, with repeats and a text that cannot be scored."""
    texts = [f"the {'cat ' * (row % 7)}ran {row % 40}" for row in range(90)]
    texts[17] = ""
    return write_rows(path, [{"id": row, "text": text} for row, text in enumerate(texts)])


@pytest.mark.cluster
def test_a_whole_job_gives_the_predictions_of_one_in_this_process(
    ray_pool, bundle, tmp_path, write_rows, run_locally
):
    corpus = write_corpus(tmp_path / "c.jsonl", write_rows)

    def plan(output):
        return open_score_job(
            str(corpus),
            bundle.path,
            str(output),
            CorpusSettings(keep_columns=("id",), shard_seconds=0.002),
            max_batch_tokens=256,
            fail_on_bad_row=False,
        )

    here = run_locally(plan(tmp_path / "here"))
    on_ray = run_job(plan(tmp_path / "ray"), ActorSettings(), ray_pool.connect)
    assert on_ray.shards == here.shards
    assert len(here.shards) > 3
    assert (on_ray.dead_letters, here.dead_letters) == (1, 1)
    expected = predictions(tmp_path / "here")
    assert expected["id"].to_pylist() == list(range(90))
    assert len(set(expected["probability"].to_pylist())) > 40
    assert predictions(tmp_path / "ray").equals(expected)
    letters = [tmp_path / name / "dead_letters.parquet" for name in ("here", "ray")]
    assert pyarrow.parquet.read_table(letters[1]).equals(pyarrow.parquet.read_table(letters[0]))


@pytest.mark.cluster
def test_a_node_that_leaves_takes_its_slot_along_and_the_other_goes_on(
    bundle, tmp_path, write_rows
):
    corpus = write_corpus(tmp_path / "c.jsonl", write_rows)
    script = Path(__file__).parent / "two_nodes.py"
    done = subprocess.run(
        [sys.executable, script, corpus, bundle.path, tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["num_machines"] == seen["num_actors"] == [2, 1]
    assert seen["num_shards"] > 3
    assert seen["under_way"] == ["Lost", "Lost"]
    assert set(seen["further"]) <= {"Lost"}
    assert seen["late"] == "Lost"
    assert seen["after"] == "Finished"
    expected = predictions(tmp_path / "out" / "one")
    assert expected.num_rows == 90
    assert predictions(tmp_path / "out" / "two").equals(expected)
