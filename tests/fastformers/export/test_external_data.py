import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fastformers.export.external_data import PAGE_BYTES
from fastformers.export.graph import write_graph
from fastformers.export.int8 import ActivationRange
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.onnx_files import measure_graph_bytes, weights_path
from tests.needs import need_openvino

SHAPE = {"vocabulary": 2000, "num_heads": 4}
IDS = np.random.default_rng(0).integers(0, 2000, (16, 33))
OPEN_AND_SHOW_MAPS = """
import sys
from pathlib import Path
from fastformers.inference.{module} import {engine}
engine = {engine}(Path(sys.argv[1]))
print(Path("/proc/self/maps").read_text())
"""


@pytest.fixture(scope="module", params=["float32", "int8", "float16"])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def graph(precision, encoder_factory, tmp_path_factory):
    """A graph of each precision, whose token embeddings are larger than a page."""
    path = tmp_path_factory.mktemp(precision) / "model.onnx"
    encoder = encoder_factory(**SHAPE)
    names = write_graph(encoder, path, text_pairs=False)
    if precision == "int8":
        ranges = dict.fromkeys(names, ActivationRange(low=-6.0, high=5.0))
        write_graph(encoder, path, text_pairs=False, ranges=ranges)
    elif precision == "float16":
        write_graph(encoder, path, text_pairs=False, float16=True)
    return path


def locations(graph):
    """Location of each initializer in the weights' file, by name; and the other initializers."""
    initializers = onnx.load(graph, load_external_data=False).graph.initializer
    outside = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in initializers
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    return outside, [tensor for tensor in initializers if tensor.name not in outside]


def test_every_large_weight_is_beside_the_onnx_file_on_a_page_of_its_own(graph):
    outside, inside = locations(graph)
    assert "words" in outside
    assert {entries["location"] for entries in outside.values()} == {"model.onnx.data"}
    assert all(0 < len(tensor.raw_data) < PAGE_BYTES for tensor in inside)
    spans = sorted((int(entries["offset"]), int(entries["length"])) for entries in outside.values())
    assert all(offset % PAGE_BYTES == 0 and length >= PAGE_BYTES for offset, length in spans)
    ends = [offset + length for offset, length in spans]
    assert all(
        0 <= start - end < PAGE_BYTES for end, (start, _) in zip(ends, spans[1:], strict=False)
    )
    assert ends[-1] == weights_path(graph).stat().st_size
    assert graph.stat().st_size < 0.3 * measure_graph_bytes(graph)


def test_logits_are_bit_by_bit_those_of_a_single_file(graph, tmp_path):
    onnx.save(onnx.load(graph), tmp_path / "single.onnx")  # `load` reads the weights in
    assert (tmp_path / "single.onnx").stat().st_size > weights_path(graph).stat().st_size / 2
    expected_BC = OnnxEngine(tmp_path / "single.onnx").run(IDS, None)
    assert np.ptp(expected_BC[:, 0]) > 1e-3
    np.testing.assert_array_equal(OnnxEngine(graph).run(IDS, None), expected_BC)


def test_openvinos_logits_are_those_of_a_single_file(graph, tmp_path):
    need_openvino()
    from fastformers.inference.engines.openvino import OpenVinoEngine

    onnx.save(onnx.load(graph), tmp_path / "single.onnx")
    expected_BC = OpenVinoEngine(tmp_path / "single.onnx").run(IDS, None)
    np.testing.assert_array_equal(OpenVinoEngine(graph).run(IDS, None), expected_BC)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("precision", "module", "engine"),
    [
        ("float32", "engine", "OnnxEngine"),
        ("int8", "engine", "OnnxEngine"),
        ("float16", "engine", "OnnxEngine"),
        ("float32", "engines.openvino", "OpenVinoEngine"),
        ("int8", "engines.openvino", "OpenVinoEngine"),  # it copies float16, as float32
    ],
    indirect=["precision"],
)
def test_a_process_maps_the_token_embeddings_rather_than_copies_them(graph, module, engine):
    if module == "engines.openvino":
        need_openvino()
    script = OPEN_AND_SHOW_MAPS.format(module=module, engine=engine)
    run = subprocess.run(
        [sys.executable, "-c", script, graph], capture_output=True, text=True, check=True
    )
    maps = [line.split() for line in run.stdout.splitlines() if line.endswith(".onnx.data")]
    offset, length = (int(locations(graph)[0]["words"][key]) for key in ("offset", "length"))

    def holds_embeddings(addresses, mapped_offset):
        first, last = (int(address, 16) for address in addresses.split("-"))
        start = int(mapped_offset, 16)
        return start <= offset and offset + length <= start + last - first

    assert any(holds_embeddings(entry[0], entry[2]) for entry in maps)


def test_an_open_engine_keeps_the_weights_of_a_graph_that_is_written_again(
    encoder_factory, tmp_path
):
    graph = tmp_path / "model.onnx"
    write_graph(encoder_factory(**SHAPE), graph, text_pairs=False)
    engine = OnnxEngine(graph)
    write_graph(encoder_factory(vocabulary=100), graph, text_pairs=False)
    logits_BC = engine.run(IDS, None)  # the first to touch the token embeddings
    write_graph(encoder_factory(**SHAPE), tmp_path / "again.onnx", text_pairs=False)
    np.testing.assert_array_equal(logits_BC, OnnxEngine(tmp_path / "again.onnx").run(IDS, None))
