"""Whole jobs whose corpus, shards and predictions are in a bucket that fails now and then."""

import io
import json
import logging

import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers.jobs.console.execute
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.report.run_report import REPORT_FILE
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import StorageError
from fastformers.jobs.console.cli import main

NUM_FILES, NUM_ROWS = 4, 60


def rows_of(number):
    words = ("good", "bad", "fast", "slow", "cat", "film")
    return [
        {
            "text": None if row == 7 else " ".join([words[(row + number) % 6]] * (1 + row % 9)),
            "id": number * NUM_ROWS + row,
        }
        for row in range(NUM_ROWS)
    ]


def write_corpus(directory, suffix):
    directory.create()
    for number in range(NUM_FILES):
        rows = rows_of(number)
        with directory.write(f"{number}.{suffix}") as file:
            if suffix == "parquet":
                content = io.BytesIO()
                table = pa.Table.from_pylist(rows)
                pyarrow.parquet.write_table(table, content, row_group_size=25)
                file.write(content.getvalue())
            else:
                file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return str(directory)


def score(run_locally, bundle, home, corpus, options):
    """Score a corpus; returns the tables that the run leaves, by file."""
    job = open_score_job(
        corpus,
        bundle.path,
        str(home),
        CorpusSettings(keep_columns=("id",), shard_seconds=0.004),
        max_batch_tokens=256,
        storage=options,
    )
    result = run_locally(job)
    predictions = home.child("predictions")
    tables = {name: predictions.read_table(name) for name in predictions.list_files()}
    letters = home.child("__run__").read_table("dead_letters.parquet").drop_columns(["file"])
    return result, {**tables, "dead letters": letters}


@pytest.fixture
def expected(tmp_path, run_locally, bundle):
    """What a run on a disk leaves."""

    def make(suffix):
        corpus = write_corpus(open_directory(str(tmp_path / "corpus")), suffix)
        home = open_directory(str(tmp_path / "out"))
        _, tables = score(run_locally, bundle, home, corpus, NO_OPTIONS)
        return tables

    return make


