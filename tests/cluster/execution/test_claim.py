"""Directories that a job may have, and those that it is refused; nothing is scored."""

import json
import os
import re

import pytest

from fastformers.cluster.execution.claim import Claim, check_claim, claimed
from fastformers.cluster.shards.identity import PREPARED_FILE, RUN_FILE, write_record
from fastformers.errors import ChangedWorkError, FastformersError, InputError, StorageError
from tests.cluster.execution.plans import plan, plan_shards
from tests.cluster.outputs import contents


@pytest.fixture
def corpus(tmp_path, write_rows):
    """Two files of nine rows."""
    for name in "ab":
        rows = [{"id": row, "text": f"a cat {row}", "lang": "en"} for row in range(9)]
        write_rows(tmp_path / "corpus" / f"{name}.jsonl", rows)
    return tmp_path / "corpus"


def claim(job):
    """Claim a job's directories, and give them back."""
    with claimed(job):
        pass


def changed(error):
    """Names of the values that an error says have changed."""
    return re.search("another run: (.*) changed since", str(error.value)).group(1).split(", ")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"max_batch_tokens": 128}, ["max batch tokens"]),
        ({"keep_columns": ()}, ["keep columns"]),
        ({"keep_columns": ("id", "lang")}, ["keep columns"]),
        ({"limit": 5}, ["limit"]),
        ({"shard_seconds": 0.003}, ["shard seconds"]),
        ({"shard_seconds": None}, ["shard seconds"]),
        ({"text_column": "lang"}, ["text columns"]),
        ({"limit": 5, "max_batch_tokens": 128}, ["limit", "max batch tokens"]),
    ],
)
def test_changed_settings_are_named(corpus, bundle, tmp_path, settings, names):
    claim(plan(corpus, bundle, tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(ChangedWorkError) as caught:
        claim(plan(corpus, bundle, tmp_path / "out", **settings))
    assert sorted(changed(caught)) == names
    assert str(caught.value).startswith(f"--output {tmp_path / 'out'}: ")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["touch", "add", "rename", "remove"])
def test_a_changed_corpus_is_named(corpus, bundle, tmp_path, write_rows, change):
    claim(plan(corpus, bundle, tmp_path / "out"))
    path = corpus / "b.jsonl"
    if change == "touch":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    elif change == "add":
        write_rows(corpus / "d.jsonl", [{"id": 1, "text": "a"}])
    elif change == "rename":
        path.rename(corpus / "d.jsonl")
    else:
        path.unlink()
    with pytest.raises(ChangedWorkError) as caught:
        claim(plan(corpus, bundle, tmp_path / "out"))
    assert changed(caught) == ["corpus files"]


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ({"labels": ("neg", "pos")}, ["bundle"]),
        ({"num_layers": 1}, ["bundle"]),
        ({"max_length": 32}, ["bundle", "tokenizer"]),
    ],
)
def test_another_bundle_is_named(corpus, bundle, bundle_factory, tmp_path, shape, names):
    claim(plan(corpus, bundle, tmp_path / "out"))
    other = bundle_factory(tmp_path / "other", **shape)
    with pytest.raises(ChangedWorkError) as caught:
        claim(plan(corpus, other, tmp_path / "out"))
    assert sorted(changed(caught)) == names


