"""What bundle.json may say: each field of a signed manifest, and each file, changed in turn."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from fastformers.errors import BundleError
from fastformers.inference.autotune import tune
from fastformers.inference.bundle import open_bundle
from fastformers.inference.manifest import sign
from fastformers.inference.scorer import Scorer

FILES = ("model.onnx", "model.onnx.data", "tokenizer.json", "bundle.json")


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle to damage."""
    return shutil.copytree(bundle.path, tmp_path / "bundle")


@pytest.fixture
def fields(bundle):
    """What the bundle's manifest says."""
    content = json.loads((bundle.path / "bundle.json").read_text())
    return {name: content[name] for name in content if name not in ("format_version", "digest")}


def place(fields, path):
    """The object or list that holds a field, and the field's name in it."""
    *parents, name = path.split("/")
    for parent in parents:
        fields = fields[int(parent) if parent.isdigit() else parent]
    return fields, int(name) if name.isdigit() else name


def refusal(copy, fields):
    """The line that refuses a manifest whose digest is right, whatever it says; None if none."""
    (copy / "bundle.json").write_text(sign(fields))
    try:
        open_bundle(copy)
    except BundleError as error:
        return str(error)
    return None


WRONG = (-1, 1.5, float("inf"), True, [], [[]], {}, {"a": [1]}, "", 10**60, None)
# What each field may be of these, besides.
RIGHT = {
    "labels": (),
    "labels/0": ("",),
    "max_length": (),
    "multiply_adds_per_token": (None,),
    "width": (None,),
    "text_pairs": (True,),
    "stages": ([],),
    "stages/0/quality": (-1,),
    "stages/0/agreement": (-1,),
    "stages/0/seconds": (1.5, 10**60),
    "stages/0/other_metrics": ({},),
    "provenance": ({}, {"a": [1]}),
    "cost_profile/cpu_generation": (None,),
    "cost_profile/cpu_features": ([],),
    "cost_profile/seconds_alone": ([],),
    "cost_profile/seconds_per_row/0": (1.5,),
    "num_outputs": (),
    "task": (),
    "input_names": (),
    "input_names/0": (),
    "precision": (),
    "stages/0/stage": (),
    "stages/0/num_rows": (),
    "stages/0/model_bytes": (),
    "stages/0/metric": (),
    "cost_profile": (),
    "cost_profile/engine": (),
    "cost_profile/cpu_model": (),
    "cost_profile/max_batch_tokens": (),
    "cost_profile/lengths": (),
    "cost_profile/lengths/1": (),
    "cost_profile/seconds_per_row": (),
    "cost_profile/waiting_share": (),
    "files": (),
    "files/model.onnx": (),
    "files/tokenizer.json": (),
}


@pytest.mark.parametrize("path", RIGHT)
def test_a_wrong_value_of_a_field_is_refused_in_one_line(copy, fields, path):
    holder, name = place(fields, path)
    for value in WRONG:
        holder[name] = value
        line = refusal(copy, fields)
        if line is None:
            assert any(value is right or repr(value) == repr(right) for right in RIGHT[path])
            continue
        assert line.startswith(str(copy))
        assert len(line.splitlines()) == 1
        assert len(line) < 500 + len(str(copy))


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("labels", ["no"], "labels: 1 for num_outputs 2"),
        ("labels", ["no", "no"], r"labels: .*non-unique"),
        ("num_outputs", 3, "labels: 2 for num_outputs 3"),
        ("max_length", 0, "max_length: 0 is less than the minimum of 1"),
        ("max_length", 64.0, "max_length: 64.0 is not of type 'integer'"),
        ("cost_profile/lengths", [64, 2], "cost_profile.lengths: not ascending"),
        ("cost_profile/seconds_alone", [1.0], "cost_profile.seconds_alone: 1 for 2 lengths"),
        ("cost_profile/seconds_per_row/0", 0, r"cost_profile.seconds_per_row\[0\]: 0 is less"),
        ("files", {"model.onnx": "0" * 64}, "files: 'tokenizer.json' is a required property"),
        ("stages/0/quality", 1.5, r"stages\[0\].quality: 1.5 is greater than the maximum of 1"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(copy, fields, path, value, what):
    holder, name = place(fields, path)
    holder[name] = value
    (copy / "bundle.json").write_text(sign(fields))
    with pytest.raises(BundleError, match=rf"{what}.*; make the bundle again"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["labels", "task", "files", "cost_profile", "precision"])
def test_a_field_that_is_missing_is_named(copy, fields, name):
    del fields[name]
    assert f"bundle.json: '{name}' is a required property; make" in refusal(copy, fields)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "..", "", "a/b", "a\\b", "a\0", ".ssh", "bundle.json"]
)
def test_a_file_that_no_bundle_has_is_not_opened(copy, fields, name):
    fields["files"][name] = fields["files"]["model.onnx"]
    assert "bundle.json: files: Additional properties are not allowed" in refusal(copy, fields)


