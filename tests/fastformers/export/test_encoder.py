import math
from dataclasses import replace

import numpy as np
import pytest

from fastformers.export.encoder import EmbeddingHead, Linear, TokenPooling, count_multiply_adds
from fastformers.export.graph import write_graph
from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle

onnx = pytest.importorskip("onnx")

PRODUCTS = {"MatMul", "Gemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}


def linear(inputs, outputs):
    return Linear(weight=np.ones((inputs, outputs), np.float32), bias=np.zeros(outputs, np.float32))


def count_in_graph(path):
    """Weights of the constant matrices that a product of the graph takes."""
    graph = onnx.load(path, load_external_data=False).graph
    factors = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
    shapes = [tensor.dims for tensor in graph.initializer if tensor.name in factors]
    return sum(math.prod(dims) for dims in shapes if len(dims) > 1)


def test_tokens_that_are_left_out_are_not_counted(encoder_factory):
    encoder = encoder_factory(num_layers=3)
    first, second, third = encoder.layers
    layers = (first, replace(second, keep_share=0.5), third)
    pooling = TokenPooling(before_layer=1, every=4, how="mean")
    reduced = replace(encoder, layers=layers, pooling_of_tokens=pooling)
    before, after = 2 * 32 * 32, 2 * 32 * 32 + 2 * 32 * 64  # dropped tokens have no query
    head = 32 * 32 + 32 * 2
    expected = (before + after) * (1 + 1 / 8) + before / 4 + after / 8 + head
    assert count_multiply_adds(reduced) == expected
    assert count_multiply_adds(encoder) == 3 * (before + after) + head


def test_multiply_adds_are_those_of_a_hand_count(encoder_factory):
    encoder = encoder_factory(width=32, num_layers=2, classes=3, vocabulary=500)
    layer = 4 * 32 * 32 + 2 * (32 * 64)  # query, key, value, output; up, down
    assert count_multiply_adds(encoder) == 2 * layer + 32 * 32 + 32 * 3
    assert encoder.width == 32


def test_gates_and_projections_of_embeddings_are_counted_and_tables_are_not(encoder_factory):
    plain = encoder_factory(width=32, num_layers=1)
    gated = replace(
        plain,
        token_embeddings_VE=np.ones((900, 16), np.float32),
        projection=linear(16, 32),
        layers=(replace(plain.layers[0], gate=linear(32, 64)),),
    )
    more = 16 * 32 + 32 * 64
    assert count_multiply_adds(gated) == count_multiply_adds(plain) + more
    head = EmbeddingHead(projection=None, activation=None, normalize=True)
    assert count_multiply_adds(replace(plain, head=head)) == 4 * 32 * 32 + 2 * (32 * 64)


@pytest.mark.parametrize("shape", [{}, {"width": 16, "num_layers": 3, "classes": 5}])
def test_the_graph_multiplies_by_what_was_counted(encoder_factory, tmp_path, shape):
    encoder = encoder_factory(**shape)
    write_graph(encoder, tmp_path / "model.onnx", text_pairs=True)
    assert count_in_graph(tmp_path / "model.onnx") == count_multiply_adds(encoder) > 0


def test_the_demo_bundle_says_what_its_graph_does():
    bundle = open_bundle(DEMO_BUNDLE)
    layers, head = 2 * 12 * 384**2, 384**2 + 384 * 6
    assert bundle.multiply_adds_per_token == layers + head == count_in_graph(bundle.model_path)
    assert bundle.width == 384


def test_a_written_bundle_says_what_its_encoder_does(bundle, encoder_factory):
    encoder = encoder_factory()
    assert bundle.multiply_adds_per_token == count_multiply_adds(encoder)
    assert open_bundle(bundle.path).multiply_adds_per_token == bundle.multiply_adds_per_token
