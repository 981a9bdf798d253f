"""What `fastformers inspect` shows of a bundle, and what it refuses."""

import json
import shutil

import pytest

from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle
from fastformers.inference.manifest import sign
from fastformers.jobs.console.cli import main


@pytest.fixture
def inspect(capsys):
    def run(path):
        status = main(["inspect", str(path)])
        captured = capsys.readouterr()
        return status, json.loads(captured.out) if status == 0 else None, captured.err

    return run


def test_the_demo_says_what_it_is(inspect):
    bundle = open_bundle(DEMO_BUNDLE)
    status, found, shown = inspect(DEMO_BUNDLE)
    assert status == 0
    assert (found["task"], found["precision"]) == ("text-classification", "int8")
    assert (found["num_layers"], found["width"]) == (2, 384)
    assert found["labels"] == list(bundle.labels)
    assert found["digest"] == bundle.digest
    assert found["files"]["model.onnx"]["sha256"] == bundle.files["model.onnx"]
    assert found["bytes"] == sum(
        (DEMO_BUNDLE / name).stat().st_size for name in ("bundle.json", *bundle.files)
    )
    last = found["stages"][-1]
    assert last["num_rows"] == 3884
    low, high = last["interval"]
    assert low < last["quality"] < high
    assert high - low == pytest.approx(0.0227, abs=1e-3)
    assert set(found["rows_per_second"]) <= set(found["profile_rows_per_second"])
    assert min(found["rows_per_second"].values()) > 0
    for text in ("numpy, pygments", "quantize", "83.35-85.63", "3,884", "heldout.parquet"):
        assert text in shown
    assert shown.splitlines()[-1].startswith("checked: manifest, SHA-256 of each file")


def test_a_cascade_is_shown_with_both_graphs(inspect, cascade_bundle, cascade_factory, tmp_path):
    status, found, shown = inspect(cascade_bundle.path)
    assert status == 0
    assert found["cascade"]["threshold"] == 0.8
    assert set(found["cascade"]["rows_per_second"]) <= set(found["rows_per_second"])
    assert found["stages"][-1]["stage"] == "cascade"
    assert "rows with a margin below 0.8 go on" in shown
    assert "Speed of one core, second.onnx" in shown
    broken = cascade_factory(tmp_path / "broken", vocabulary=8)
    status, _, shown = inspect(broken.path)
    assert status == 2
    assert "cannot score a text: the model failed on it" in shown


@pytest.mark.parametrize("kind", ["pairs", "embedding", "regression", "many"])
def test_every_kind_of_bundle_is_shown(inspect, bundle_factory, tmp_path, kind):
    shapes = {
        "pairs": {"text_pairs": True},
        "embedding": {"task": "embedding", "labels": (), "num_outputs": 8},
        "regression": {"task": "regression", "labels": (), "num_outputs": 1},
        "many": {"labels": tuple(f"topic {place}" for place in range(30))},
    }
    status, found, shown = inspect(bundle_factory(tmp_path / "it", **shapes[kind]).path)
    assert status == 0
    assert found["num_layers"] is None and "an older version made it" in shown
    assert found["text_pairs"] == (kind == "pairs")
    assert ("and 10 more" in shown) == (kind == "many")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("model.onnx.data", "model.onnx.data differs from its SHA-256"),
        ("tokenizer.json", "tokenizer.json differs from its SHA-256"),
        ("manifest", "bundle.json: altered after it was written"),
        ("graph", "model.onnx gives 2 outputs from input_ids, bundle.json says 3"),
        ("vocabulary", "cannot score a text: the model failed on it"),
    ],
)
def test_the_whole_bundle_is_checked(inspect, bundle, bundle_factory, tmp_path, damage, reason):
    path = tmp_path / "bundle"
    if damage == "vocabulary":  # of the tokenizer is larger than that of the graph
        bundle_factory(path, vocabulary=8)
    else:
        shutil.copytree(bundle.path, path)
    manifest = json.loads((path / "bundle.json").read_text())
    if damage == "manifest":
        (path / "bundle.json").write_text(json.dumps({**manifest, "max_length": 5}))
    elif damage == "graph":
        fields = {**manifest, "labels": ["a", "b", "c"], "num_outputs": 3}
        del fields["format_version"], fields["digest"]
        (path / "bundle.json").write_text(sign(fields))
    elif damage != "vocabulary":
        (path / damage).write_bytes(b"something else")
    status, _, shown = inspect(path)
    assert status == 2
    (line,) = shown.splitlines()
    assert line.startswith(f"error: {path}")
    assert reason in line


def test_a_bundle_in_a_bucket_is_fetched(inspect, bundle, s3_server, monkeypatch):
    from fastformers.cluster.storage.directory import open_directory

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"{s3_server.uri}/models/inspected"
    for file in bundle.path.iterdir():
        with open_directory(uri).write(file.name) as written:
            written.write(file.read_bytes())
    status, found, _ = inspect(uri)
    assert (status, found["bundle"], found["digest"]) == (0, uri, bundle.digest)