def test_a_field_of_a_later_version_and_a_quality_that_is_not_defined_are_borne(copy, fields):
    fields["later"] = fields["cost_profile"]["later"] = {"a": 1}
    fields["stages"][0]["quality"] = float("nan")
    assert refusal(copy, fields) is None


def test_a_further_graph_raises_the_version_and_its_file_must_be_there(copy, fields):
    assert json.loads(sign(fields))["format_version"] == 1
    assert json.loads(sign({**fields, "further_graphs": []}))["format_version"] == 1
    graph = {"precision": "float16", "file": "float16.onnx", "quality": None}
    manifest = sign({**fields, "further_graphs": [graph]})
    assert json.loads(manifest)["format_version"] == 2
    (copy / "bundle.json").write_text(manifest)
    with pytest.raises(BundleError, match=r"further_graphs: float16\.onnx is not one of its files"):
        open_bundle(copy)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None, [1]])
def test_a_version_that_is_none_is_refused(copy, fields, version):
    signed = {**json.loads(sign(fields)), "format_version": version}
    (copy / "bundle.json").write_text(json.dumps(signed))
    with pytest.raises(BundleError, match="bundle format "):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"num_outputs": 3, "labels": ["a", "b", "c"]}, "gives 2 outputs .* says 3 from"),
        ({"input_names": ["input_ids", "token_type_ids"]}, "from input_ids, .*, token_type_ids;"),
    ],
)
def test_a_graph_that_the_manifest_does_not_speak_of_is_refused(copy, fields, changes, what):
    assert refusal(copy, {**fields, **changes}) is None
    opened = open_bundle(copy)
    for use in (Scorer, lambda bundle: tune(bundle, engine="onnxruntime")):
        with pytest.raises(BundleError, match=what):
            use(opened)


@pytest.mark.parametrize("content", [b"", b"{}", b"version https://git-lfs", b"\xff", b"[]"])
def test_a_signed_tokenizer_that_is_none_is_refused(copy, fields, content):
    (copy / "tokenizer.json").write_bytes(content)
    fields["files"]["tokenizer.json"] = hashlib.sha256(content).hexdigest()
    assert refusal(copy, fields) is None
    with pytest.raises(BundleError, match=r"tokenizer\.json is no tokenizer \(") as caught:
        open_bundle(copy).load_tokenizer()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_directory_is_named(copy, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(BundleError, match=f": {name} "):
        open_bundle(copy)


def test_a_bundle_of_links_opens_and_scores(bundle, tmp_path):
    """As a snapshot of a hub and a checkout of DVC have it: contents by digest, elsewhere."""
    snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in FILES:
        digest = hashlib.sha256((bundle.path / name).read_bytes()).hexdigest()
        shutil.copyfile(bundle.path / name, blobs / digest)
        (snapshot / name).symlink_to(f"../../blobs/{digest}")
    (snapshot / "README.md").write_text("a model")
    expected, found = (Scorer(path).score(["the cat sat"]) for path in (bundle.path, snapshot))
    np.testing.assert_array_equal(found.logits_NC, expected.logits_NC)
