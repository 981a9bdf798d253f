"""Bundles of the Hugging Face hub: opened by name at one commit, and put there."""

import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import fastformers
from fastformers import Bundle, Scorer, open_bundle
from fastformers.cache import CACHE_VARIABLE
from fastformers.errors import BundleError, InputError
from fastformers.inference.description.model_card import render_card
from fastformers.inference.description.rename_labels import name_labels
from fastformers.inference.engines import open_engine
from tests.hub_server import TOKEN

TEXTS = ["the cat sat", "a good film"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def commit(hub, bundle):
    return hub.add("org/mine", bundle.path)


def test_a_directory_and_a_repository_open_alike(hub, bundle, commit):
    assert Bundle.from_pretrained(bundle.path) == bundle
    assert Bundle.from_pretrained(str(bundle.path)) == bundle
    assert hub.requests == []
    for opened in (
        Bundle.from_pretrained("org/mine"),
        Bundle.from_pretrained("hf://org/mine"),
        Bundle.from_pretrained("org/mine", revision="main"),
        Bundle.from_pretrained(f"org/mine@{commit}"),
        open_bundle("hf://org/mine"),
    ):
        assert opened.manifest_digest == bundle.manifest_digest
        assert str(opened) == f"hf://org/mine@{commit}"


def test_a_bundle_in_the_cache_of_the_hub_scores_as_its_original(bundle, commit):
    scorer = Scorer("hf://org/mine")
    files = list(scorer.bundle.path.iterdir())
    assert {file.name for file in files} == {"bundle.json", *bundle.files}
    assert not any(file.is_symlink() for file in files)  # which runtimes refuse
    np.testing.assert_array_equal(
        scorer.score(TEXTS).logits_NC, Scorer(bundle).score(TEXTS).logits_NC
    )


def test_a_cascade_travels_whole(hub, cascade_bundle):
    cascade_bundle.push_to_hub("org/cascade", token=TOKEN)
    opened = Bundle.from_pretrained("org/cascade", token=TOKEN)
    assert (opened.digest, opened.cascade) == (cascade_bundle.digest, cascade_bundle.cascade)
    np.testing.assert_array_equal(
        Scorer(opened).score(TEXTS).logits_NC, Scorer(cascade_bundle).score(TEXTS).logits_NC
    )


def test_openvino_opens_a_bundle_of_the_hub(bundle, commit):
    pytest.importorskip("openvino")
    engine = open_engine("openvino", open_bundle("hf://org/mine").model_path, num_threads=1)
    ids_BT = np.array([[2, 7, 3]])
    expected_BC = Scorer(bundle).engine.run(ids_BT, None)
    np.testing.assert_allclose(engine.run(ids_BT, None), expected_BC, atol=1e-4)


def test_what_another_process_removed_is_made_again(bundle, commit):
    opened = open_bundle("hf://org/mine")
    opened.model_path.unlink()
    assert open_bundle("hf://org/mine") == opened


def test_what_nobody_opened_for_a_month_goes_when_another_comes(hub, bundle, pair_bundle, commit):
    old, young = open_bundle("hf://org/mine").path, hub.add("org/other", pair_bundle.path)
    os.utime(old, (0, time.time() - 31 * 24 * 3600))
    opened = open_bundle("hf://org/other").path
    assert opened.name == young
    assert [path.name for path in opened.parent.iterdir()] == [young]
    assert open_bundle("hf://org/mine").digest == bundle.digest  # the hub's own cache has it


def test_another_disk_gets_copies(bundle, commit, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert open_bundle("hf://org/mine").digest == bundle.digest


def test_the_labels_of_a_copy_in_the_cache_are_not_renamed(commit):
    with pytest.raises(InputError, match=r"hf://org/mine@.*: is a copy in a cache"):
        name_labels(open_bundle("hf://org/mine"), ["a", "b"])


def test_a_commit_stays_what_it_was(hub, bundle, pair_bundle, commit):
    hub.add("org/mine", pair_bundle.path)
    assert open_bundle("hf://org/mine").text_pairs
    assert not open_bundle(f"hf://org/mine@{commit}").text_pairs


def test_a_repository_without_a_bundle_is_not_downloaded(hub, tmp_path, capfd, caplog):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"gigabytes")
    hub.add("org/other", tmp_path / "model")
    with pytest.raises(BundleError, match=r"hf://org/other: not a bundle \(no bundle\.json\)"):
        Bundle.from_pretrained("org/other")
    assert not [request for request in hub.requests if "safetensors" in request]
    assert (capfd.readouterr().err, caplog.text) == ("", "")  # one line is said, by the error


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_bundle_is_named_by_its_repository(hub, bundle, tmp_path, damage):
    shutil.copytree(bundle.path, tmp_path / "bundle")
    if damage == "changed":
        (tmp_path / "bundle" / "model.onnx.data").write_bytes(b"other weights")
    else:
        (tmp_path / "bundle" / "model.onnx.data").unlink()
    commit = hub.add("org/bad", tmp_path / "bundle")
    reason = "differs" if damage == "changed" else "is missing"
    with pytest.raises(BundleError, match=f"hf://org/bad@{commit}: model.onnx.data {reason}"):
        Bundle.from_pretrained("org/bad")


def test_what_is_neither_a_directory_nor_a_repository_is_refused(hub):
    with pytest.raises(BundleError, match="nowhere: not a bundle"):
        Bundle.from_pretrained("nowhere")
    with pytest.raises(InputError, match="hf://no/where: the hub has no such repository"):
        Bundle.from_pretrained("no/where")


def test_what_is_pushed_comes_back_with_its_card(hub, bundle, tmp_path):
    url = bundle.push_to_hub("org/new", token=TOKEN, private=True)
    assert url.startswith(f"{hub.address}/org/new/commit/")
    again = Bundle.from_pretrained("org/new", token=TOKEN)
    assert again.manifest_digest == bundle.manifest_digest
    (files,) = hub.repositories["org/new"].commits.values()
    assert files["README.md"] == (bundle.path / "README.md").read_bytes()
    assert set(files) == {path.name for path in bundle.path.iterdir()}

    shutil.copytree(bundle.path, tmp_path / "old")
    (tmp_path / "old" / "README.md").unlink()  # as older versions wrote it
    old = open_bundle(tmp_path / "old")
    old.push_to_hub("org/old", token=TOKEN)
    (files,) = hub.repositories["org/old"].commits.values()
    assert files["README.md"].decode() == render_card(old)


def test_the_code_of_the_readme_runs(hub, bundle, commit, monkeypatch):
    hub.repositories["org/bundle"] = hub.repositories["org/mine"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    text = (Path(fastformers.__file__).parent / "README.md").read_text()
    (code,) = re.findall(
        r"^```python\n(from fastformers import Bundle\n.*?)^```$", text, re.M | re.S
    )
    exec(code, {})
    assert hub.repositories["org/copy"].private
    assert Bundle.from_pretrained("org/copy").manifest_digest == bundle.manifest_digest
