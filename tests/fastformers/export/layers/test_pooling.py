"""A mean over tokens is the same alone as in any batch, bit by bit; each text of a pair has one.

Widths are those of real models: ONNX Runtime's matrix products take other paths for small ones.
"""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from fastformers.export.encoder import EncoderWeights, Head, Linear
from fastformers.export.graph import write_graph
from fastformers.export.int8 import quantize_token_embeddings
from fastformers.inference.engine import OnnxEngine

VOCABULARY, WIDTH, CLASSES = 500, 384, 3


def make_static(pooling):
    rng = np.random.default_rng(0)

    def linear(inputs, outputs):
        weight = rng.standard_normal((inputs, outputs)).astype(np.float32)
        return Linear(weight=weight, bias=weight[0])

    num_inputs = WIDTH * (4 if pooling == "texts" else 1)
    return EncoderWeights(
        max_length=512,
        token_embeddings_VE=rng.standard_normal((VOCABULARY, WIDTH)).astype(np.float32),
        position_embeddings_PE=None,
        token_types_KE=None,
        embedding_norm=None,
        projection=None,
        activation="relu",
        layers=(),
        head=Head(
            hidden=linear(num_inputs, WIDTH), activation="relu", output=linear(WIDTH, CLASSES)
        ),
        pooling=pooling,
    )


def compute(encoder, ids_BT, types_BT):
    """Logits (B, C) by NumPy."""
    vectors_BTE = encoder.token_embeddings_VE[ids_BT].astype(np.float64)
    if encoder.pooling == "mean":
        pooled = vectors_BTE.mean(axis=1)
    else:
        means = []
        for mask_BT in (1 - types_BT, types_BT):
            total = (vectors_BTE * mask_BT[:, :, None]).sum(axis=1)
            means.append(total / np.maximum(mask_BT.sum(axis=1, keepdims=True), 1))
        first, second = means
        pooled = np.concatenate([first, second, abs(first - second), first * second], axis=1)
    head = encoder.head
    inner = np.maximum(pooled @ head.hidden.weight + head.hidden.bias, 0)
    return inner @ head.output.weight + head.output.bias


def test_int8_vectors_are_never_multiplied_one_by_one(tmp_path):
    """Their factors weigh the sum: a product of all vectors would be written and read again."""
    for pooling, num_products in (("mean", 0), ("texts", 3)):  # two of masks, one of two means
        path = tmp_path / f"{pooling}.onnx"
        write_graph(make_static(pooling), path, text_pairs=pooling == "texts", ranges={})
        nodes = onnx.load(path, load_external_data=False).graph.node
        assert [node.op_type for node in nodes].count("Mul") == num_products


def make_batch(num_rows, length):
    rng = np.random.default_rng(length)
    ids_BT = rng.integers(0, VOCABULARY, (num_rows, length))
    starts_B = rng.integers(0, length + 1, num_rows)
    return ids_BT, (np.arange(length) >= starts_B[:, None]).astype(np.int64)


@pytest.mark.parametrize("ranges", [None, {}], ids=["float", "int8"])
@pytest.mark.parametrize("pooling", ["mean", "texts"])
def test_the_graph_computes_the_means(tmp_path, pooling, ranges):
    encoder = make_static(pooling)
    write_graph(encoder, tmp_path / "model.onnx", text_pairs=pooling == "texts", ranges=ranges)
    if ranges is not None:
        steps_VE, scale_V = quantize_token_embeddings(encoder.token_embeddings_VE)
        encoder = replace(encoder, token_embeddings_VE=steps_VE * scale_V[:, None])
    ids_BT, types_BT = make_batch(16, 12)
    types_BT[0] = 0  # the second text may have no token, if it was cut
    logits_BC = OnnxEngine(tmp_path / "model.onnx").run(ids_BT, types_BT)
    np.testing.assert_allclose(logits_BC, compute(encoder, ids_BT, types_BT), rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("ranges", [None, {}], ids=["float", "int8"])
@pytest.mark.parametrize("pooling", ["mean", "texts"])
def test_a_row_scores_alone_as_in_any_batch_on_any_number_of_threads(tmp_path, pooling, ranges):
    path = tmp_path / "model.onnx"
    write_graph(make_static(pooling), path, text_pairs=pooling == "texts", ranges=ranges)
    alone, threads = OnnxEngine(path), [OnnxEngine(path, num_threads=count) for count in (1, 2, 3)]
    for length in (2, 3, 17, 64, 129, 256, 509):
        ids_BT, types_BT = make_batch(48, length)
        single_BC = [alone.run(ids_BT[row : row + 1], types_BT[row : row + 1]) for row in range(48)]
        for num_rows in (1, 2, 5, 16, 48):
            for engine in threads:
                logits_BC = engine.run(ids_BT[:num_rows], types_BT[:num_rows])
                np.testing.assert_array_equal(logits_BC, np.concatenate(single_BC[:num_rows]))
