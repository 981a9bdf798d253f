"""Run a model's weights in the ways that a user could choose instead of a bundle's engine.

    teacher (PyTorch) -> [baselines] -> candidates of the comparison

Each baseline has the form that its own documentation recommends for speed: PyTorch in float32 with
its fused attention; ONNX Runtime's recipe for BERT (its transformers optimizer, then dynamic int8,
per channel); OpenVINO with int8 by NNCF's post-training quantization, and elsewhere the precision
that it chooses, or float32. On real rows each runs in every way of batching that there is. This
module knows nothing of how they are timed.

Shape suffixes: B rows of a batch, T padded tokens, C classes.
"""

import contextlib
import copy
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from fastformers.benchmark.timing import Batch, Candidate, plan_exact, plan_rounded, plan_sorted
from fastformers.errors import InputError
from fastformers.inference.engines.openvino import load_openvino, open_core
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.architectures import architecture_of
from fastformers.models.forward import takes_token_types

_BATCH_ROWS = 32
_CALIBRATION_ROWS = 128

_Run = Callable[[Batch], NDArray[np.float32]]
_Plan = Callable[[TokenizedRows], list[Batch]]


class PyTorchBaseline:
    """The model as it is, in PyTorch and float32."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits (B, C) of a batch."""
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.from_numpy(batch.ids_BT),
                attention_mask=torch.from_numpy(batch.mask_BT),
            ).logits
        logits_BC: NDArray[np.float32] = logits.numpy()
        return logits_BC


