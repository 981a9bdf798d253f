"""What `fastformers label` is told and what it shows."""

import json
import shutil

import pytest

from fastformers import open_bundle
from fastformers.jobs.console.cli import main


@pytest.fixture
def mine(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("flags", [("--names", "bad,good"), ("--names", "bad", "--names", "good")])
def test_labels_get_names_in_their_order(mine, capsys, flags):
    assert main(["label", str(mine), *flags]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["no -> bad", "yes -> good"]
    renamed = open_bundle(mine)
    assert renamed.labels == ("bad", "good")
    assert json.loads(captured.out) == {
        "bundle": str(mine),
        "labels": ["bad", "good"],
        "earlier_labels": ["no", "yes"],
        "digest": renamed.digest,
        "manifest_digest": renamed.manifest_digest,
    }


def test_names_with_commas_are_given_one_by_one(mine):
    assert main(["label", str(mine), "--names", "bad, very", "--names", "good"]) == 0
    assert open_bundle(mine).labels == ("bad, very", "good")


def test_an_edited_card_is_said(mine, capsys):
    (mine / "README.md").write_text("My own words.")
    assert main(["label", str(mine), "--names", "bad,good"]) == 0
    assert "README.md was edited and stays" in capsys.readouterr().err
    assert (mine / "README.md").read_text() == "My own words."


def test_many_labels_are_shown_in_part(bundle_factory, tmp_path, capsys):
    labels = tuple(str(place) for place in range(30))
    bundle = bundle_factory(tmp_path / "many", labels=labels)
    assert main(["label", str(bundle.path), "--names", ",".join(f"n{x}" for x in labels)]) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == ["19 -> n19", "and 10 more"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("none", "none: not a bundle (no bundle.json)"),
        ("hf://org/mine", "a bundle is named where it lies on this machine"),
        ("s3://bucket/mine", "a bundle is named where it lies on this machine"),
    ],
)
def test_what_is_no_bundle_here_is_one_line(tmp_path, monkeypatch, capsys, place, reason):
    monkeypatch.chdir(tmp_path)
    assert main(["label", place, "--names", "bad,good"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
