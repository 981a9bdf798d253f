"""What a bundle of two graphs says, and what is refused of it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fastformers import open_bundle
from fastformers.errors import BundleError, InputError
from fastformers.inference import manifest
from fastformers.inference.bundle import write_bundle, write_manifest
from fastformers.inference.cascade.graphs import measure_profile
from fastformers.inference.cascade.record import (
    check_one_graph,
    describe,
    first_graph,
    graphs_by_share,
    second_graph,
)
from fastformers.inference.description.model_card import card_of
from fastformers.inference.description.rename_labels import name_labels
from fastformers.inference.scorer import Scorer


@pytest.fixture
def copy(cascade_bundle, tmp_path):
    shutil.copytree(cascade_bundle.path, tmp_path / "copy")
    return open_bundle(tmp_path / "copy")


def test_a_cascade_reads_back_as_it_was_written(cascade_bundle):
    assert open_bundle(cascade_bundle.path) == cascade_bundle
    content = json.loads((cascade_bundle.path / "bundle.json").read_text())
    assert content["format_version"] == 3
    assert {"second.onnx", "second.onnx.data"} < set(content["files"])


def test_older_readers_refuse_a_cascade_and_read_all_else(
    cascade_bundle, bundle, two_graphs, monkeypatch
):
    assert "cascade" not in json.loads((bundle.path / "bundle.json").read_text())
    monkeypatch.setattr(manifest, "FORMAT_VERSION", 2)
    for older in (bundle, two_graphs):
        assert open_bundle(older.path) == older
    with pytest.raises(BundleError, match="bundle format 3, this fastformers reads up to 2"):
        open_bundle(cascade_bundle.path)


def test_graphs_and_threshold_decide_the_digest_and_the_cost_does_not(cascade_bundle, bundle):
    cascade = cascade_bundle.cascade
    other = replace(cascade_bundle, cascade=replace(cascade, threshold=1.6))
    assert other.digest != cascade_bundle.digest
    cheaper = replace(cascade, share=0.1, second_profile=bundle.cost_profile)
    assert replace(cascade_bundle, cascade=cheaper).digest == cascade_bundle.digest
    files = {**cascade_bundle.files, "second.onnx.data": "0" * 64}
    assert replace(cascade_bundle, files=files).digest != cascade_bundle.digest
    parts = {first_graph(cascade_bundle).digest, second_graph(cascade_bundle).digest}
    assert len(parts | {cascade_bundle.digest}) == 3
    assert first_graph(bundle) is bundle


@pytest.mark.parametrize("name", ["second.onnx", "second.onnx.data"])
def test_a_changed_byte_of_the_second_graph_is_found(copy, name):
    content = bytearray((copy.path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy.path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} differs from its SHA-256"):
        open_bundle(copy.path)
    (copy.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(copy.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": None}, "cascade.threshold: None is not of type 'number'"),
        ({"threshold": float("nan")}, "cascade.threshold: nan is not of type 'number'"),
        ({"share": 1.2}, "cascade.share: 1.2 is greater than the maximum of 1"),
        ({"precision": "float16"}, "cascade.precision: 'float16' is not one of"),
        ({"precision": "int8-dynamic"}, "cascade.precision: 'int8-dynamic' is not one of"),
        ({"file": "model.onnx"}, "cascade.file: 'second.onnx' was expected"),
        (
            {"share_by_length": {"lengths": [4, 4], "shares": [0, 1]}},
            "cascade.share_by_length.lengths: not ascending",
        ),
        (
            {"share_by_length": {"lengths": [4, 5], "shares": [1]}},
            "cascade.share_by_length.shares: 1 for 2 lengths",
        ),
        ({"num_held_out": 0}, "cascade.num_held_out: 0 is less than the minimum of 1"),
    ],
)
def test_a_manifest_of_another_cascade_is_refused_by_field(copy, change, message):
    fields = json.loads((copy.path / "bundle.json").read_text())
    for name in ("format_version", "digest"):
        del fields[name]
    fields["cascade"].update(change)
    (copy.path / "bundle.json").write_text(manifest.sign(fields))
    with pytest.raises(BundleError, match=message):
        open_bundle(copy.path)


def test_lengths_of_a_profile_ascend_in_the_cascade_too(copy):
    profile = replace(copy.cost_profile, lengths=(9, 3))
    write_manifest(replace(copy, cascade=replace(copy.cascade, second_profile=profile)), copy.path)
    with pytest.raises(BundleError, match=r"cascade\.second_profile\.lengths: not ascending"):
        open_bundle(copy.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cascade": None}, "files: second.onnx is of no cascade"),
        ({"precision": "float16"}, "cascade: its graphs are for CPUs, in int8 or float32"),
    ],
)
def test_what_does_not_fit_a_cascade_is_refused(copy, change, message):
    write_manifest(replace(copy, **change), copy.path)
    with pytest.raises(BundleError, match=message):
        open_bundle(copy.path)


def test_only_labels_can_be_unsure(cascade_factory, tmp_path):
    scores = cascade_factory(tmp_path / "c", task="regression", labels=(), num_outputs=1)
    with pytest.raises(BundleError, match="cascade: regression has no labels to be sure of"):
        open_bundle(scores.path)


def test_the_second_graph_is_checked_against_the_manifest(cascade_bundle, bundle_factory, tmp_path):
    three = bundle_factory(tmp_path / "three", labels=("a", "b", "c"))
    shutil.copyfile(three.model_path, tmp_path / "second.onnx")
    shutil.copyfile(f"{three.model_path}.data", tmp_path / "second.onnx.data")
    path = tmp_path / "c"
    wrong = write_bundle(
        replace(cascade_bundle, path=path),
        model=cascade_bundle.model_path,
        further_models=[tmp_path / "second.onnx"],
        tokenizer_json=(three.path / "tokenizer.json").read_text(),
    )
    with pytest.raises(BundleError):
        Scorer(wrong)


def test_the_cost_of_a_row_is_that_of_both_graphs_by_the_share_of_its_length(cascade_bundle):
    lengths_N = np.array([2, 4, 8, 12, 64])
    shares_N = cascade_bundle.cascade.share_by_length.at(lengths_N)
    assert shares_N.tolist() == [0.75, 0.75, 0.5, 0.25, 0.25]
    at_ends = [1e-4 + 0.75 * 1e-3, 1e-3 + 0.25 * 1e-2]
    assert cascade_bundle.cost_profile.seconds_per_row == pytest.approx(at_ends)


def test_each_graph_is_expected_to_score_its_share_of_the_rows(cascade_bundle, bundle):
    assert graphs_by_share(bundle) == ((bundle, 1.0),)
    assert graphs_by_share(cascade_bundle) == (
        (first_graph(cascade_bundle), 1.0),
        (second_graph(cascade_bundle), 0.5),
    )


def test_what_needs_one_graph_refuses_a_cascade(cascade_bundle, bundle):
    check_one_graph(bundle, "it takes", "--one")
    with pytest.raises(InputError, match="is a cascade of two graphs, and it takes one; give --o"):
        check_one_graph(cascade_bundle, "it takes", "--one")


def test_a_profile_is_measured_of_both_graphs(cascade_bundle):
    profile = measure_profile(cascade_bundle)
    alone = measure_profile(first_graph(cascade_bundle))
    assert profile.lengths == alone.lengths
    assert sum(profile.seconds_per_row) > sum(alone.seconds_per_row)


def test_card_and_facts_name_both_graphs(cascade_bundle):
    card = card_of(cascade_bundle)
    assert "second.onnx" in card
    assert "| cascade | 89.00 |" in card
    assert "value: 0.89" in card
    assert describe(cascade_bundle.cascade) == (
        "rows with a margin below 0.8 go on to the second graph (float32): 50.0% of 1,000 held-out "
        "rows"
    )


def test_labels_are_renamed_in_a_cascade(copy, make_texts):
    texts = make_texts(40)
    before = Scorer(copy).score(texts)
    renamed, is_own = name_labels(copy, ["schlecht", "gut"])
    assert is_own
    assert open_bundle(copy.path) == renamed
    after = Scorer(copy.path).score(texts)
    np.testing.assert_array_equal(after.logits_NC, before.logits_NC)
    assert set(after.labels) == {"schlecht", "gut"}
