import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.errors import BundleError, InputError
from fastformers.inference import bundle as bundle_module
from fastformers.inference.bundle import Bundle, open_bundle, write_bundle
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.manifest import sign
from fastformers.inference.onnx_files import weights_path
from fastformers.inference.scorer import Scorer
from fastformers.inference.tasks import TEXT_CLASSIFICATION

VERIFIED = ["model.onnx", "model.onnx.data", "tokenizer.json"]
FILES = {*VERIFIED, "bundle.json", "README.md"}


@pytest.fixture(scope="module")
def copy(bundle, tmp_path_factory):
    """A copy of the bundle to damage; `mend` puts a file back."""
    path = tmp_path_factory.mktemp("copy") / "bundle"
    shutil.copytree(bundle.path, path)
    return path


@pytest.fixture
def mend(bundle, copy):
    def restore():
        for name in FILES:
            shutil.copyfile(bundle.path / name, copy / name)

    restore()
    yield restore
    restore()


def rewrite(bundle, path, **changes):
    """Write the bundle again, elsewhere or changed."""
    return write_bundle(
        replace(bundle, path=path, **changes),
        model=bundle.model_path,
        tokenizer_json=(bundle.path / "tokenizer.json").read_text(),
    )


def change_byte(path, position, by):
    content = bytearray(path.read_bytes())
    content[position % len(content)] = (content[position % len(content)] + by) % 256
    path.write_bytes(content)


def test_a_bundle_reads_back_as_it_was_written(bundle, tmp_path):
    quality = StageQuality(
        stage="quantize", quality=1 / 3, agreement=0.1, num_rows=7, model_bytes=9, seconds=0.25
    )
    written = rewrite(
        bundle,
        tmp_path / "a" / "bundle",
        labels=("schlecht", "très bien 很好"),
        stages=(*bundle.stages, quality),
        provenance={"teacher": "t", "nested": {"list": [1, 2.5, None]}},
    )
    assert open_bundle(tmp_path / "a" / "bundle") == written
    assert open_bundle(str(tmp_path / "a" / "bundle")) == written
    assert {path.name for path in written.path.iterdir()} == FILES
    assert written.path.stat().st_mode & 0o777 == 0o755  # not the 0o700 of a temporary directory


def test_the_tokenizer_truncates_to_the_length_of_the_bundle(bundle, tmp_path):
    short = rewrite(bundle, tmp_path / "short", max_length=5)
    assert open_bundle(short.path).load_tokenizer().encode(["cat " * 9]).lengths_N.tolist() == [5]


@given(st.sampled_from(VERIFIED), st.integers(0), st.integers(1, 255))
def test_a_changed_byte_of_model_weights_or_tokenizer_is_found(bundle, copy, name, position, by):
    shutil.copyfile(bundle.path / name, copy / name)
    change_byte(copy / name, position, by)
    try:
        with pytest.raises(BundleError, match=rf": {name} differs from its SHA-256"):
            open_bundle(copy)
    finally:
        shutil.copyfile(bundle.path / name, copy / name)


@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_of_the_manifest_is_found_or_means_nothing(bundle, copy, position, by):
    manifest = copy / "bundle.json"
    shutil.copyfile(bundle.path / "bundle.json", manifest)
    change_byte(manifest, position, by)
    try:
        assert open_bundle(copy) == replace(bundle, path=copy)  # a space that became a tab
    except BundleError as error:
        assert str(copy) in str(error)
    finally:
        shutil.copyfile(bundle.path / "bundle.json", manifest)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", ["yes", "no"]),
        ("max_length", 63),
        ("precision", "int8"),
        ("files", {}),
        ("digest", "0" * 64),
    ],
)
def test_an_edited_manifest_is_refused(copy, mend, field, value):
    fields = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**fields, field: value}))
    with pytest.raises(BundleError, match=r"bundle\.json: altered after it was written"):
        open_bundle(copy)


def test_errors_name_the_place_that_a_bundle_was_copied_from(bundle, copy, mend):
    opened = open_bundle(copy, source="s3://bucket/mine")
    assert str(opened) == "s3://bucket/mine"
    assert str(open_bundle(copy)) == str(copy)
    assert opened.digest == bundle.digest
    (copy / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"^s3://bucket/mine: model\.onnx is missing"):
        open_bundle(copy, source="s3://bucket/mine")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[1]", b"7", b"null", b'"text"', b"{}", b"\xff\xfe"]
)
def test_a_manifest_that_is_no_manifest_is_refused(copy, mend, content):
    (copy / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json: damaged; copy the bundle again"):
        open_bundle(copy)


@pytest.mark.parametrize("name", VERIFIED)
def test_a_missing_file_is_named(copy, mend, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf": {name} is missing"):
        open_bundle(copy)


def test_a_task_of_a_newer_version_asks_for_an_upgrade(bundle, tmp_path):
    rewrite(bundle, tmp_path / "new", task=replace(bundle.task, name="translation"))
    with pytest.raises(BundleError, match=r"its task 'translation' is not one of text-.*; upgrade"):
        open_bundle(tmp_path / "new")


def test_the_task_is_stored_by_its_name(bundle):
    assert json.loads((bundle.path / "bundle.json").read_text())["task"] == "text-classification"
    assert open_bundle(bundle.path).task is TEXT_CLASSIFICATION


def test_a_newer_format_asks_for_an_upgrade(copy, mend):
    fields = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**fields, "format_version": 4, "new": 1}))
    with pytest.raises(BundleError, match=r"bundle format 4, .* reads up to 3; upgrade"):
        open_bundle(copy)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_not_a_bundle_is_refused(tmp_path, kind):
    path = tmp_path / "bundle"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("no directory")
    with pytest.raises(BundleError, match=r"bundle: not a bundle \(no bundle.json\)"):
        open_bundle(path)


