from pathlib import Path

import pytest

import fastformers
from cluster.cost.model_size import read_model_size
from fastformers.errors import BundleError


def test_weights_of_products_are_counted_and_lookups_are_not(bundle):
    size = read_model_size(bundle.model_path)
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(bundle.model_path).graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    expected = sum(
        tensor.dims[0] * tensor.dims[1]
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.name not in looked_up
    )
    assert size.multiply_adds_per_token == expected > 0
    assert size.width == 32


def test_the_demo_bundle_is_two_layers_of_384():
    size = read_model_size(Path(fastformers.__file__).parent / "demo_bundle/model.onnx")
    layer = 12 * 384**2
    assert size.width == 384
    assert 2 * layer < size.multiply_adds_per_token < 2.3 * layer


@pytest.mark.parametrize("content", [b"", b"this is no ONNX file", b"\x3a\xff\xff\xff\x7f"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx: (cannot be read as ONNX|has no matrix)"):
        read_model_size(path)
