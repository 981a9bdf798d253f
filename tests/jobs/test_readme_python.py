"""The Python of fastformers/README.md, run as it stands: scoring, functions, Ray Data, Spark."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from fastformers import Scorer
from fastformers.inference.bundle import DEMO_BUNDLE
from tests.test_readmes import blocks_of, read

ROOT = Path(__file__).parents[2]
README = "fastformers/README.md"
TEXTS = ["numpy arrays of floats", None, "a task of ray", "  ", "sockets and threads"] * 4


def block(mark):
    """The one block of Python in which something stands."""
    blocks = [one for one in blocks_of(README, read(README)) if one.language == "python"]
    (found,) = ["\n".join(one.lines) for one in blocks if mark in "\n".join(one.lines)]
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with the bundle and the corpus that the README names."""
    (tmp_path / "bundle").symlink_to(DEMO_BUNDLE)
    (tmp_path / "corpus").mkdir()
    table = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "corpus" / "a.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_alone(text, place, **variables):
    """Run a program in a process of its own, with this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    (place / "program.py").write_text(text)
    run = subprocess.run(
        [sys.executable, "program.py"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]


def check(scored):
    """Hold rows of id, label, probability and error against those of a Scorer here."""
    expected = [{"id": row, **one} for row, one in enumerate(Scorer(DEMO_BUNDLE).score(TEXTS))]
    found = sorted(scored.select(list(expected[0])).to_pylist(), key=lambda row: row["id"])
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        assert {**one, "probability": None} == {**other, "probability": None}


def test_texts_are_scored(place, capsys):
    pytest.importorskip("pandas")
    exec(block("num_threads=2"), {})
    shown = capsys.readouterr().out
    assert "{1: 'null text'}" in shown
    assert shown.startswith("numpy 0.9")


def test_the_commands_are_functions(place, score, capsys):
    """The fixture `score` makes the workers of this process."""
    exec(block("fastformers.estimate_cost("), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("20 ")
    assert list((place / "scored").glob("**/*.parquet"))


@pytest.mark.cluster
def test_a_stage_of_ray_data(place):
    pytest.importorskip("pandas")
    run_alone(block("map_batches"), place, RAY_ADDRESS="local", RAY_USAGE_STATS_ENABLED="0")
    check(pyarrow.dataset.dataset(place / "ray-scored").to_table())


def test_a_stage_of_spark(place):
    if find_spec("pyspark") is None:
        pytest.skip("Spark is not installed: pip install '.[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    both = f"{block('pandas_udf')}\n\n{block('predict_batch_udf')}"
    master = "--master local[1] --conf spark.ui.enabled=false pyspark-shell"
    variables = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    run_alone(both, place, PYSPARK_SUBMIT_ARGS=master, **variables)
    for name in ("spark-scored", "spark-batches"):
        table = pyarrow.parquet.read_table(place / name)
        check(pa.table({"id": table["id"], **dict(zip(*flatten(table["scored"]), strict=True))}))


def flatten(column):
    """Names and columns of a column of structs."""
    parts = column.combine_chunks()
    parts = parts.chunk(0) if isinstance(parts, pa.ChunkedArray) else parts
    return [field.name for field in parts.type], parts.flatten()
