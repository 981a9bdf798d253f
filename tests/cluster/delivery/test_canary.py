import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fastformers.cluster.delivery import canary as canary_module
from fastformers.cluster.delivery.canary import find_difference, make_canary
from fastformers.errors import BundleError
from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle, write_bundle
from fastformers.inference.engine import OnnxEngine
from tests.needs import need_openvino


@pytest.fixture(scope="module")
def demo():
    return open_bundle(DEMO_BUNDLE)


def rewrite_weights(bundle, path, change):
    """A bundle whose bytes of weights are others, with hashes that are right."""
    graph = path / "graph"
    graph.mkdir(parents=True)
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copyfile(bundle.path / name, graph / name)
    weights = np.fromfile(graph / "model.onnx.data", np.uint8)
    change(weights)
    weights.tofile(graph / "model.onnx.data")
    return write_bundle(
        replace(bundle, path=path / "bundle"),
        model=graph / "model.onnx",
        tokenizer_json=(bundle.path / "tokenizer.json").read_text(),
    )


def disturb(monkeypatch, change):
    """This machine's engine computes other logits from now on."""
    run = OnnxEngine.run
    monkeypatch.setattr(OnnxEngine, "run", lambda *arguments: change(run(*arguments)))


@pytest.mark.parametrize("name", ["bundle", "pair_bundle", "demo"])
def test_the_same_machine_computes_the_same(request, name):
    bundle = request.getfixturevalue(name)
    canary = pickle.loads(pickle.dumps(make_canary(bundle, "onnxruntime")))
    assert find_difference(bundle, canary) is None
    assert len(set(canary.rows.lengths_N.tolist())) > 4
    assert canary.rows.lengths_N.max() <= bundle.max_length
    assert len(canary.rows.ids) < 600
    assert (canary.rows.second_lengths_N > 0).all() == bundle.text_pairs


def test_rows_begin_and_end_with_the_special_tokens_of_the_model(demo):
    rows = make_canary(demo, "onnxruntime").rows
    first, last = demo.load_tokenizer().encode([""]).ids
    assert set(rows.ids[rows.offsets[:-1]].tolist()) == {first}
    assert set(rows.ids[rows.offsets[1:] - 1].tolist()) == {last}


def test_the_engine_may_be_another_one(bundle):
    need_openvino()
    canary = make_canary(bundle, "openvino")
    assert canary.engine == "openvino"
    assert find_difference(bundle, canary) is None


def test_flipped_weights_are_found(demo, tmp_path):
    def flip(weights):  # the sign bit of every byte in the largest part of the file
        third = len(weights) // 3
        weights[third : 2 * third] ^= 0x80

    flipped = rewrite_weights(demo, tmp_path, flip)
    canary = make_canary(demo, "onnxruntime")
    difference = find_difference(flipped, canary)
    assert difference is not None
    assert difference.startswith("a score of ")
    assert "expected " in difference
    assert "onnxruntime" in difference


@pytest.mark.parametrize(
    ("name", "share", "is_found"),
    [
        ("demo", 0.02, False),  # int8: what rounding on another CPU was seen to do, twice
        ("demo", 0.1, True),
        ("bundle", 1e-5, False),  # float32: ten times the rounding of a float
        ("bundle", 1e-2, True),
    ],
)
def test_rounding_is_told_from_a_wrong_result(request, monkeypatch, name, share, is_found):
    bundle = request.getfixturevalue(name)
    canary = make_canary(bundle, "onnxruntime")
    spread = np.ptp(canary.logits_NC[~np.isnan(canary.logits_NC)])
    rng = np.random.default_rng(0)
    disturb(
        monkeypatch,
        lambda logits_BC: logits_BC + share * spread * rng.choice([-1, 1], logits_BC.shape),
    )
    assert (find_difference(bundle, canary) is not None) == is_found


def test_both_numbers_are_named(bundle, monkeypatch):
    canary = make_canary(bundle, "onnxruntime")
    disturb(monkeypatch, lambda logits_BC: logits_BC * 0 + 7.25)
    farthest = np.unravel_index(np.argmax(np.abs(7.25 - canary.logits_NC)), canary.logits_NC.shape)
    difference = find_difference(bundle, canary)
    assert f"a score of 7.25, expected {canary.logits_NC[farthest]:.4g} within" in difference


def test_a_machine_whose_results_are_no_numbers_is_found(bundle, monkeypatch):
    canary = make_canary(bundle, "onnxruntime")
    disturb(monkeypatch, lambda logits_BC: logits_BC * np.nan)
    assert "a score of nan, expected " in find_difference(bundle, canary)
    assert "the model's output is not a finite number" in find_difference(bundle, canary)


def test_rows_that_no_machine_can_score_are_not_held_against_this_one(
    bundle, bundle_factory, tmp_path
):
    crippled = bundle_factory(tmp_path / "crippled", vocabulary=23)  # "film" has no embedding
    canary = make_canary(crippled, "onnxruntime")
    assert np.isnan(canary.logits_NC).any()
    assert np.isfinite(canary.logits_NC).any()
    assert find_difference(crippled, canary) is None
    assert "expected nan" in find_difference(bundle, canary)


def test_a_bundle_that_scores_nothing_is_refused(bundle_factory, tmp_path):
    empty = bundle_factory(tmp_path / "empty", vocabulary=2)
    with pytest.raises(BundleError, match="cannot score a row: the model failed on it"):
        make_canary(empty, "onnxruntime")


def test_other_token_ids_are_found(bundle, monkeypatch):
    canary = make_canary(bundle, "onnxruntime")
    monkeypatch.setattr(
        canary_module, "_TEXTS", ("the dog", *canary_module._TEXTS[1:])
    )  # as if the tokenizer had cut "the cat" into other ids
    assert find_difference(bundle, canary) == "other token ids of the same text"


def test_a_model_whose_logits_are_all_alike_leaves_room_for_rounding(bundle, monkeypatch):
    disturb(monkeypatch, lambda logits_BC: logits_BC * 0 + 3)
    canary = make_canary(bundle, "onnxruntime")
    disturb(monkeypatch, lambda logits_BC: np.nextafter(logits_BC, np.float32(9)))
    assert find_difference(bundle, canary) is None
