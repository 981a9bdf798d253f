"""What `score` and `prepare` promise before any work starts: the plan, and what it may not be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.jobs.console.cli import main


@pytest.fixture
def corpus(tmp_path, write_rows):
    return write_rows(tmp_path / "corpus.jsonl", [{"text": f"a cat {row}"} for row in range(20)])


@pytest.fixture
def command(capsys, tmp_path, bundle):
    """Runs a command; returns its status, what it printed last, and what it said."""

    def run(name, corpus, *options):
        arguments = [name, str(corpus), "--bundle", str(bundle.path)]
        status = main([*arguments, "--output", str(tmp_path / "out"), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("options", "cores", "line"),
    [
        ((), 1, "x 1 thread on core"),
        (("--cores-per-actor", "2", "--oversubscribe"), 2, "x 2 threads on core"),
        (("--cores-per-actor", "auto"), "auto", "measured when the run starts"),
    ],
)
def test_a_dry_run_plans_the_cores_that_the_run_would_take(command, corpus, options, cores, line):
    status, out, err = command("score", corpus, "--dry-run", *options)
    assert status == 0, err
    assert json.loads(out)["cores_per_actor"] == cores
    assert line in err.splitlines()[0]
    assert f"cores_per_actor: {cores}" in err.splitlines()


def test_a_dry_run_counts_what_is_done_and_changes_nothing(command, corpus, bundle, tmp_path):
    job = open_score_job(
        str(corpus),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
    )
    result = run_job(job, ActorSettings(), connect_here)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    status, out, err = command("score", corpus, "--dry-run", "--max-batch-tokens", "256")
    assert status == 0, err
    plan = json.loads(out)
    assert plan["shards_done"] == result.tally.known.num_shards > 0
    assert (plan["files"], plan["slices"], plan["engine"]) == (1, 1, "onnxruntime")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_dry_run_refuses_what_the_run_would_refuse(command, corpus, bundle, tmp_path):
    job = open_prepare_job(str(corpus), bundle.path, str(tmp_path / "out"), CorpusSettings())
    run_job(job, ActorSettings(), connect_here)
    status, out, err = command("score", corpus, "--dry-run")
    assert (status, out) == (2, "")
    assert "is not empty and holds no run of ours" in err


def test_an_output_of_the_version_before_is_refused_in_one_line(command, corpus, tmp_path):
    (tmp_path / "out" / "__run__").mkdir(parents=True)
    (tmp_path / "out" / "__run__" / "run.json").write_text(
        json.dumps({"identity": {"corpus files": "a"}})
    )
    for options in ((), ("--dry-run",)):
        status, out, err = command("score", corpus, *options)
        assert (status, out) == (2, "")
        [line] = err.splitlines()
        assert f"{tmp_path / 'out'}: run.json was written by an older version" in line
        assert "choose another directory, or delete this one and make it again" in line


def test_preparing_has_no_split_to_measure(command, corpus, capsys):
    with pytest.raises(SystemExit) as ended:
        command("prepare", corpus, "--cores-per-actor", "auto")
    assert ended.value.code == 2
    assert "--cores-per-actor: invalid int value: 'auto'" in capsys.readouterr().err


def test_planning_a_run_does_not_load_ray(command, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fastformers.cluster.nodes.ray_pool", raising=False)
    status, _, err = command("score", corpus, "--dry-run")
    assert status == 0, err


@pytest.mark.parametrize("name", ["score", "prepare"])
def test_a_file_alone_on_a_head_says_what_is_missing(tmp_path, name):
    """As `ray submit` copies it; Python is asked to forget what is installed here."""
    copied = shutil.copy(Path(__file__).parents[2] / "jobs" / f"{name}.py", tmp_path)
    (tmp_path / "cluster").mkdir()  # no package, only a folder of that name
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", copied, "--help"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: fastformers is not installed for ")
    assert line.endswith("or install its wheel on every node")


def test_a_file_alone_runs_where_the_package_is_installed(tmp_path):
    copied = shutil.copy(Path(__file__).parents[2] / "jobs" / "score.py", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, copied, "--help"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "usage: fastformers score" in done.stdout


def test_a_dry_run_names_the_files_that_are_skipped(command, corpus):
    bad = corpus.parent / "bad" / "b.jsonl"
    bad.parent.mkdir()
    shutil.copy(corpus, bad.parent / "a.jsonl")
    bad.write_bytes(b"PK\x03\x04")
    status, out, _ = command("score", bad.parent, "--dry-run", "--skip-unreadable-files")
    plan = json.loads(out)
    assert (status, plan["files"]) == (0, 2)
    assert list(plan["skipped_files"]) == [str(bad)]


# What the run refuses before it begins to work, each with a part of the line that says why.
REFUSED = {
    "--num-actors 0": "--num-actors 0: give at least 1",
    "--num-actors 9999": "--num-actors 9999 x --cores-per-actor 1 needs 9999 cores",
    "--timeout-s 0": "--timeout-s 0: give more than 0",
    "--num-nodes 2": "--num-nodes 2 does nothing here",
    "--max-batch-tokens 0": "--max-batch-tokens 0: give at least 1",
    "--address 127.0.0.1:9": "--address 127.0.0.1:9: no Ray cluster answers there",
    "--address ray://head:10001": "--address ray://head:10001",
    "--instance-type nope": "nope",
    "--usd-per-hour -1": "--usd-per-hour",
    "--output BUNDLE/out": "lies in the bundle; choose another directory",
    "--output CORPUS": "is the corpus itself; choose another directory",
    "--output CORPUS/out": "cannot be written: Not a directory",
    "--oversubscribe": "--oversubscribe does nothing here",
    "--energy XXX": "--energy XXX",
}


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("flags", REFUSED)
def test_a_dry_run_refuses_what_the_run_refuses_and_nothing_is_written(
    command, corpus, bundle, tmp_path, flags, dry, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "no-ray-here"))  # no cluster of others' either
    monkeypatch.setattr(
        "fastformers.cluster.nodes.addresses.find_record", lambda environ: tmp_path / "no-record"
    )
    monkeypatch.setattr("fastformers.jobs.console.execute.check_socket_paths", lambda environ: None)
    given = flags.replace("BUNDLE", str(bundle.path)).replace("CORPUS", str(corpus)).split()
    status, out, err = command("score", corpus, *given, *dry)
    assert (status, out) == (2, ""), err
    assert REFUSED[flags] in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_is_refused_while_a_run_works_in_the_output(command, corpus, tmp_path):
    from fastformers.cluster.shards.claim_file import new_claim, put_claim
    from fastformers.cluster.storage.directory import open_directory

    home = open_directory(str(tmp_path / "out" / "__run__"))
    home.create()
    put_claim(home, new_claim(0.0))  # of this process, which is alive
    status, _, err = command("score", corpus, "--dry-run")
    assert status == 2
    assert "a run works there, on " in err.splitlines()[-1]


def test_a_dry_run_joins_the_cluster_that_the_run_would_work_on(command, corpus, monkeypatch):
    joined = []
    monkeypatch.setattr("fastformers.jobs.console.execute.check_answers", joined.append)
    monkeypatch.setattr(
        "fastformers.jobs.score.describe_cluster",
        lambda address: joined.append(f"joined {address}") or "3 nodes with 48 free CPUs",
    )
    status, out, err = command("score", corpus, "--dry-run", "--address", "head:6379")
    assert status == 0, err
    assert joined == ["head:6379", "joined head:6379"]
    assert json.loads(out)["cluster"] == "3 nodes with 48 free CPUs"
    assert "cluster: 3 nodes with 48 free CPUs" in err.splitlines()


@pytest.fixture
def finished(corpus, bundle, tmp_path, make_report):
    """A run of another process that ended, with a page; one of its rows is bad."""
    with corpus.open("a") as file:
        file.write('{"text": null}\n')
    job = open_score_job(
        str(corpus), bundle.path, str(tmp_path / "out"), CorpusSettings(), max_batch_tokens=256
    )
    run_job(job, ActorSettings(), connect_here)
    report = make_report()
    job.home.write_json("report.json", report.to_json())
    with job.home.write("report.html") as file:
        file.write(b"<p>the page</p>")
    return report


def files_in(directory):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_run_again_shows_its_report_and_changes_nothing(
    command, corpus, finished, tmp_path
):
    before = files_in(tmp_path / "out")
    status, out, err = command("score", corpus, "--max-batch-tokens", "256")
    assert status == 0, err
    assert json.loads(out) == finished.summarize()
    assert "nothing is left to do, and nothing was changed" in err.splitlines()[0]
    assert "per million rows" in err
    assert files_in(tmp_path / "out") == before


def test_a_finished_run_with_more_bad_rows_than_are_borne_now_is_refused(
    command, corpus, finished, tmp_path
):
    before = files_in(tmp_path / "out")
    status, out, err = command("score", corpus, "--max-batch-tokens", "256", "--max-bad-rows", "0")
    assert (status, out) == (2, "")
    assert "1 of 21 rows cannot be scored, more than --max-bad-rows 0 allows" in err
    assert files_in(tmp_path / "out") == before
