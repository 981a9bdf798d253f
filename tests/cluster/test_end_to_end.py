"""Whole runs through the command line, with Ray, undisturbed and disturbed.

Every run is a process of its own with its own Ray, so that it can be killed like a user's.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from fastformers import Scorer, open_bundle
from fastformers.cluster.execution.topology import discover_topology
from fastformers.inference.cpu import read_processor
from tests.cluster.chaos.jobs import family, ray_actors
from tests.cluster.outputs import read_dead_letters, read_predictions

pytestmark = pytest.mark.cluster

NUM_ROWS = 6000
WORDS = np.array(
    ["the", "a", "of", "cat", "dog", "sat", "mat", "ran", "fast", "slow", "good", "bad"]
)


def write_corpus(path, num_rows=NUM_ROWS):
    """Skewed lengths, many repeats, and a few bad rows."""
    rng = np.random.default_rng(1)
    lengths = rng.geometric(0.08, num_rows).clip(1, 200)
    texts = [" ".join(rng.choice(WORDS, length)) for length in lengths]
    texts[7], texts[8], texts[9] = None, "", texts[10]
    table = pa.table({"id": list(range(num_rows)), "text": texts})
    pyarrow.parquet.write_table(table, path, row_group_size=1500)
    return texts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.parquet"
    write_corpus(path)
    return path


def command(corpus, bundle, output, *options):
    return [
        *(
            sys.executable,
            "-m",
            "fastformers.jobs.console.cli",
            "score",
            str(corpus),
            "--bundle",
            str(bundle.path),
        ),
        *("--output", str(output), "--keep-columns", "id", "--shard-seconds", "0.1", *options),
    ]


def run(arguments, **kwargs):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=200, **kwargs)


def score(corpus, bundle, output, *options):
    done = run(command(corpus, bundle, output, *options))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def undisturbed(corpus, bundle, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    summary, stderr = score(corpus, bundle, output, "--num-actors", "1", "--usd-per-hour", "0.36")
    return output, summary, stderr


def test_predictions_are_those_of_the_scorer_in_corpus_order(corpus, bundle, undisturbed):
    output, summary, _ = undisturbed
    table = read_predictions(output)
    texts = pyarrow.parquet.read_table(corpus)["text"].to_pylist()
    good = [row for row, text in enumerate(texts) if text]
    expected = Scorer(bundle).score([texts[row] for row in good])
    scored = table.take(good)

    assert table.column_names == ["id", "label", "probability", "error"]
    assert table["id"].to_pylist() == list(range(NUM_ROWS))
    assert scored["label"].to_pylist() == expected.labels
    assert np.abs(scored["probability"].to_numpy() - expected.probability).max() < 1e-5
    assert summary["rows"] == NUM_ROWS
    assert summary["unique_rows"] < len(good)


def test_bad_rows_keep_their_place_and_are_listed(undisturbed, corpus):
    output, summary, _ = undisturbed
    table = read_predictions(output)
    letters = read_dead_letters(output).to_pylist()
    assert summary["dead_letters"] == 2
    assert table["label"][7].as_py() is None
    assert table["probability"][8].as_py() is None
    assert [letter["corpus_row"] for letter in letters] == [7, 8]
    assert [letter["file_row"] for letter in letters] == [7, 8]
    assert letters[0]["file"] == str(corpus)
    assert "null text" in letters[0]["error"]
    assert "empty text" in table["error"][8].as_py()


def test_bill_adds_up(undisturbed):
    output, summary, stderr = undisturbed
    report = json.loads((output / "__run__" / "report.json").read_text())
    assert "1 actor x 1 thread" in stderr
    assert summary["usd_total"] == pytest.approx(0.36 * summary["wall_s"] / 3600)
    assert summary["usd_per_million"] == pytest.approx(1e6 * summary["usd_total"] / NUM_ROWS)
    assert summary["rows_per_second"] == pytest.approx(NUM_ROWS / summary["wall_s"])
    assert summary["padding_efficiency"] == 1.0
    actor_s = sum(summary["phase_s"].values())
    assert actor_s <= report["wall_s"] * report["num_actors"] * 1.01
    assert sum(entry["rows"] for entry in report["timeline"]) == NUM_ROWS
    assert (
        sum(entry["end_s"] - entry["start_s"] for entry in report["timeline"]) <= report["wall_s"]
    )
    items = report["bill"]["items"]
    assert {"compute", "model load", "start-up", "idle tail"} <= {i["heading"] for i in items}
    cores = max(1, discover_topology().num_usable_cores)  # one actor on one of them
    assert sum(item["core_s"] for item in items) == pytest.approx(cores * report["wall_s"])
    assert sum(Decimal(str(i["usd"])) for i in items) == Decimal(str(report["bill"]["total_usd"]))
    texts, tokens, computed = map(sum, zip(*report["lengths"].values(), strict=True))
    assert (texts, tokens) == (report["unique_rows"], report["unique_tokens"])
    assert computed == tokens
    if read_processor().generation is None:
        assert report["other_types_unknown"].startswith("ran on a processor of unknown speed")
    else:
        assert report["other_types_unknown"] is None
        usd = [cost["usd"] for cost in report["other_types"]]
        assert usd == sorted(usd)
        assert min(usd) > 0
    assert report["corpus"].endswith(".parquet")
    for quote in report["history"]:  # one machine, to its end; none where all took a second
        assert quote["usd"] == pytest.approx(0.36 * quote["hours"])
    home = output / "__run__"
    assert (home / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not list((home / "shards").rglob("part-*"))  # token ids were only this run's


def test_a_finished_run_is_not_done_again(corpus, bundle, undisturbed):
    output, first, _ = undisturbed

    def files():
        return {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()}

    before = files()
    again, _ = score(corpus, bundle, output)
    assert again == first
    assert files() == before


@pytest.mark.slow
def test_a_lost_part_is_scored_again(corpus, bundle, undisturbed, tmp_path):
    output, first, _ = undisturbed
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", output, copy], check=True)
    parts = sorted((copy / "predictions").glob("part-*"))
    parts[1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-100])
    again, _ = score(corpus, bundle, copy)
    assert again["resumed_shards"] == first["shards"] - 2
    assert read_predictions(copy).equals(read_predictions(output))


def test_prepared_shards_serve_and_stay(corpus, bundle, undisturbed, tmp_path):
    output, _, _ = undisturbed
    shards = tmp_path / "shards"
    done = run(
        [
            *(
                sys.executable,
                "-m",
                "fastformers.jobs.console.cli",
                "prepare",
                str(corpus),
                "--bundle",
                bundle.path,
            ),
            *("--output", str(shards), "--keep-columns", "id", "--shard-seconds", "0.1"),
        ]
    )
    assert done.returncode == 0, done.stderr
    words = command(shards, bundle, tmp_path / "out")
    at = words.index("--shard-seconds")  # which says how a corpus is cut
    done = run(words[:at] + words[at + 2 :])
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["rows"] == NUM_ROWS
    assert read_predictions(tmp_path / "out").equals(read_predictions(output))
    assert len(list(shards.rglob("part-*"))) == summary["shards"]


def wait_for_parts(process, output, count):
    """Wait until the run has committed `count` parts, or has ended."""
    while process.poll() is None and len(list(output.glob("predictions/part-*"))) < count:
        time.sleep(0.01)


def kill_drivers(corpus, bundle, output, moments):
    """Send the driver SIGKILL each time this many parts are there, then let it finish."""
    for count in moments:
        process = subprocess.Popen(
            command(corpus, bundle, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_parts(process, output, count)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return score(corpus, bundle, output)


def kill_actors(corpus, bundle, output, moments, before_kill=lambda: None):
    """Send one actor SIGKILL each time this many parts are there, while the driver goes on."""
    process = subprocess.Popen(
        command(corpus, bundle, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    killed = 0
    for count in moments:
        wait_for_parts(process, output, count)
        if process.poll() is not None:
            break
        actors = ray_actors(family(process.pid), "ScoringActor")
        if actors:
            before_kill()
            random.choice(actors).kill()
            killed += 1
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1]), killed


@pytest.mark.parametrize(
    "num_kills", [2, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_killing_the_driver_loses_nothing(corpus, bundle, undisturbed, tmp_path, num_kills):
    output, first, _ = undisturbed
    rng = random.Random(num_kills)
    moments = sorted(rng.randrange(first["shards"]) for _ in range(num_kills))
    summary, _ = kill_drivers(corpus, bundle, tmp_path / "out", moments)
    assert summary["resumed_shards"] >= moments[-1]
    assert read_predictions(tmp_path / "out").equals(read_predictions(output))
    assert not list((tmp_path / "out" / "predictions").glob("*.incomplete"))


@pytest.mark.parametrize(
    "num_kills", [2, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_killing_actors_loses_nothing(corpus, bundle, undisturbed, tmp_path, num_kills):
    output, first, _ = undisturbed
    rng = random.Random(num_kills)
    moments = sorted(rng.randrange(1, first["shards"] - 2) for _ in range(num_kills))
    _, killed = kill_actors(corpus, bundle, tmp_path / "out", moments)
    assert killed >= num_kills // 2
    assert read_predictions(tmp_path / "out").equals(read_predictions(output))


def test_a_bundle_replaced_at_its_path_changes_nothing(
    corpus, bundle, bundle_factory, undisturbed, tmp_path
):
    """The actor that takes a dead one's place scores with the bundle that the run began with."""
    own = replace(bundle, path=tmp_path / "own")
    shutil.copytree(bundle.path, own.path)
    other = bundle_factory(tmp_path / "other", num_layers=1)

    def replace_bundle():
        shutil.rmtree(own.path)
        shutil.copytree(other.path, own.path)

    output = tmp_path / "out"
    _, killed = kill_actors(corpus, own, output, [1, 2, 4], before_kill=replace_bundle)
    assert killed >= 1
    assert open_bundle(own.path).digest == other.digest
    assert read_predictions(output).equals(read_predictions(undisturbed[0]))
    refused = run(command(corpus, own, output))
    assert refused.returncode == 2
    assert "bundle changed since" in refused.stderr.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_resume(corpus, bundle, undisturbed, tmp_path):
    output = tmp_path / "out"
    process = subprocess.Popen(
        command(corpus, bundle, output),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_parts(process, output, 3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    summary, _ = score(corpus, bundle, output)
    assert summary["resumed_shards"] >= 3
    assert read_predictions(output).equals(read_predictions(undisturbed[0]))


@pytest.mark.slow
def test_a_tiny_shared_memory_is_enough(corpus, bundle, undisturbed, tmp_path):
    output = tmp_path / "out"
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm && "  # of containers: 64 MiB, if that
    if run(["unshare", "--mount", "sh", "-c", mount + "true"]).returncode != 0:
        pytest.skip("cannot mount a small /dev/shm")
    arguments = command(corpus, bundle, output, "--address", "local")
    done = run(["unshare", "--mount", "sh", "-c", mount + 'exec "$@"', "sh", *arguments])
    assert done.returncode == 0, done.stderr
    assert read_predictions(output).equals(read_predictions(undisturbed[0]))


def test_disk_full_is_one_line_and_nothing_done_is_lost(corpus, bundle, undisturbed, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(mount)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small filesystem: {mounted.stderr.decode().strip()}")
    try:
        failed = run(command(corpus, bundle, mount / "out"))
        assert failed.returncode == 2
        assert "disk full" in failed.stderr.splitlines()[-1]
        assert str(mount) in failed.stderr.splitlines()[-1]
        assert "Traceback" not in failed.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", str(mount)], check=True)
        score(corpus, bundle, mount / "out")
        assert read_predictions(mount / "out").equals(read_predictions(undisturbed[0]))
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_fail_on_bad_row_names_it(corpus, bundle, tmp_path):
    failed = run(command(corpus, bundle, tmp_path / "out", "--on-bad-row", "fail"))
    assert failed.returncode == 2
    assert "row 7" in failed.stderr.splitlines()[-1]
    assert "null text" in failed.stderr.splitlines()[-1]


def test_a_text_without_embedding_is_a_dead_letter(corpus, bundle_factory, tmp_path):
    """The runtime fails on token ids beyond the embedding table: here, the word "film"."""
    crippled = bundle_factory(tmp_path / "crippled", vocabulary=23)
    texts = ["the cat sat", "a good film", "the dog ran", "film film", "the cat"]
    small = tmp_path / "small.parquet"
    pyarrow.parquet.write_table(pa.table({"id": list(range(5)), "text": texts}), small)
    summary, _ = score(small, crippled, tmp_path / "out")
    table = read_predictions(tmp_path / "out")
    assert summary["dead_letters"] == 2
    assert [label is None for label in table["label"].to_pylist()] == [
        *(False, True, False, True, False)
    ]
    assert "the model failed on it" in table["error"][1].as_py()


@pytest.mark.parametrize("deed", ["die", pytest.param("hang", marks=pytest.mark.slow)])
def test_a_text_that_kills_or_hangs_its_actor_is_found(bundle, tmp_path, deed):
    """Runs the driver in a process whose actors die, or hang, on one text."""
    rows = [" ".join(WORDS[(np.arange(3) + row) % len(WORDS)]) for row in range(40)]
    rows[23] = "bad bad bad bad"
    pyarrow.parquet.write_table(
        pa.table({"id": list(range(40)), "text": rows}), tmp_path / "c.parquet"
    )
    script = Path(__file__).parent / "deadly_run.py"
    done = run(
        [sys.executable, script, tmp_path / "c.parquet", bundle.path, tmp_path / "out", deed]
    )
    assert done.returncode == 0, done.stderr
    table = read_predictions(tmp_path / "out")
    assert [row for row, label in enumerate(table["label"].to_pylist()) if label is None] == [23]
    assert "kills its actor" in table["error"][23].as_py()
    assert table.num_rows == 40


def test_actors_own_their_cores_and_auto_measures_the_split(corpus, bundle, tmp_path):
    cores = discover_topology().num_usable_cores
    summary, stderr = score(corpus, bundle, tmp_path / "out", "--cores-per-actor", "auto")
    assert summary["num_actors"] in {cores // k for k in range(1, cores + 1)}
    assert "tokens/s" in stderr
    assert "no overlap" in stderr


def test_too_many_actors_are_refused_unless_told(corpus, bundle, tmp_path):
    many = str(discover_topology().num_usable_cores + 1)
    refused = run(command(corpus, bundle, tmp_path / "out", "--num-actors", many))
    assert refused.returncode == 2
    assert "--oversubscribe" in refused.stderr.splitlines()[-1]


def test_dry_run_writes_nothing(corpus, bundle, tmp_path):
    done = run(command(corpus, bundle, tmp_path / "out", "--dry-run"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dry_run"] is True
    assert not (tmp_path / "out").exists()


def test_no_such_cluster_is_one_line(corpus, bundle, tmp_path):
    failed = run(command(corpus, bundle, tmp_path / "out", "--address", "127.0.0.1:1"))
    assert failed.returncode == 2
    assert "--address 127.0.0.1:1" in failed.stderr.splitlines()[-1]