@pytest.mark.parametrize("is_file", [False, True])
def test_nothing_but_a_bundle_is_written_over(bundle, tmp_path, is_file):
    target = tmp_path / "target"
    thesis = target if is_file else target / "thesis.txt"
    thesis.parent.mkdir(exist_ok=True)
    thesis.write_text("years of work")
    with pytest.raises(InputError, match="target: exists and is not a bundle"):
        rewrite(bundle, target)
    assert thesis.read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_directory_becomes_a_bundle(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    assert open_bundle(rewrite(bundle, tmp_path / "empty").path).labels == bundle.labels


def test_an_old_bundle_is_replaced_as_a_whole(bundle, tmp_path):
    rewrite(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "left-over").write_text("of a format to come")
    written = rewrite(bundle, tmp_path / "bundle", labels=("maybe", "surely"))
    assert open_bundle(tmp_path / "bundle") == written
    assert {path.name for path in written.path.iterdir()} == FILES
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


@pytest.mark.parametrize("over_an_old_bundle", [False, True])
@pytest.mark.parametrize("fault", ["no model", "no weights", "no text", "disk full"])
def test_a_write_that_fails_leaves_things_as_they_were(
    bundle, tmp_path, monkeypatch, over_an_old_bundle, fault
):
    if over_an_old_bundle:
        rewrite(bundle, tmp_path / "bundle")
    model = tmp_path / "graph" / "model.onnx"
    model.parent.mkdir()
    if fault != "no model":
        shutil.copyfile(bundle.model_path, model)
    if fault != "no weights":
        shutil.copyfile(weights_path(bundle.model_path), weights_path(model))
    before = sorted(tmp_path.rglob("*"))

    def fill_disk(*args):
        raise OSError(28, "No space left on device")

    if fault == "disk full":
        monkeypatch.setattr(bundle_module, "digest_file", fill_disk)
    with pytest.raises((OSError, UnicodeEncodeError)):
        write_bundle(
            replace(bundle, path=tmp_path / "bundle"),
            model=model,
            tokenizer_json="\ud800" if fault == "no text" else "{}",
        )
    monkeypatch.undo()
    assert sorted(tmp_path.rglob("*")) == before
    if over_an_old_bundle:
        assert open_bundle(tmp_path / "bundle").labels == bundle.labels


def test_the_old_bundle_survives_a_rename_that_fails(bundle, tmp_path, monkeypatch):
    old = rewrite(bundle, tmp_path / "bundle")
    replace_file = os.replace
    faults = [OSError(5, "Input/output error")]

    def fail_once(source, target):
        if os.fspath(target) == os.fspath(old.path) and faults:
            raise faults.pop()
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="Input/output error"):
        rewrite(bundle, tmp_path / "bundle", labels=("maybe", "surely"))
    assert open_bundle(tmp_path / "bundle") == old
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_a_graph_of_another_name_would_not_find_its_weights(bundle, tmp_path):
    for source, name in (
        (bundle.model_path, "a.onnx"),
        (weights_path(bundle.model_path), "a.data"),
    ):
        shutil.copyfile(source, tmp_path / name)
    with pytest.raises(ValueError, match=r"a\.onnx.*: write the graphs as \['model\.onnx'\]"):
        write_bundle(
            replace(bundle, path=tmp_path / "bundle"),
            model=tmp_path / "a.onnx",
            tokenizer_json="{}",
        )
    assert not (tmp_path / "bundle").exists()


def test_an_older_bundle_with_all_weights_inside_the_graph_opens(bundle, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "old"
    shutil.copytree(bundle.path, path)
    onnx.save(onnx.load(bundle.model_path), path / "model.onnx")  # `load` includes the weights
    weights_path(path / "model.onnx").unlink()
    model_hash = hashlib.sha256((path / "model.onnx").read_bytes()).hexdigest()
    files = {"model.onnx": model_hash, "tokenizer.json": bundle.files["tokenizer.json"]}
    fields = json.loads((path / "bundle.json").read_text())
    del fields["format_version"], fields["digest"]
    (path / "bundle.json").write_text(sign({**fields, "files": files}))
    assert open_bundle(path).files == files
    texts = ["a cat sat", "the film is bad"]
    expected, predictions = (Scorer(place).score(texts) for place in (bundle.path, path))
    np.testing.assert_array_equal(predictions.logits_NC, expected.logits_NC)


def digests(bundle: Bundle) -> tuple[str, str]:
    return bundle.digest, bundle.preparation_digest


def test_what_decides_a_prediction_and_what_decides_token_ids(bundle, pair_bundle, tmp_path):
    same = open_bundle(rewrite(bundle, tmp_path / "same", provenance={"teacher": "x"}).path)
    assert digests(same) == digests(bundle)

    assert same.manifest_digest != bundle.manifest_digest  # the identity of all that it says
    assert open_bundle(rewrite(bundle, tmp_path / "copy").path).manifest_digest == (
        bundle.manifest_digest
    )

    labels = rewrite(bundle, tmp_path / "labels", labels=("yes", "no"))
    assert labels.digest != bundle.digest
    assert labels.preparation_digest == bundle.preparation_digest

    for other in (rewrite(bundle, tmp_path / "length", max_length=32), pair_bundle):
        assert other.digest != bundle.digest
        assert other.preparation_digest != bundle.preparation_digest