@pytest.fixture
def compare(s3_server, run_locally, bundle, expected, caplog):
    """Scores in a bucket of which a share of the requests fails, and compares each cell."""

    def run(suffix, seed):
        options = StorageOptions(s3_server.storage_options)
        corpus = write_corpus(open_directory(f"{s3_server.uri}/corpus", options), suffix)
        tables = expected(suffix)
        s3_server.fail(0.05, seed=seed)
        home = open_directory(f"{s3_server.uri}/out", options)
        result, found = score(run_locally, bundle, home, corpus, options)
        assert found.keys() == tables.keys()
        for name, table in tables.items():
            assert found[name].equals(table), name
        assert len(tables) > 3
        assert sum(table.num_rows for table in tables.values()) == NUM_FILES * (NUM_ROWS + 1)
        assert result.dead_letters == NUM_FILES
        faults = [request.fault for request in s3_server.requests]
        assert any(faults[len(faults) // 10 :])

    return run


@pytest.mark.parametrize(("suffix", "seed"), [("parquet", 0), ("jsonl", 1), ("parquet", 2)])
def test_each_cell_is_that_of_a_run_on_a_disk(compare, suffix, seed):
    compare(suffix, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 23))
def test_each_cell_is_that_of_a_run_on_a_disk_whatever_fails(compare, seed):
    compare("parquet", seed)


def test_a_run_in_a_bucket_goes_on_where_it_stopped(s3_server, run_locally, bundle, expected):
    options = StorageOptions(s3_server.storage_options)
    corpus = write_corpus(open_directory(f"{s3_server.uri}/corpus", options), "parquet")
    tables = expected("parquet")
    home = open_directory(f"{s3_server.uri}/out", options)
    score(run_locally, bundle, home, corpus, options)
    *others, last = home.child("predictions").list_files()
    home.child("predictions").delete_file(last)
    s3_server.forget()
    _, found = score(run_locally, bundle, home, corpus, options)
    assert s3_server.count("PUT", "/predictions/part-") == 1
    assert found.keys() == tables.keys()
    assert all(found[name].equals(table) for name, table in tables.items())
    assert home.child("__run__").child("shards").list_files() == []
    assert len(others) == len(tables) - 2


def test_prepared_shards_are_scored_from_a_bucket(s3_server, run_locally, bundle, expected):
    options = StorageOptions(s3_server.storage_options)
    corpus = write_corpus(open_directory(f"{s3_server.uri}/corpus", options), "jsonl")
    tables = expected("jsonl")
    shards, settings = (
        f"{s3_server.uri}/shards",
        CorpusSettings(keep_columns=("id",), shard_seconds=0.004),
    )
    run_locally(open_prepare_job(corpus, bundle.path, shards, settings, storage=options))
    job = open_score_job(
        shards,
        bundle.path,
        f"{s3_server.uri}/out",
        CorpusSettings(keep_columns=("id",)),
        max_batch_tokens=256,
        storage=options,
    )
    run_locally(job)
    predictions = job.predictions
    assert all(
        predictions.read_table(name).equals(table)
        for name, table in tables.items()
        if name != "dead letters"
    )


def test_a_key_that_is_denied_midway_ends_the_run_in_one_line(s3_server, run_locally, bundle):
    options = StorageOptions(s3_server.storage_options)
    corpus = write_corpus(open_directory(f"{s3_server.uri}/corpus", options), "jsonl")
    home = open_directory(f"{s3_server.uri}/out", options)
    s3_server.deny_after = 25
    with pytest.raises(StorageError, match=f"^{s3_server.uri}/.*: access denied"):
        score(run_locally, bundle, home, corpus, options)


def all_bytes(directory, *children):
    """Contents of all files of a directory and of some directories in it."""
    places = [directory, *(directory.child(name) for name in children)]
    return b"".join(
        content
        for place in places
        for content in place.map_files(place.list_files(), place.read_bytes)
    )


@pytest.mark.parametrize("given", ["flag", "file", "environment"])
def test_a_command_reaches_the_bucket_and_shows_no_secret(
    s3_server, bundle, capsys, caplog, tmp_path, monkeypatch, given
):
    options = StorageOptions(s3_server.storage_options)
    corpus = write_corpus(open_directory(f"{s3_server.uri}/corpus", options), "jsonl")
    text = json.dumps(s3_server.storage_options)
    flags = ["--storage-options", text]
    if given == "file":
        (tmp_path / "options.json").write_text(text)
        flags = ["--storage-options", f"@{tmp_path / 'options.json'}"]
    elif given == "environment":
        flags = []
        for name, value in s3_server.environment.items():
            monkeypatch.setenv(name, value)
    output = f"{s3_server.uri}/out"
    monkeypatch.setattr(fastformers.jobs.console.execute, "connect_ray", connect_here)
    command = ["score", corpus, "--bundle", str(bundle.path), "--output", output, *flags]
    with caplog.at_level(logging.DEBUG):
        status = main([*command, "--dry-run"])
        planned = capsys.readouterr()
        assert status == 0, planned.err
        status = main(command)
        scored = capsys.readouterr()
        assert status == 0, scored.err
        assert main(["status", output, *flags]) == 0
        asked = capsys.readouterr()
    assert json.loads(asked.out)["state"] == "finished"
    assert json.loads(planned.out)["output"] == output
    assert json.loads(scored.out)["rows"] == NUM_FILES * NUM_ROWS
    home = open_directory(output, options)
    assert home.child("__run__").read_json(REPORT_FILE)["output"] == output
    written = all_bytes(home, "predictions", "__run__", "__run__/shards", "__run__/shards/slices")
    assert len(written) > 10_000
    shown = planned.out + planned.err + scored.out + scored.err + caplog.text
    shown += asked.out + asked.err
    for key in ("access_key", "secret_key"):
        assert s3_server.storage_options[key] not in shown
        assert s3_server.storage_options[key].encode() not in written
