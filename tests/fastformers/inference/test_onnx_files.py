import pytest

from fastformers.errors import BundleError
from fastformers.export.graph import write_graph
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.onnx_files import measure_graph_bytes, remove_graph, weights_path

SHAPE = {"vocabulary": 2000, "num_heads": 4}


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_an_engine_refuses_a_graph_without_all_its_weights(encoder_factory, tmp_path, damage):
    graph = tmp_path / "model.onnx"
    write_graph(encoder_factory(**SHAPE), graph, text_pairs=False)
    if damage == "missing":
        weights_path(graph).unlink()
    else:
        weights_path(graph).write_bytes(weights_path(graph).read_bytes()[:4096])
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load it: .*words"):
        OnnxEngine(graph)


def test_weights_are_part_of_a_graphs_size_and_go_with_it(encoder_factory, tmp_path):
    graph = tmp_path / "model.onnx"
    write_graph(encoder_factory(), graph, text_pairs=False)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert measure_graph_bytes(graph) == sum(path.stat().st_size for path in tmp_path.iterdir())
    remove_graph(graph)
    assert list(tmp_path.iterdir()) == []
