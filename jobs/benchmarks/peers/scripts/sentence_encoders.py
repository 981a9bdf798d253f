"""sentence-transformers at what its documentation advises for CPUs ("Speeding up Inference").

Work -> [sentence_encoders] -> embeddings

The same encoder with mean pooling and no head. `openvino`: its OpenVINO backend, static int8 by
`export_static_quantized_openvino_model`, calibrated on the texts themselves where the page takes
SST-2 from the hub. `onnx`: its ONNX backend, dynamic int8 by `export_dynamic_quantized_onnx_model`
in the form that the processor suits (avx512_vnni). Both are made once, as a user would, and not
timed. `encode` sorts the texts by length; a session cannot be sent to its own pool of processes, so
the processes of one thread each are ours.

What would run in another backend, on another provider or in another graph than that is refused.
"""

import os
from pathlib import Path
from typing import Any

from fastformers.jobs.benchmarks.peers.scripts.processes import run_shares
from fastformers.jobs.benchmarks.peers.scripts.work import Work, read_share, refuse, write_share

_BATCH_ROWS = 32  # the default of `encode`
_CALIBRATION_TEXTS = 300  # what the export takes
_OPENVINO_FILE = "openvino_model_qint8_quantized.xml"
_MODULES = ("pyarrow.parquet", "torch", "transformers", "sentence_transformers")


def run_openvino(work: Work) -> dict[str, Any]:
    """The static int8 OpenVINO backend."""
    if not (_directory(work, "openvino") / "openvino" / _OPENVINO_FILE).exists():
        _export_openvino(work)
    clock = run_shares(work, (*_MODULES, "optimum.intel"), encode_openvino)
    setting = f"OpenVINO backend, static int8, {work.num_workers} processes of one thread"
    return clock.answer(setting, ("sentence-transformers", "optimum-intel", "openvino", "nncf"))


def run_onnx(work: Work) -> dict[str, Any]:
    """The dynamic int8 ONNX backend."""
    os.environ["OMP_NUM_THREADS"] = "1"  # a process for each core, so a thread for each
    if not (_directory(work, "onnx") / "onnx" / _onnx_file()).exists():
        _export_onnx(work)
    clock = run_shares(work, (*_MODULES, "optimum.onnxruntime"), encode_onnx)
    setting = f"ONNX int8 backend ({_quantization()}), {work.num_workers} processes of one thread"
    return clock.answer(setting, ("sentence-transformers", "optimum-onnx", "onnxruntime"))


def encode_openvino(work: Work, share: int) -> None:
    """Encode a share of the texts in OpenVINO."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(_directory(work, "openvino")),
        backend="openvino",
        device="cpu",
        model_kwargs={
            "file_name": f"openvino/{_OPENVINO_FILE}",
            # OpenVINO binds its threads to cores, from the first on, and knows no other process:
            # all of them would share one core.
            "ov_config": {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False},
        },
    )
    check_openvino(_graph_of(model))
    _encode(work, share, model)


def encode_onnx(work: Work, share: int) -> None:
    """Encode a share of the texts in ONNX Runtime."""
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = SentenceTransformer(
        str(_directory(work, "onnx")),
        backend="onnx",
        device="cpu",
        model_kwargs={
            "file_name": f"onnx/{_onnx_file()}",
            "provider": "CPUExecutionProvider",
            "session_options": options,
        },
    )
    check_onnx(_graph_of(model), _onnx_file())
    _encode(work, share, model)


def check_openvino(graph: Any) -> None:
    """Refuse what is not an int8 graph in OpenVINO on the CPU, on any core of it."""
    if not type(graph).__module__.startswith("optimum.intel"):
        raise refuse(f"the OpenVINO backend gave a {type(graph).__name__}")
    if not any(node.get_type_name() == "FakeQuantize" for node in graph.model.get_ops()):
        raise refuse("the OpenVINO backend loaded a graph that is not quantized")
    graph.compile()
    compiled = getattr(graph.request, "get_compiled_model", lambda: graph.request)()
    devices = list(compiled.get_property("EXECUTION_DEVICES"))
    if devices != ["CPU"]:
        raise refuse(f"OpenVINO runs on {', '.join(devices)}, not on the CPU")
    if compiled.get_property("ENABLE_CPU_PINNING"):
        raise refuse("OpenVINO binds the threads of all processes to the same cores")


def check_onnx(graph: Any, file_name: str) -> None:
    """Refuse what is not that int8 graph in ONNX Runtime on the CPU."""
    if not type(graph).__module__.startswith("optimum.onnxruntime"):
        raise refuse(f"the ONNX backend gave a {type(graph).__name__}")
    if Path(graph.path).name != file_name:
        raise refuse(f"the ONNX backend loaded {Path(graph.path).name} in place of {file_name}")
    if list(graph.providers) != ["CPUExecutionProvider"]:
        raise refuse(f"ONNX Runtime runs on {', '.join(graph.providers)}")


def _encode(work: Work, share: int, model: Any) -> None:
    model.max_seq_length = work.max_length
    ids, texts = read_share(work, share, work.num_workers)
    embeddings = model.encode(texts, batch_size=_BATCH_ROWS, show_progress_bar=False)
    write_share(work, share, ids, embedding=list(embeddings))


def _graph_of(model: Any) -> Any:
    return model[0].auto_model


def _directory(work: Work, backend: str) -> Path:
    return Path(work.scratch) / f"sentence-transformers-{backend}"


def _export_onnx(work: Work) -> None:
    import sentence_transformers

    directory = str(_directory(work, "onnx"))
    model = sentence_transformers.SentenceTransformer(work.model, backend="onnx", device="cpu")
    model.save_pretrained(directory)
    sentence_transformers.export_dynamic_quantized_onnx_model(model, _quantization(), directory)


def _export_openvino(work: Work) -> None:
    import pyarrow as pa
    import pyarrow.parquet
    import sentence_transformers

    texts = Path(work.scratch) / "calibration-texts"
    texts.mkdir(exist_ok=True)
    sentences = read_share(work)[1]
    sentences = sentences[:: max(1, len(sentences) // _CALIBRATION_TEXTS)]
    pyarrow.parquet.write_table(pa.table({"sentence": sentences}), texts / "train.parquet")
    directory = str(_directory(work, "openvino"))
    model = sentence_transformers.SentenceTransformer(work.model, backend="openvino", device="cpu")
    model.save_pretrained(directory)
    sentence_transformers.export_static_quantized_openvino_model(
        model,
        quantization_config=None,
        model_name_or_path=directory,
        dataset_name=str(texts),
        dataset_config_name="default",
        dataset_split="train",
        column_name="sentence",
    )


def _quantization() -> str:
    """sentence-transformers' name of the int8 form that suits this processor."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    if "avx512_vnni" in flags:
        return "avx512_vnni"
    if "asimd" in flags:
        return "arm64"
    return "avx512" if "avx512f" in flags else "avx2"


def _onnx_file() -> str:
    kind = _quantization()
    return f"model_{'quint8' if kind == 'avx2' else 'qint8'}_{kind}.onnx"
