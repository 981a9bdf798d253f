import json
import os
import shutil
from dataclasses import replace

import pytest

from fastformers import Scorer, open_bundle
from fastformers.errors import InputError
from fastformers.inference.description.label_names import check_label_names
from fastformers.inference.description.rename_labels import name_labels

TEXTS = ["the cat sat", "a good film", "bad"]


@pytest.fixture
def mine(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "mine")
    return open_bundle(tmp_path / "mine")


def test_predictions_have_the_new_names_and_nothing_else_changes(mine, bundle):
    renamed, has_card = name_labels(mine, ["negative", "positive"])
    assert has_card
    assert open_bundle(mine.path) == renamed
    assert renamed.files == mine.files
    assert renamed.preparation_digest == mine.preparation_digest
    assert renamed.digest != mine.digest  # it decides predictions
    new, old = Scorer(mine.path).score(TEXTS), Scorer(bundle).score(TEXTS)
    names = dict(zip(bundle.labels, renamed.labels, strict=True))
    assert new.labels == [names[label] for label in old.labels]
    assert (new.logits_NC == old.logits_NC).all()
    assert "`negative`" in (mine.path / "README.md").read_text()
    assert not [file for file in mine.path.iterdir() if file.name.startswith(".")]


def test_the_labels_of_the_teacher_are_kept_through_two_renames(mine):
    renamed, _ = name_labels(mine, ["a", "b"])
    again, _ = name_labels(renamed, ["c", "d"])
    assert again.labels == ("c", "d")
    assert again.provenance["teacher_labels"] == list(mine.labels)


def test_a_card_that_was_edited_stays(mine):
    card = mine.path / "README.md"
    card.write_text(card.read_text() + "\nMy words.\n")
    edited = card.read_text()
    assert name_labels(mine, ["a", "b"])[1] is False
    assert card.read_text() == edited


def test_a_write_that_fails_leaves_the_old_names(mine, monkeypatch):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        name_labels(mine, ["a", "b"])
    monkeypatch.undo()
    assert open_bundle(mine.path) == mine


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a"], r"--names: 1 name for 2 labels \('no', 'yes'\); give one for each"),
        (["a", "b", "c"], "3 names for 2 labels"),
        (["a", "a"], "'a' names 2 labels"),
        (["a", " "], "' ' is no name"),
        (["a", "\udcff"], "is no name"),
    ],
)
def test_names_that_cannot_be_labels_are_refused(mine, names, reason):
    before = json.loads((mine.path / "bundle.json").read_text())
    with pytest.raises(InputError, match=reason):
        name_labels(mine, names, flag="--names")
    assert json.loads((mine.path / "bundle.json").read_text()) == before


def test_a_model_without_labels_gets_none():
    with pytest.raises(InputError, match="--label-names: the model has no labels"):
        check_label_names(["a"], [], flag="--label-names")


def test_the_first_of_many_labels_are_shown():
    labels = [str(place) for place in range(77)]
    with pytest.raises(InputError, match=r"2 names for 77 labels \('0', .*'7', \.\.\.\)"):
        check_label_names(["a", "b"], labels, flag="--names")


def test_a_bundle_elsewhere_is_not_renamed(mine):
    with pytest.raises(InputError, match="is a copy in a cache"):
        name_labels(replace(mine, source="s3://bucket/mine"), ["a", "b"])
