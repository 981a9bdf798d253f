"""Outputs are found by name and by glob, and what is broken is said and stops nothing."""

import json

import pytest

from fastformers.cluster.report.forecasts.find_runs import find_outputs, is_glob, read_reports
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.shards.identity import RUN_FILE, write_record
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import NO_OPTIONS
from fastformers.errors import InputError


@pytest.fixture
def runs(tmp_path, make_report):
    """Outputs of four runs: one whole, and three from which no report can be read."""
    for name, content in (
        ("2026-a/x", json.dumps(make_report(rows=7).to_json())),
        ("2026-a/y", "{"),
        ("2026-b/x", json.dumps({"format_version": 1})),
        ("other/x", None),
    ):
        home = tmp_path / name / "__run__"
        home.mkdir(parents=True)
        write_record(open_directory(str(home)), RUN_FILE, {})
        if content is not None:
            (home / "report.json").write_text(content)
    (tmp_path / "2026-c").write_text("a file")
    return tmp_path


def names(outputs, runs):
    return [str(output).removeprefix(f"{runs}/") for output in outputs]


def test_globs_are_followed_part_by_part(runs):
    found = find_outputs([f"{runs}/2026-*/?"], NO_OPTIONS)
    assert names(found, runs) == ["2026-a/x", "2026-a/y", "2026-b/x"]
    found = find_outputs([f"{runs}/other/x/", f"{runs}/*/x"], NO_OPTIONS)
    assert names(found, runs) == ["other/x", "2026-a/x", "2026-b/x"]


def test_a_glob_that_finds_nothing_is_refused(runs):
    with pytest.raises(InputError, match=r"none-\*: no directory has such a name"):
        find_outputs([f"{runs}/2026-a/x", f"{runs}/none-*"], NO_OPTIONS)


def test_a_directory_with_brackets_in_its_name_is_no_glob(runs):
    (runs / "out[1]").mkdir()
    assert not is_glob(f"{runs}/out[1]")
    assert names(find_outputs([f"{runs}/out[1]"], NO_OPTIONS), runs) == ["out[1]"]


def test_a_bucket_has_globs_too():
    assert is_glob("s3://bucket/runs/*/")
    assert not is_glob("s3://bucket/runs/1")


def test_each_report_is_read_or_said_to_be_broken(runs):
    outputs = find_outputs([f"{runs}/*/*", f"{runs}/never"], NO_OPTIONS)
    whole, broken, old, unfinished, never = read_reports(outputs)
    assert isinstance(whole, RunReport)
    assert whole.rows == 7
    assert "is not JSON" in str(broken)
    assert "was written by an older version" in str(old)
    assert "holds no finished run" in str(unfinished)
    assert "holds no finished run" in str(never)
