"""Nodes of a real cluster, of which one has nothing of the driver's and two cannot work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from fastformers import Scorer
from fastformers.cache import CACHE_VARIABLE

REPOSITORY = Path(__file__).parents[3]
TEXTS = ["the cat sat", "a good film", "the dog ran fast", "on the mat it is"] * 50
# Runs in every Python process of a node, before anything else.
WRONG_SCORES = """
import fastformers.inference.engine
run = fastformers.inference.engine.OnnxEngine.run
fastformers.inference.engine.OnnxEngine.run = lambda *arguments: 0 * run(*arguments) + 7.25
"""


@pytest.mark.cluster
def test_a_node_gets_the_bundle_or_says_in_one_line_why_it_cannot_work(
    bundle, bundle_factory, tmp_path, write_rows
):
    corpus = write_rows(tmp_path / "c.parquet", [{"text": text} for text in TEXTS])
    own = tmp_path / "own"
    shutil.copytree(bundle.path, own)
    auditor = bundle_factory(tmp_path / "auditor", num_layers=1)
    (tmp_path / "file").write_text("")
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(WRONG_SCORES)
    environments = {
        "new": {CACHE_VARIABLE: str(tmp_path / "new")},
        "no room": {CACHE_VARIABLE: str(tmp_path / "file")},
        "wrong": {"PYTHONPATH": f"{tmp_path / 'faults'}:{REPOSITORY}"},
    }
    bundles = {"bundle": str(own), "auditor": str(auditor.path)}
    job = {"corpus": str(corpus), **bundles, "environments": environments}
    done = subprocess.run(
        [
            *(sys.executable, Path(__file__).parent / "admitted_nodes.py"),
            *(json.dumps(job), tmp_path / "out"),
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["found"]["new"] == "fit"
    assert answer["found"]["no room"] == (
        f"{tmp_path}/file/bundles: cannot be written (Not a directory); set {CACHE_VARIABLE} to a "
        "directory with room for bundles"
    )
    assert answer["found"]["wrong"].startswith("computes a score of 7.25, expected ")
    assert {path.name for path in (tmp_path / "new" / "bundles").iterdir()} == {
        bundle.manifest_digest,
        auditor.manifest_digest,
    }
    assert answer["num_rows"] == len(TEXTS)
    assert 60 < answer["num_audited"] < 140
    assert 0 <= answer["num_equal"] <= answer["num_audited"]
    parts = sorted((tmp_path / "out" / "predictions").glob("part-*"))
    labels = [label for p in parts for label in pyarrow.parquet.read_table(p)["label"].to_pylist()]
    assert labels == Scorer(bundle).score(TEXTS).labels
