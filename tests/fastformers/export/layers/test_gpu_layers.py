"""Graphs for GPUs compute what the encoder means; in float32 to the last digits, too."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fastformers.export import graph
from fastformers.export.graph import write_graph
from fastformers.export.layers import gpu_layout
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.onnx_files import VOCABULARY_KEY, measure_graph_bytes
from tests.fastformers.export.test_graph import KINDS, make_variant, reference_logits


@pytest.fixture
def write_float32(tmp_path, monkeypatch):
    """Writes a graph laid out for GPUs whose weights and arithmetic are float32."""
    always_float32 = property(lambda self: False, lambda self, value: None)

    def write(encoder, *, text_pairs=True):
        with monkeypatch.context() as patch:
            patch.setattr(graph.GraphBuilder, "float16", always_float32, raising=False)
            write_graph(encoder, tmp_path / "32.onnx", text_pairs=text_pairs, float16=True)
        return OnnxEngine(tmp_path / "32.onnx")

    return write


def rows_of(length, *, vocabulary=128):
    rng = np.random.default_rng(0)
    return rng.integers(0, vocabulary, (3, length)), rng.integers(0, 2, (3, length))


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_computes_what_the_encoder_means(
    encoder_factory, write_float32, monkeypatch, kind
):
    """Heads of 8 are padded to 12, which rotations must bear, too."""
    monkeypatch.setattr(gpu_layout, "HEAD_MULTIPLE", 12)
    encoder = make_variant(encoder_factory, kind)
    engine = write_float32(encoder)
    for length in (1, 2, 17, 64):
        ids_BT, types_BT = rows_of(length)
        expected_BC = [
            reference_logits(encoder, *row) for row in zip(ids_BT, types_BT, strict=True)
        ]
        np.testing.assert_allclose(engine.run(ids_BT, types_BT), expected_BC, atol=2e-5)


@pytest.mark.parametrize("fields", [{}, {"bias_HO": np.zeros((1, 131), np.float32)}])
def test_zero_columns_change_no_bit(encoder_factory, write_float32, monkeypatch, fields):
    encoder = encoder_factory(width=52, num_heads=2)  # heads of 26, as the paper's student has
    layers = tuple(replace(layer, **fields) for layer in encoder.layers)
    encoder, logits = replace(encoder, layers=layers), []
    for multiple in (1, 32):
        monkeypatch.setattr(gpu_layout, "HEAD_MULTIPLE", multiple)
        logits.append(write_float32(encoder).run(*rows_of(17)))
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-6)


@pytest.fixture
def write_float16(tmp_path):
    """Writes a graph for GPUs; returns its path."""

    def write(encoder, **options):
        path = tmp_path / "16.onnx"
        write_graph(encoder, path, text_pairs=True, float16=True, **options)
        return path

    return write


def test_float16_rounds_and_no_more(encoder_factory, write_float16, write_float32):
    encoder = encoder_factory(num_heads=4)
    half_BC = OnnxEngine(write_float16(encoder)).run(*rows_of(24))
    exact_BC = write_float32(encoder).run(*rows_of(24))
    error = np.abs(half_BC - exact_BC).max() / np.abs(exact_BC).max()
    assert half_BC.dtype == np.float32
    assert 1e-6 < error < 0.01


def test_weights_are_float16_up_to_the_head_and_ids_are_int32(encoder_factory, write_float16):
    model = onnx.load(write_float16(encoder_factory()))
    kinds = {w.name: w.data_type for w in model.graph.initializer}
    for name, kind in kinds.items():
        if kind != TensorProto.INT64:  # shapes
            is_head = name.startswith(("head.", "logits."))
            assert kind == (TensorProto.FLOAT if is_head else TensorProto.FLOAT16)
    assert kinds["words"] == TensorProto.FLOAT16
    assert {entry.type.tensor_type.elem_type for entry in model.graph.input} == {TensorProto.INT32}
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {entry.key: entry.value for entry in model.metadata_props} == {VOCABULARY_KEY: "128"}


def count_operators(path):
    operators = [node.op_type for node in onnx.load(path).graph.node]
    return {name: operators.count(name) for name in set(operators)}


@pytest.mark.parametrize(
    ("activation", "passes"), [("gelu", {"BiasGelu": 2}), ("relu", {"Max": 2}), ("tanh", {})]
)
def test_a_layer_has_no_pass_over_its_values_that_can_be_spared(
    encoder_factory, write_float16, activation, passes
):
    encoder = replace(encoder_factory(), activation=activation, pooling="mean")
    counts = count_operators(write_float16(encoder))
    assert counts["SkipLayerNormalization"] == 4
    assert counts["LayerNormalization"] == 1  # of the embeddings
    assert counts["MultiHeadAttention"] == 2
    assert "Split" not in counts
    of_head = 2
    # Biases: of the queries, and of the feed-forward where its activation takes none.
    no_passes = 2 * (not passes)
    assert counts["Add"] == 2 + no_passes + of_head + 2  # and of positions and types
    assert counts["MatMul"] == 2 * 6 + of_head
    assert passes.items() <= counts.items()
    assert "Gelu" not in counts
    assert counts.get("Relu", 0) == 0


@pytest.mark.parametrize("width", [26, 32, 64, 20])
def test_heads_have_a_multiple_of_8_values_and_the_scale_of_the_true_width(
    encoder_factory, write_float16, width
):
    path = write_float16(encoder_factory(width=2 * width, num_heads=2))
    model = onnx.load(path)
    (weight,) = (w for w in model.graph.initializer if w.name == "layer0.query.weight")
    padded = {26: 32, 20: 24}.get(width, width)
    assert list(weight.dims) == [2 * width, 2 * padded]
    for node in model.graph.node:
        if node.op_type == "MultiHeadAttention":
            assert helper.get_node_attr_value(node, "scale") == pytest.approx(width**-0.5)
            assert len(node.input) == 3  # no bias of the projections, no mask


def test_a_token_alone_goes_through_the_last_layers_feed_forward(
    encoder_factory, write_float16, tmp_path
):
    path = write_float16(encoder_factory())
    model = onnx.load(path)
    name = "layer1.output.normed"
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, None))
    onnx.save(model, path)
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    feed = {entry.name: np.ones((2, 24), np.int32) for entry in session.get_inputs()}
    assert session.run([name], feed)[0].shape == (2, 1, 32)


def test_a_graph_takes_half_the_space(make_model, tmp_path):
    encoder = read_encoder(make_model("bert"))
    for name, float16 in (("32", False), ("16", True)):
        write_graph(encoder, tmp_path / f"{name}.onnx", text_pairs=False, float16=float16)
    sizes = [measure_graph_bytes(tmp_path / f"{name}.onnx") for name in ("16", "32")]
    assert sizes[0] < 0.7 * sizes[1]  # towards half, the larger the layers are beside the head


@pytest.mark.parametrize("other", [{"ranges": {}}, {"observe": True}])
def test_a_graph_for_gpus_is_not_int8_and_not_observed(encoder_factory, write_float16, other):
    with pytest.raises(ValueError, match="either int8"):
        write_float16(encoder_factory(), **other)
