"""Commands whose --bundle is a URI: its files are in a bucket, and nowhere on this disk."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers import Scorer
from fastformers.cache import CACHE_VARIABLE
from fastformers.cluster.storage.directory import open_directory
from fastformers.jobs.console.cli import main

TEXTS = ["the cat sat", "a good film", "the dog ran fast", "on the mat it is"] * 50


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def uri(bundle, s3_server, monkeypatch):
    """Where the bundle of the tests is in a bucket."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"{s3_server.uri}/models/mine"
    for file in bundle.path.iterdir():
        with open_directory(uri).write(file.name) as written:
            written.write(file.read_bytes())
    return uri


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.parquet"
    pyarrow.parquet.write_table(pa.table({"id": list(range(len(TEXTS))), "text": TEXTS}), path)
    return path


@pytest.fixture
def fastformers(capsys, without_ray):
    """Runs a command without Ray; returns what its last line says."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return json.loads(captured.out.splitlines()[-1])

    return run


def test_score_reads_its_bundle_from_a_bucket(fastformers, uri, corpus, bundle, tmp_path):
    output = tmp_path / "out"
    summary = fastformers("score", corpus, "--bundle", uri, "--output", output)
    assert summary["rows"] == len(TEXTS)
    parts = sorted((output / "predictions").glob("part-*.parquet"))
    labels = [label for p in parts for label in pyarrow.parquet.read_table(p)["label"].to_pylist()]
    assert labels == Scorer(bundle).score(TEXTS).labels
    report = json.loads((output / "__run__" / "report.json").read_text())
    assert (report["bundle"]["path"], report["bundle"]["digest"]) == (uri, bundle.digest)


def test_prepared_shards_are_of_the_bundle_wherever_it_is(
    fastformers, uri, corpus, bundle, tmp_path
):
    shards, output = tmp_path / "shards", tmp_path / "out"
    prepared = fastformers("prepare", corpus, "--bundle", uri, "--output", shards)
    assert prepared["rows"] == len(TEXTS)
    plan = fastformers("score", shards, "--bundle", bundle.path, "--output", output, "--dry-run")
    assert plan["shards"] == prepared["shards"]


def test_cost_names_the_bundle_by_its_uri(fastformers, uri, corpus, bundle, s3_server, monkeypatch):
    for name in s3_server.environment:
        monkeypatch.delenv(name)
    options = json.dumps(s3_server.storage_options)
    bundles = ("--bundle", uri, "--bundle", bundle.path)
    cost = fastformers("cost", corpus, *bundles, "--storage-options", options)
    assert cost["bundle"] == uri
    assert [other["bundle"] for other in cost["others"]] == [str(bundle.path)]
    assert cost["bundle_digest"] == cost["others"][0]["bundle_digest"] == bundle.digest


def test_a_bundle_that_is_not_in_the_bucket_is_one_line(uri, corpus, tmp_path, capsys):
    arguments = ["score", str(corpus), "--bundle", f"{uri}-not", "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{uri}-not: not a bundle (no bundle.json)" in line