def test_an_output_with_something_else_in_it_is_refused(corpus, bundle, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not empty and holds no run of ours"):
        claim(plan(corpus, bundle, tmp_path / "out"))
    with pytest.raises(InputError, match="not empty and holds no run of ours"):
        claim(plan_shards(corpus, bundle, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_an_empty_output_directory_is_fine(corpus, bundle, tmp_path):
    (tmp_path / "out").mkdir()
    job = plan(corpus, bundle, tmp_path / "out")
    assert check_claim(job) is False
    claim(job)
    assert check_claim(job) is True


def test_an_output_that_is_a_file_is_refused_in_one_line(corpus, bundle, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(FastformersError, match=str(tmp_path / "out")):
        claim(plan(corpus, bundle, tmp_path / "out"))


def test_an_output_below_a_file_is_refused_in_one_line(corpus, bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/out"):
        claim(plan(corpus, bundle, tmp_path / "file" / "out"))


@pytest.mark.parametrize("content", ["{}", "[]", '{"identity": null}', "not JSON"])
def test_a_foreign_run_file_is_refused_in_one_line(corpus, bundle, tmp_path, content):
    (tmp_path / "out" / "__run__").mkdir(parents=True)
    (tmp_path / "out" / "__run__" / "run.json").write_text(content)
    with pytest.raises(FastformersError, match=str(tmp_path / "out")):
        claim(plan(corpus, bundle, tmp_path / "out"))


def test_a_job_that_scores_gets_its_directories_and_its_record(corpus, bundle, tmp_path):
    job = plan(corpus, bundle, tmp_path / "out" / "deep")
    assert check_claim(job) is False
    assert not (tmp_path / "out").exists()
    claim(job)
    home = tmp_path / "out" / "deep"
    found = {str(path.relative_to(home)) for path in home.rglob("*")}
    run, shards = f"__run__/{RUN_FILE}", "__run__/shards"
    assert found == {
        *("predictions", "__run__", run),
        *(shards, f"{shards}/slices", f"{shards}/tokens"),
    }
    record = json.loads((home / run).read_text())
    assert record["identity"] == json.loads(json.dumps(job.identity))
    assert "complete" not in record


def test_a_job_that_prepares_is_not_complete_until_it_says_so(corpus, bundle, tmp_path):
    claim(plan_shards(corpus, bundle, tmp_path / "shards"))
    assert json.loads((tmp_path / "shards" / PREPARED_FILE).read_text())["complete"] is False
    assert (tmp_path / "shards" / "slices").is_dir()
    assert not (tmp_path / "shards" / RUN_FILE).exists()


def test_a_claim_that_is_made_again_keeps_the_work_and_removes_what_killed_writers_left(
    corpus, bundle, tmp_path
):
    job = plan(corpus, bundle, tmp_path / "out")
    claim(job)
    names = ("predictions", "__run__/shards", "__run__/shards/tokens")
    places = [tmp_path / "out" / name for name in names]
    for place in places:
        (place / ".part-00000.parquet.abc.incomplete").write_bytes(b"half")
        (place / "part-00001.parquet").write_bytes(b"whole")
    claim(job)
    for place in places:
        files = [path.name for path in place.iterdir() if path.is_file()]
        assert files == ["part-00001.parquet"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format_version": 5}, ChangedWorkError, "was written by a newer version of fastformers"),
        ({"format_version": 1}, ChangedWorkError, "was written by an older version of fastformers"),
        ({"identity": {}}, ChangedWorkError, "holds the work of another run: corpus files, "),
        ({"identity": []}, InputError, f"{PREPARED_FILE} is not ours; choose another directory"),
    ],
)
def test_shards_of_another_preparation_are_refused(
    corpus, bundle, tmp_path, change, error, message
):
    job = plan_shards(corpus, bundle, tmp_path / "shards")
    claim(job)
    path = tmp_path / "shards" / PREPARED_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    before = contents(tmp_path / "shards")
    with pytest.raises(error, match=message) as caught:
        claim(job)
    assert str(caught.value).startswith(f"--output {tmp_path / 'shards'}: ")
    assert contents(tmp_path / "shards") == before


def test_scoring_prepared_shards_leaves_their_directory_alone(corpus, bundle, tmp_path):
    claim(plan_shards(corpus, bundle, tmp_path / "shards"))
    (tmp_path / "shards" / ".part-00000.arrow.abc.incomplete").write_bytes(b"still written")
    before = contents(tmp_path / "shards")
    claim(plan(tmp_path / "shards", bundle, tmp_path / "out", keep_columns=(), shard_seconds=None))
    assert contents(tmp_path / "shards") == before


def test_a_finished_preparation_that_is_claimed_again_stays_finished(corpus, bundle, tmp_path):
    job = plan_shards(corpus, bundle, tmp_path / "shards")
    claim(job)
    write_record(job.shards, PREPARED_FILE, job.identity, complete=True)
    before = contents(tmp_path / "shards")
    claim(job)
    assert contents(tmp_path / "shards") == before


def test_what_is_refused_is_never_claimed(corpus, bundle, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    monkeypatch.setattr(Claim, "acquire", lambda claim: pytest.fail("it writes a claim"))
    with pytest.raises(InputError, match="not empty and holds no run of ours"):
        claim(plan(corpus, bundle, tmp_path / "out"))