class StockBaseline:
    """A graph of `write_stock_graph` in ONNX Runtime, whose defaults stay but for the threads."""

    def __init__(self, path: Path, *, num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._types = {
            entry.name: np.int32 if "int32" in entry.type else np.int64
            for entry in self._session.get_inputs()
        }

    def feed(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Inputs of the graph for a batch, by name."""
        inputs = {
            "input_ids": batch.ids_BT,
            "attention_mask": batch.mask_BT,
            "token_type_ids": np.zeros_like(batch.ids_BT),
        }
        return {name: inputs[name].astype(kind) for name, kind in self._types.items()}

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits (B, C) of a batch."""
        logits_BC: NDArray[np.float32] = self._session.run(None, self.feed(batch))[0]
        return logits_BC


class OpenVinoBaseline:
    """A graph of `write_openvino_graph`, tuned for one batch at a time.

    Args:
        path: The graph.
        num_threads: Threads that compute a batch.
        masked: Whether the graph takes an attention mask.
        precision: "f32" for what is not int8; None for what OpenVINO chooses, which is bfloat16
            where the CPU has it.
    """

    def __init__(
        self, path: Path, *, num_threads: int, masked: bool, precision: str | None = None
    ) -> None:
        self._masked = masked
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_threads}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        compiled = open_core().compile_model(path, "CPU", settings)
        self._request = compiled.create_infer_request()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Logits (B, C) of a batch."""
        feed = _inputs(batch, masked=self._masked)
        logits_BC: NDArray[np.float32] = self._request.infer(feed, share_inputs=True)[0]
        return logits_BC


class _LogitsOf(nn.Module):
    """The model as a function of arrays alone, so that OpenVINO can trace it."""

    def __init__(self, model: PreTrainedModel, *, masked: bool) -> None:
        super().__init__()
        self._model = model
        self._masked = masked

    def forward(self, ids_BT: torch.Tensor, *mask_BT: torch.Tensor) -> torch.Tensor:
        mask = mask_BT[0] if self._masked else None
        logits: torch.Tensor = self._model(input_ids=ids_BT, attention_mask=mask).logits
        return logits


@dataclass(frozen=True, kw_only=True)
class BaselineModels:
    """One model's weights in every form that a baseline needs.

    Attributes:
        model: The PyTorch classifier, in eval mode.
        stock_graph: File of `write_stock_graph`.
        float_graph: The same graph, before it was quantized.
        openvino_exact: File of `write_openvino_graph` without a mask, for rows of one exact length:
            a case that OpenVINO's users seldom have, and in which it is fastest.
        openvino_masked: File of `write_openvino_graph` with a mask, for padded rows.
    """

    model: PreTrainedModel
    stock_graph: Path
    float_graph: Path
    openvino_exact: Path
    openvino_masked: Path


def write_baseline_models(
    model: PreTrainedModel, rows: TokenizedRows, directory: Path
) -> BaselineModels:
    """Export and quantize a model in every form, which takes a minute or two.

    Args:
        model: PyTorch classifier in eval mode.
        rows: Calibration rows are taken from these.
        directory: Directory to write the files to.

    Raises:
        InputError: ONNX Runtime's stock recipe does not fuse the model.
    """
    models = BaselineModels(
        model=model,
        stock_graph=directory / "stock.onnx",
        float_graph=directory / "stock-float.onnx",
        openvino_exact=directory / "openvino-exact.xml",
        openvino_masked=directory / "openvino-masked.xml",
    )
    write_stock_graph(model, models.stock_graph, float_path=models.float_graph)
    write_openvino_graph(model, rows, models.openvino_exact, masked=False)
    write_openvino_graph(model, rows, models.openvino_masked, masked=True)
    return models


def make_baselines(
    models: BaselineModels, *, num_threads: int, max_batch_tokens: int
) -> list[Candidate]:
    """All baselines, each in every way of batching, as candidates of a comparison.

    Args:
        models: The weights in every form.
        num_threads: Threads that compute a batch. PyTorch's are set for the whole process.
        max_batch_tokens: Token budget of batches; four times as much is tried, too.
    """
    torch.set_num_threads(num_threads)
    pytorch = PyTorchBaseline(models.model).run
    stock = StockBaseline(models.stock_graph, num_threads=num_threads).run

    def openvino(precision: str | None) -> tuple[_Run, _Run]:
        return (
            OpenVinoBaseline(
                models.openvino_exact, num_threads=num_threads, masked=False, precision=precision
            ).run,
            OpenVinoBaseline(
                models.openvino_masked, num_threads=num_threads, masked=True, precision=precision
            ).run,
        )

    # What computes batches without padding, and with.
    runs = {
        "PyTorch float32": (pytorch, pytorch),
        "ORT stock int8": (stock, stock),
        "OpenVINO int8": openvino(None),
        "OpenVINO int8 and float32": openvino("f32"),
    }
    ways: dict[str, tuple[bool, _Plan]] = {}  # by name: whether nothing is padded, and the plan
    for budget in (max_batch_tokens, 4 * max_batch_tokens):
        exact, rounded = (
            partial(plan, max_batch_tokens=budget) for plan in (plan_exact, plan_rounded)
        )
        ways[f"exact lengths, {budget} tokens"] = (True, exact)
        ways[f"padded to 16, {budget} tokens"] = (False, rounded)
    ways[f"{_BATCH_ROWS} sorted rows"] = (False, partial(plan_sorted, num_rows=_BATCH_ROWS))
    return [
        Candidate(
            name=f"{name}, {way}",
            run=run_exact if is_exact else run_padded,
            plan=plan,
            fixed_shapes=way == next(iter(ways)),
        )
        for name, (run_exact, run_padded) in runs.items()
        for way, (is_exact, plan) in ways.items()
    ]


def write_stock_graph(
    model: PreTrainedModel, path: Path, *, float_path: Path | None = None
) -> None:
    """Export, fuse and quantize a model as ONNX Runtime documents it for BERT.

    The export is by the older exporter with eager attention: what the newer one writes is not
    recognized by the optimizer of onnxruntime 1.32, which would leave attention unfused.

    Args:
        model: PyTorch classifier in eval mode.
        path: ONNX file to write.
        float_path: ONNX file to write of the fused graph that is not quantized; None without.

    Raises:
        InputError: The optimizer does not fuse the architecture, or layers were pruned to
            different numbers of heads.
    """
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    config = model.config
    architecture = architecture_of(config)
    if architecture.onnxruntime_type is None:
        raise InputError(f"ONNX Runtime's stock recipe does not fuse {config.model_type!r} models")
    layers = architecture.parts_of(architecture.layers(model.base_model))
    num_heads = layers[0].num_heads
    if any(layer.num_heads != num_heads for layer in layers):
        raise InputError(
            "ONNX Runtime's stock recipe does not fuse layers that differ in their numbers of heads"
        )
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if takes_token_types(model) else []
    ids = torch.ones((2, 16), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": ids, "token_type_ids": torch.zeros_like(ids)}
    raw, fused = path.with_suffix(".raw.onnx"), float_path or path.with_suffix(".fused.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated, and tracing warns of shapes
        torch.onnx.export(
            eager,
            tuple(inputs[name] for name in names),
            str(raw),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={n: {0: "batch", 1: "tokens"} for n in names} | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    optimizer = optimize_model(
        str(raw),
        model_type=architecture.onnxruntime_type,
        num_heads=num_heads,
        hidden_size=num_heads * layers[0].head_width,  # that of attention, where heads are pruned
        opt_level=0,
    )
    optimizer.save_model_to_file(str(fused))
    quantize_dynamic(
        fused,
        path,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    raw.unlink()
    if float_path is None:
        fused.unlink()


def write_openvino_graph(
    model: PreTrainedModel, rows: TokenizedRows, path: Path, *, masked: bool
) -> None:
    """Convert a model from PyTorch and quantize it by NNCF, as OpenVINO documents it.

    Args:
        model: PyTorch classifier in eval mode.
        rows: Calibration rows are taken from these, evenly spaced.
        path: XML file to write.
        masked: Whether the graph takes an attention mask.
    """
    openvino = load_openvino()
    import nncf

    nncf.set_log_level(logging.ERROR)
    batches = [_inputs(b, masked=masked) for b in plan_exact(rows, max_batch_tokens=1)]
    batches = batches[:: max(1, len(batches) // _CALIBRATION_ROWS)]
    # NNCF draws progress bars on stdout, which is for our result alone.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of shapes
        graph = openvino.convert_model(
            _LogitsOf(model, masked=masked),
            example_input=tuple(torch.from_numpy(array) for array in batches[0]),
        )
        quantized = nncf.quantize(
            graph,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=_CALIBRATION_ROWS,
        )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def _inputs(batch: Batch, *, masked: bool) -> list[NDArray[np.int64]]:
    return [batch.ids_BT, batch.mask_BT] if masked else [batch.ids_BT]
