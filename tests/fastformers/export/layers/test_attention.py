from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from fastformers.export.encoder import RelativePositions
from fastformers.export.graph import write_graph
from fastformers.export.layers import attention
from fastformers.inference.engine import EngineError, OnnxEngine

OFFSETS = np.arange(-64, 65)
WINDOW = np.where(np.abs(OFFSETS) > 5, -np.inf, 0).astype(np.float32)[None]
BIAS = np.random.default_rng(0).standard_normal((2, 129)).astype(np.float32)
TABLE = np.random.default_rng(1).standard_normal((129, 32)).astype(np.float32)
RELATIVE = RelativePositions(rows_O=OFFSETS + 64, keys_RW=TABLE, queries_RW=TABLE[::-1])
FREQUENCIES = np.geomspace(1, 0.01, 8).astype(np.float32)
FIELDS = pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="positions"),
        pytest.param({"bias_HO": BIAS}, id="bias"),
        pytest.param({"relative": RELATIVE}, id="relative"),
        pytest.param({"rotary_frequencies": FREQUENCIES}, id="rotary"),
    ],
)


@pytest.fixture
def write_encoder(encoder_factory, tmp_path):
    """Write an encoder of three layers with some fields changed; its path."""

    def write(*, max_length, **fields):
        encoder = encoder_factory(num_layers=3)
        layers = tuple(replace(layer, **fields) for layer in encoder.layers)
        position_embeddings_PE = None if fields else encoder.position_embeddings_PE
        encoder = replace(
            encoder,
            max_length=max_length,
            layers=layers,
            position_embeddings_PE=position_embeddings_PE,
        )
        write_graph(encoder, tmp_path / "model.onnx", text_pairs=False)
        return tmp_path / "model.onnx"

    return write


def shapes_of(path, prefix):
    weights = onnx.load(path).graph.initializer
    return [list(weight.dims) for weight in weights if weight.name.startswith(prefix)]


def test_layers_share_a_table_of_the_offsets_that_rows_have(write_encoder):
    assert shapes_of(write_encoder(max_length=20, bias_HO=BIAS), "bias") == [[1, 2, 1, 41]]
    # The keys of the first query, of others, and the same for queries; 41 of 129 rows are used.
    path = write_encoder(max_length=20, relative=RELATIVE)
    assert shapes_of(path, "rows") == [[41]] * 2
    assert shapes_of(path, "positions") == [[2, 41, 16]] * 2
    path = write_encoder(max_length=20, rotary_frequencies=FREQUENCIES)
    assert shapes_of(path, "cos") == [[20, 8]]
    assert shapes_of(write_encoder(max_length=20), "places") == [[20, 32]]


def test_a_bias_is_shifted_once_for_all_layers_and_cut_for_the_last(write_encoder):
    nodes = onnx.load(write_encoder(max_length=20, bias_HO=BIAS)).graph.node
    biases = [node.input[3] for node in nodes if node.op_type == "Attention"]
    assert biases[0] == biases[1] != biases[2]
    assert sum(node.op_type == "Expand" for node in nodes) == 1


@pytest.mark.parametrize("sides", [(-1, 1), (-1,), (1,)])
@pytest.mark.parametrize(("max_length", "num_inputs"), [(6, 3), (7, 4)])
def test_a_window_that_no_row_exceeds_is_left_out(write_encoder, max_length, num_inputs, sides):
    bias_HO = np.where(np.isin(np.sign(OFFSETS), sides), WINDOW, 0)
    nodes = onnx.load(write_encoder(max_length=max_length, bias_HO=bias_HO)).graph.node
    attentions = [node for node in nodes if node.op_type == "Attention"]
    assert {len(node.input) for node in attentions} == {num_inputs}


def attention_nodes(path):
    return {node.op_type for node in onnx.load(path).graph.node if "Attention" in node.op_type}


def test_long_rows_and_gpus_attend_in_blocks(write_encoder, encoder_factory, tmp_path):
    assert attention_nodes(write_encoder(max_length=512)) == {"Attention"}
    assert attention_nodes(write_encoder(max_length=513)) == {"MultiHeadAttention"}
    write_graph(encoder_factory(), tmp_path / "gpu.onnx", text_pairs=False, float16=True)
    assert attention_nodes(tmp_path / "gpu.onnx") == {"MultiHeadAttention"}


def heads_of_nodes(path):
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Attention"]
    return [helper.get_node_attr_value(node, "q_num_heads") for node in nodes]


@pytest.mark.parametrize(
    ("num_heads", "nodes"),
    [(2, [2]), (4, [4]), (6, [3, 3]), (9, [3, 3, 3]), (10, [4, 3, 3]), (12, [4, 4, 4])],
)
def test_heads_that_attend_by_content_share_nodes_by_fours(
    encoder_factory, tmp_path, monkeypatch, num_heads, nodes
):
    encoder = encoder_factory(width=4 * num_heads, num_heads=num_heads)
    ids_BT = np.random.default_rng(0).integers(0, 64, (3, 17))
    logits = []
    for name, most in (("fours", 4), ("all", num_heads)):
        monkeypatch.setattr(attention, "_HEADS_OF_NODE", most)
        write_graph(encoder, tmp_path / f"{name}.onnx", text_pairs=False)
        logits.append(OnnxEngine(tmp_path / f"{name}.onnx").run(ids_BT, None))
    # The last layer attends to the states themselves.
    assert heads_of_nodes(tmp_path / "fours.onnx") == nodes
    assert heads_of_nodes(tmp_path / "all.onnx") == [num_heads]
    np.testing.assert_array_equal(*logits)


def test_heads_with_positions_in_their_scores_share_one_node(write_encoder, monkeypatch):
    monkeypatch.setattr(attention, "_HEADS_OF_NODE", 1)
    assert heads_of_nodes(write_encoder(max_length=20)) == [1, 1] * 2
    for fields in ({"bias_HO": BIAS}, {"relative": RELATIVE}, {"rotary_frequencies": FREQUENCIES}):
        assert heads_of_nodes(write_encoder(max_length=20, **fields)) == [2] * 3


@FIELDS
def test_both_kinds_of_attention_give_the_same_logits(write_encoder, fields, monkeypatch):
    ids_BT = np.random.default_rng(0).integers(0, 64, (3, 17))
    whole_BC = OnnxEngine(write_encoder(max_length=20, **fields)).run(ids_BT, None)
    monkeypatch.setattr(attention, "_LONGEST_WHOLE", 0)
    path = write_encoder(max_length=20, **fields)
    assert attention_nodes(path) == {"MultiHeadAttention"}
    np.testing.assert_allclose(OnnxEngine(path).run(ids_BT, None), whole_BC, atol=1e-5)


@FIELDS
def test_a_row_that_is_too_long_fails(write_encoder, fields):
    engine = OnnxEngine(write_encoder(max_length=20, **fields))
    assert np.isfinite(engine.run(np.zeros((2, 20), np.int64), None)).all()
    for length in (21, 22, 50):
        with pytest.raises(EngineError):
            engine.run(np.zeros((2, length), np.int64), None)
