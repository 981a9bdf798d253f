"""Commands whose --bundle is a repository of the hub: a run pins what it fetched."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers import Scorer
from fastformers.cache import CACHE_VARIABLE
from fastformers.jobs.console.cli import main
from tests.hub_server import TOKEN

TEXTS = ["the cat sat", "a good film", "the dog ran fast"] * 20


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    pyarrow.parquet.write_table(pa.table({"text": TEXTS}), tmp_path / "corpus.parquet")
    return tmp_path / "corpus.parquet"


@pytest.fixture
def run(capsys, without_ray):
    """Runs a command without Ray: its status, its last line as JSON, and its messages."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        last = json.loads(captured.out.splitlines()[-1]) if status == 0 else None
        return status, last, captured.err.splitlines()

    return run


def test_a_run_pins_the_commit_that_it_fetched(
    hub, bundle, bundle_factory, corpus, run, tmp_path, monkeypatch
):
    commit = hub.add("org/mine", bundle.path)
    output = tmp_path / "out"
    score = ("score", corpus, "--bundle", "hf://org/mine", "--output", output)
    status, summary, said = run(*score)
    assert status == 0, said
    assert summary["rows"] == len(TEXTS)
    (kept,) = output.rglob("report.json")
    report = json.loads(kept.read_text())
    assert report["bundle"]["path"] == f"hf://org/mine@{commit}"
    assert report["bundle"]["digest"] == bundle.digest
    predictions = pyarrow.parquet.read_table(next(output.rglob("part-*.parquet")))
    assert predictions["label"].to_pylist() == Scorer(bundle).score(TEXTS).labels

    hub.add("org/mine", bundle_factory(tmp_path / "other", labels=("bad", "good")).path)
    status, _, said = run(*score)
    assert status == 2
    assert "bundle" in said[-1] and "changed since" in said[-1]
    score = ("score", corpus, "--bundle", f"hf://org/mine@{commit}", "--output", output)
    assert run(*score)[0] == 0


def test_a_machine_that_launch_starts_fetches_the_bundle_itself(hub, run, tmp_path):
    launch = ("launch", "--cloud", "local", "--head-ip", "10.0.0.1", "--output", tmp_path / "l")
    status, _, said = run(*launch, "--bundle", "hf://org/mine")
    assert status == 2
    assert said == [
        "error: --bundle hf://org/mine: needs no copy; leave it out here, and give it to score on "
        "the cluster, which fetches it"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none", "no such repository"), ("private", "or it is private"), ("gated", "is gated")],
)
def test_a_repository_that_cannot_be_had_is_one_line(hub, bundle, run, name, reason):
    hub.add("org/private", bundle.path, private=True)
    hub.add("org/gated", bundle.path, gated=True)
    status, _, said = run("inspect", f"hf://org/{name}")
    assert status == 2
    (line,) = said
    assert line.startswith(f"error: hf://org/{name}: ")
    assert reason in line


@pytest.mark.parametrize("command", ["compress --teacher", "finetune --model", "ablate --teacher"])
def test_a_model_that_is_nowhere_is_one_line(hub, run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("text,label\na,0\nb,1\n")
    name, flag = command.split()
    files = {"compress": ["--train", "t.csv", "--eval", "t.csv"], "finetune": ["--train", "t.csv"]}
    arguments = [name, flag, "org/none", *files.get(name, ["--eval", "t.csv"]), "--output", "o"]
    status, _, said = run(*arguments)
    assert status == 2
    (line,) = said
    assert line.startswith("error: org/none: no such directory here, and hf://org/none: the hub")


def test_the_environment_says_which_hub_and_who_asks(hub, bundle, tmp_path):
    commit = hub.add("org/private", bundle.path, private=True)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
    }
    command = [sys.executable, "-m", "fastformers.jobs.console.cli", "inspect", "hf://org/private"]
    for offline in ("0", "1"):
        environment["HF_HUB_OFFLINE"] = offline
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["bundle"] == f"hf://org/private@{commit}"
        assert TOKEN not in done.stdout + done.stderr
        hub.status = 500
