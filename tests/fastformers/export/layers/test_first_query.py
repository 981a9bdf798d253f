"""The last layer without keys and values is the layer with them, for every row by itself."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from fastformers.export import graph
from fastformers.export.encoder import TokenPooling
from fastformers.export.graph import write_graph
from fastformers.export.layers.first_query import reads_states
from fastformers.inference.engine import OnnxEngine
from tests.fastformers.export.test_graph import make_variant


@pytest.fixture(scope="module")
def encoder(encoder_factory):
    return encoder_factory(width=52, num_heads=2, max_length=300)  # heads of 26


def test_logits_are_those_of_the_layer_with_keys_and_values(encoder, tmp_path, monkeypatch):
    ids_BT = np.random.default_rng(0).integers(0, 128, (4, 60))
    logits = []
    for by_states in (True, False):
        monkeypatch.setattr(graph, "reads_states", lambda encoder, value=by_states: value)
        names = write_graph(encoder, tmp_path / "model.onnx", text_pairs=False)
        assert ("layer1.kv" in names) is not by_states
        logits.append(OnnxEngine(tmp_path / "model.onnx").run(ids_BT, None))
    np.testing.assert_allclose(*logits, atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 0  # they are computed in another way


def test_a_row_is_the_same_bit_by_bit_alone_in_a_batch_and_on_two_threads(encoder, tmp_path):
    write_graph(encoder, tmp_path / "model.onnx", text_pairs=False)
    one, two = (OnnxEngine(tmp_path / "model.onnx", num_threads=n) for n in (1, 2))
    rng = np.random.default_rng(0)
    for length in (*range(1, 20), *rng.integers(20, 300, 20).tolist()):
        ids_BT = rng.integers(0, 128, (int(rng.integers(2, 9)), length))
        batch_BC = one.run(ids_BT, None)
        alone = [one.run(ids_T[None], None)[0] for ids_T in ids_BT]
        np.testing.assert_array_equal(batch_BC, alone)
        np.testing.assert_array_equal(two.run(ids_BT, None), batch_BC)


def test_it_is_for_the_first_token_by_content_and_of_all_tokens(encoder_factory, encoder):
    assert reads_states(encoder)
    for kind in ("mean", "bias", "window", "relative", "rotary", "dropped", "pooled by mean"):
        assert not reads_states(make_variant(encoder_factory, kind)), kind
    first, last = encoder.layers
    assert reads_states(replace(encoder, layers=(first, replace(last, keep_share=0.5))))
    pooling = TokenPooling(before_layer=0, every=2, how="mean")
    assert not reads_states(replace(encoder, pooling_of_tokens=pooling))


def test_weights_of_keys_and_values_are_float_in_an_int8_graph(encoder, tmp_path):
    names = write_graph(encoder, tmp_path / "model.onnx", text_pairs=False)
    write_graph(encoder, tmp_path / "model.onnx", text_pairs=False, ranges=dict.fromkeys(names))
    weights = {w.name: w for w in onnx.load(tmp_path / "model.onnx").graph.initializer}
    for name, dims in (("layer1.keys", [2, 26, 52]), ("layer1.values", [2, 52, 26])):
        assert list(weights[name].dims) == dims
        assert weights[name].data_type == onnx.TensorProto.FLOAT
    assert weights["layer1.q.weight"].data_type == onnx.TensorProto.INT8
