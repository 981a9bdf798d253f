"""Which tokens go on is decided for a row by itself: not by its batch, its threads or its nodes."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from fastformers.export.encoder import TokenPooling
from fastformers.export.graph import write_graph
from fastformers.export.layers import attention
from fastformers.inference.engine import EngineError, OnnxEngine
from fastformers.models.variants.token_counts import count_kept_tokens
from tests.fastformers.export.test_graph import REDUCTIONS, make_variant, reduce_tokens

LONGEST = 300


@pytest.fixture(scope="module")
def encoder(encoder_factory):
    """Three layers of 6 heads, in nodes of three, two of which drop tokens."""
    encoder = encoder_factory(width=48, num_layers=3, num_heads=6, max_length=LONGEST)
    layers = [
        replace(layer, keep_share=share)
        for layer, share in zip(encoder.layers, (0.7, 0.6, 1.0), strict=True)
    ]
    return replace(encoder, layers=tuple(layers))


def show(path, encoder, operator):
    """Write the graph with all outputs of an operator beside the logits."""
    write_graph(encoder, path, text_pairs=False)
    model = onnx.load(path)
    names = [node.output[-1] for node in model.graph.node if node.op_type == operator]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return model.SerializeToString()


def open_session(content, num_threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def test_significance_is_the_same_bit_by_bit_alone_in_a_batch_and_on_two_threads(encoder, tmp_path):
    content = show(tmp_path / "model.onnx", encoder, "Max")
    one, two = (open_session(content, threads) for threads in (1, 2))
    rng = np.random.default_rng(0)
    for length in (*range(1, 24), *rng.integers(24, LONGEST, 25).tolist(), LONGEST):
        ids_BT = rng.integers(0, 128, (int(rng.integers(2, 9)), length))
        batch = one.run(None, {"input_ids": ids_BT})
        assert len(batch) == 3  # logits, and the significance in two layers
        for row, ids_T in enumerate(ids_BT):
            alone = one.run(None, {"input_ids": ids_T[None]})
            for whole, part in zip(batch, alone, strict=True):
                np.testing.assert_array_equal(whole[row], part[0])
        for single, double in zip(batch, two.run(None, {"input_ids": ids_BT}), strict=True):
            np.testing.assert_array_equal(single, double)


def test_as_many_stay_as_are_counted_and_the_first_token_comes_first(encoder, tmp_path):
    session = open_session(show(tmp_path / "model.onnx", encoder, "Reshape"), 1)
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    for length in range(1, LONGEST, 7):
        outputs = session.run(names, {"input_ids": rng.integers(0, 128, (3, length))})
        kept = [values for values in outputs if values.ndim == 3 and values.dtype == np.int64]
        counts = count_kept_tokens(np.array([length]), [0.7, 0.6])[:, 0]
        assert [values.shape for values in kept] == [(3, count, 1) for count in counts]
        for positions_BK1 in kept:
            assert (positions_BK1[:, 0] == 0).all()
            assert all(len(set(row)) == len(row) for row in positions_BK1[:, :, 0].tolist())


def test_of_equal_tokens_those_before_stay(encoder, tmp_path):
    equal = replace(encoder, position_embeddings_PE=None)  # the states of all tokens are the same
    session = open_session(show(tmp_path / "model.onnx", equal, "Reshape"), 1)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"input_ids": np.full((2, 40), 7)})
    kept = [values for values in outputs if values.ndim == 3 and values.dtype == np.int64]
    for positions_BK1 in kept:
        np.testing.assert_array_equal(positions_BK1[0, :, 0], np.arange(positions_BK1.shape[1]))


@pytest.mark.parametrize("kind", [kind for kind in REDUCTIONS if "pooled" in kind])
def test_pooling_is_the_same_bit_by_bit_alone_and_in_a_batch(encoder_factory, tmp_path, kind):
    write_graph(make_variant(encoder_factory, kind), tmp_path / "model.onnx", text_pairs=False)
    engine, rng = OnnxEngine(tmp_path / "model.onnx"), np.random.default_rng(0)
    for length in range(1, 65, 3):
        ids_BT = rng.integers(0, 128, (5, length))
        alone = [engine.run(ids_T[None], None)[0] for ids_T in ids_BT]
        np.testing.assert_array_equal(engine.run(ids_BT, None), alone)


def test_graphs_for_longer_rows_keep_the_same_tokens(encoder, tmp_path, monkeypatch):
    ids_BT = np.random.default_rng(0).integers(0, 128, (3, 50))
    write_graph(encoder, tmp_path / "whole.onnx", text_pairs=False)
    monkeypatch.setattr(attention, "_LONGEST_WHOLE", 0)
    write_graph(encoder, tmp_path / "blocks.onnx", text_pairs=False)
    kinds = {node.op_type for node in onnx.load(tmp_path / "blocks.onnx").graph.node}
    assert "MultiHeadAttention" in kinds
    assert "Attention" not in kinds
    logits = [
        OnnxEngine(tmp_path / name).run(ids_BT, None) for name in ("whole.onnx", "blocks.onnx")
    ]
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["both", "dropped"])
def test_float16_rounds_what_goes_on_and_no_more(encoder_factory, tmp_path, kind):
    encoder = reduce_tokens(encoder_factory(num_layers=3, num_heads=6, width=48), kind)
    logits = []
    for float16 in (False, True):
        write_graph(encoder, tmp_path / "model.onnx", text_pairs=False, float16=float16)
        ids_BT = np.random.default_rng(0).integers(0, 128, (64, 24))
        logits.append(OnnxEngine(tmp_path / "model.onnx").run(ids_BT, None))
    errors_B = np.abs(logits[1] - logits[0]).max(axis=1) / np.abs(logits[0]).max()
    # Of two tokens that are nearly as significant, float16 may keep the other one.
    assert (errors_B < 0.01).mean() > 0.8
    assert errors_B.max() > 1e-6


def test_tokens_are_pooled_before_any_are_dropped(encoder, tmp_path):
    pooling = TokenPooling(before_layer=1, every=2, how="mean")
    with pytest.raises(ValueError, match="tokens are dropped before those of layer 1 are pooled"):
        write_graph(
            replace(encoder, pooling_of_tokens=pooling), tmp_path / "model.onnx", text_pairs=False
        )


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_openvino_runs_what_onnx_runtime_runs(encoder_factory, tmp_path, kind):
    pytest.importorskip("openvino")
    from fastformers.inference.engines.openvino import OpenVinoEngine

    write_graph(make_variant(encoder_factory, kind), tmp_path / "model.onnx", text_pairs=False)
    engines = [engine(tmp_path / "model.onnx") for engine in (OnnxEngine, OpenVinoEngine)]
    for length in (1, 7, 64):
        ids_BT = np.random.default_rng(0).integers(0, 128, (3, length))
        np.testing.assert_allclose(*(engine.run(ids_BT, None) for engine in engines), atol=1e-4)


def test_a_row_that_is_too_long_fails(encoder, tmp_path):
    pooling = TokenPooling(before_layer=0, every=4, how="mean")
    for variant in (encoder, replace(encoder, pooling_of_tokens=pooling)):
        write_graph(variant, tmp_path / "model.onnx", text_pairs=False)
        with pytest.raises(EngineError):
            OnnxEngine(tmp_path / "model.onnx").run(np.zeros((2, LONGEST + 1), np.int64), None)
