"""Nodes that are taken away while a job runs, with real Ray and a local metadata service."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

REPOSITORY = Path(__file__).parents[3]
NUM_ROWS = 90


@pytest.mark.cluster
def test_nodes_that_are_taken_away_finish_and_cost_nothing(
    bundle, tmp_path, write_rows, metadata_server
):
    metadata_server.items.update(
        {
            "/computeMetadata/v1/instance/preempted": "TRUE",
            "/computeMetadata/v1/instance/machine-type": "projects/1/machineTypes/n2-standard-16",
        }
    )
    rows = [{"text": f"the {'cat ' * (row % 7)}ran {row % 40}"} for row in range(NUM_ROWS)]
    job = {
        "corpus": str(write_rows(tmp_path / "c.jsonl", rows)),
        "bundle": str(bundle.path),
        "shard_seconds": 0.002,
    }
    script = Path(__file__).parent / "leaving_nodes.py"
    done = subprocess.run(
        [sys.executable, script, json.dumps(job), tmp_path / "out", metadata_server.host],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    # An actor that dies on a node that Ray drains: no other can start there, no job is to blame.
    assert seen["draining"] == [seen["drained"]]
    finished, killed, *unable = seen["outcomes"]
    assert [finished, killed] == [["Finished", None], ["Lost", True]]
    assert 1 <= len(unable) <= 2
    assert all(outcome == ["Lost", False] for outcome in unable)
    assert seen["trouble"].startswith("Ray starts no more actors there")
    # A node whose cloud gives notice leaves, another takes its place; the drained one is not used.
    assert seen["nodes"] == seen["expected"]
    assert seen["stays"] == [None, None]
    instance_type, reason = seen["goes"]
    assert instance_type == "n2-standard-16"
    assert reason.startswith("gcp announces: preempt in ")
    assert seen["num_retries"] == 0
    assert sum("it gets no more work" in line for line in seen["lines"]) == 1
    parts = sorted((tmp_path / "out/job/predictions").glob("part-*.parquet"))
    assert sum(pyarrow.parquet.read_metadata(part).num_rows for part in parts) == NUM_ROWS
