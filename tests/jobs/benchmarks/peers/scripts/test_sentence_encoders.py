"""What would run in another backend, provider or graph is refused."""

import sys
from types import SimpleNamespace

import pytest

from fastformers.jobs.benchmarks.peers.scripts import sentence_encoders
from fastformers.jobs.benchmarks.peers.scripts.sentence_encoders import check_onnx, check_openvino

FILE = "model_qint8_avx512_vnni.onnx"


def made_in(module, **attributes):
    kind = type("Graph", (SimpleNamespace,), {"__module__": module})
    return kind(**attributes)


def openvino_graph(
    *operators, devices=("CPU",), pinned=False, module="optimum.intel.openvino.modeling"
):
    properties = {"EXECUTION_DEVICES": devices, "ENABLE_CPU_PINNING": pinned}
    nodes = [SimpleNamespace(get_type_name=lambda name=name: name) for name in operators]
    return made_in(
        module,
        model=SimpleNamespace(get_ops=lambda: nodes),
        compile=lambda: None,
        request=SimpleNamespace(get_property=properties.__getitem__),
    )


def onnx_graph(
    path=f"/models/{FILE}", providers=("CPUExecutionProvider",), module="optimum.onnxruntime"
):
    return made_in(module, path=path, providers=providers)


def test_the_graphs_that_are_meant_pass():
    check_onnx(onnx_graph(), FILE)
    check_openvino(openvino_graph("MatMul", "FakeQuantize"))


def test_processes_of_openvino_are_not_all_bound_to_the_first_core(monkeypatch):
    """With OpenVINO's default they are, and N of them are as fast as one."""
    openvino = pytest.importorskip("openvino")
    asked = {}
    package = SimpleNamespace(SentenceTransformer=lambda path, **options: asked.update(options))
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    for step in ("check_openvino", "_encode"):
        monkeypatch.setattr(sentence_encoders, step, lambda *given: None)
    monkeypatch.setattr(sentence_encoders, "_graph_of", lambda model: None)
    sentence_encoders.encode_openvino(SimpleNamespace(scratch="s"), 0)
    config = asked["model_kwargs"]["ov_config"]
    number = openvino.opset13.parameter([1], float)
    model = openvino.Model([openvino.opset13.relu(number)], [number])
    compiled = openvino.Core().compile_model(model, "CPU", config)
    assert not compiled.get_property("ENABLE_CPU_PINNING")
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


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
        (openvino_graph("FakeQuantize", pinned=True), "all processes to the same cores"),
    ],
)
def test_another_graph_or_device_of_openvino_is_refused(graph, reason):
    with pytest.raises(SystemExit, match=reason):
        check_openvino(graph)
