"""What would run in another backend, provider or graph is refused."""

from types import SimpleNamespace

import pytest

from fastformers.jobs.benchmarks.peers.scripts.sentence_encoders import check_onnx, check_openvino

FILE = "model_qint8_avx512_vnni.onnx"


def made_in(module, **attributes):
    kind = type("Graph", (SimpleNamespace,), {"__module__": module})
    return kind(**attributes)


def openvino_graph(*operators, devices=("CPU",), module="optimum.intel.openvino.modeling"):
    nodes = [SimpleNamespace(get_type_name=lambda name=name: name) for name in operators]
    return made_in(
        module,
        model=SimpleNamespace(get_ops=lambda: nodes),
        compile=lambda: None,
        request=SimpleNamespace(get_property=lambda name: devices),
    )


def onnx_graph(
    path=f"/models/{FILE}", providers=("CPUExecutionProvider",), module="optimum.onnxruntime"
):
    return made_in(module, path=path, providers=providers)


def test_the_graphs_that_are_meant_pass():
    check_onnx(onnx_graph(), FILE)
    check_openvino(openvino_graph("MatMul", "FakeQuantize"))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (onnx_graph(module="transformers.models.bert"), "the ONNX backend gave a Graph"),
        (onnx_graph(path="/models/model.onnx"), f"loaded model.onnx in place of {FILE}"),
        (onnx_graph(providers=("AzureExecutionProvider", "CPUExecutionProvider")), "runs on Azure"),
    ],
)
def test_another_graph_or_provider_of_onnx_runtime_is_refused(graph, reason):
    with pytest.raises(SystemExit, match=reason):
        check_onnx(graph, FILE)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            openvino_graph("FakeQuantize", module="transformers"),
            "the OpenVINO backend gave a Graph",
        ),
        (openvino_graph("MatMul"), "a graph that is not quantized"),
        (openvino_graph("FakeQuantize", devices=("GPU.0",)), "runs on GPU.0, not on the CPU"),
    ],
)
def test_another_graph_or_device_of_openvino_is_refused(graph, reason):
    with pytest.raises(SystemExit, match=reason):
        check_openvino(graph)
