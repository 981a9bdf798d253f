from dataclasses import replace

import numpy as np
import onnx
import pytest

from fastformers.encoder import RelativePositions
from fastformers.engine import EngineError, OnnxEngine
from fastformers.graph import write_graph

OFFSETS = np.arange(-64, 65)
WINDOW = np.where(np.abs(OFFSETS) > 5, -np.inf, 0).astype(np.float32)[None]
BIAS = np.random.default_rng(0).standard_normal((2, 129)).astype(np.float32)
TABLE = np.random.default_rng(1).standard_normal((129, 32)).astype(np.float32)
RELATIVE = RelativePositions(rows_O=OFFSETS + 64, keys_RW=TABLE, queries_RW=TABLE[::-1])
FREQUENCIES = np.geomspace(1, 0.01, 8).astype(np.float32)


@pytest.fixture
def lay(encoder_factory, tmp_path):
    """Write an encoder of three layers with some fields changed; its path."""

    def write(*, max_length, **fields):
        encoder = encoder_factory(num_layers=3)
        layers = tuple(replace(layer, **fields) for layer in encoder.layers)
        places_PE = None if fields else encoder.places_PE
        encoder = replace(encoder, max_length=max_length, layers=layers, places_PE=places_PE)
        write_graph(encoder, tmp_path / "model.onnx", text_pairs=False)
        return tmp_path / "model.onnx"

    return write


def shapes_of(path, prefix):
    weights = onnx.load(path).graph.initializer
    return [list(weight.dims) for weight in weights if weight.name.startswith(prefix)]


def test_layers_share_a_table_of_the_offsets_that_rows_have(lay):
    assert shapes_of(lay(max_length=20, bias_HO=BIAS), "bias") == [[1, 2, 1, 41]]
    # The keys of the first query, of others, and the same for queries; 41 of 129 rows are used.
    path = lay(max_length=20, relative=RELATIVE)
    assert shapes_of(path, "rows") == [[41]] * 2
    assert shapes_of(path, "positions") == [[2, 41, 16]] * 2
    assert shapes_of(lay(max_length=20, rotary_frequencies=FREQUENCIES), "cos") == [[20, 8]]
    assert shapes_of(lay(max_length=20), "places") == [[20, 32]]


def test_a_bias_is_shifted_once_for_all_layers_and_cut_for_the_last(lay):
    nodes = onnx.load(lay(max_length=20, bias_HO=BIAS)).graph.node
    biases = [node.input[5] for node in nodes if node.op_type == "MultiHeadAttention"]
    assert biases[0] == biases[1] != biases[2]
    assert sum(node.op_type == "Expand" for node in nodes) == 1


@pytest.mark.parametrize(("max_length", "num_inputs"), [(6, 3), (7, 6)])
def test_a_window_that_no_row_exceeds_is_left_out(lay, max_length, num_inputs):
    nodes = onnx.load(lay(max_length=max_length, bias_HO=WINDOW)).graph.node
    attentions = [node for node in nodes if node.op_type == "MultiHeadAttention"]
    assert {len(node.input) for node in attentions} == {num_inputs}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="places"),
        pytest.param({"bias_HO": BIAS}, id="bias"),
        pytest.param({"relative": RELATIVE}, id="relative"),
        pytest.param({"rotary_frequencies": FREQUENCIES}, id="rotary"),
    ],
)
def test_a_row_that_is_too_long_fails(lay, fields):
    engine = OnnxEngine(lay(max_length=20, **fields))
    assert np.isfinite(engine.run(np.zeros((2, 20), np.int64), None)).all()
    for length in (21, 22, 50):
        with pytest.raises(EngineError):
            engine.run(np.zeros((2, length), np.int64), None)
