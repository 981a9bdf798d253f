"""Profile the operators of a graph, and measure the peak speed of this machine.

    graph + batch -> [operator_profile] -> share of each operator, arithmetic, GEMM peaks

ONNX Runtime's own profiler gives the time and the shapes of every operator that ran, so the
arithmetic that a graph really does is read from a run: what it skips (a last layer for one token
alone) is not counted. Divided by the measured speed of large matrix products it is the least time
that the graph could take here. This module knows nothing of how graphs are made.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fastformers.clock import time_calls

# Large enough to reach the peak, small enough for the second-level cache; the fastest size counts.
_GEMM_SIZES = (512, 1024, 2048)
_GEMM_S = 0.5


@dataclass(frozen=True, kw_only=True)
class GemmPeak:
    """Speed of large matrix products, in multiplications and additions a second."""

    int8_ops_per_second: float
    float_ops_per_second: float


@dataclass(frozen=True, kw_only=True)
class OperatorProfile:
    """Time and arithmetic of each operator of one graph, in one run on one batch.

    Attributes:
        seconds: Seconds by operator, the most expensive first.
        operations: Multiplications and additions of matrix products by operator: in int8, and in
            float, attention included; operators without any are left out.
    """

    seconds: dict[str, float]
    operations: dict[str, tuple[int, int]]

    def least_seconds(self, peak: GemmPeak) -> float:
        """Seconds that the arithmetic alone would take, all of it at the peak."""
        return sum(self._least_seconds(name, peak) for name in self.operations)

    def of_peak(self, peak: GemmPeak) -> dict[str, float]:
        """Share of each operator's time that its arithmetic would need at the peak, 0-1.

        The rest of its time goes into moving data and into what is no matrix product, such as
        softmax. Operators without arithmetic only move data and are left out.
        """
        return {
            name: self._least_seconds(name, peak) / self.seconds[name] for name in self.operations
        }

    def _least_seconds(self, name: str, peak: GemmPeak) -> float:
        int8, floats = self.operations[name]
        return int8 / peak.int8_ops_per_second + floats / peak.float_ops_per_second

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time by operator, 0-1."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in self.seconds.items()}


def profile_operators(
    model: Path, feed: Mapping[str, NDArray[Any]], *, skip_norm_fusion: bool, repeats: int = 20
) -> OperatorProfile:
    """Run a graph on one thread under ONNX Runtime's profiler.

    Args:
        model: ONNX file.
        feed: Inputs of the graph, by name.
        skip_norm_fusion: Whether Add + LayerNormalization stay separate, as in our engine.
        repeats: Runs that count, after one that warms up; the time is their mean.
    """
    with tempfile.TemporaryDirectory(prefix="fastformers-profile-") as scratch:
        options = _one_thread()
        options.enable_profiling = True
        options.profile_file_prefix = f"{scratch}/profile"
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"] if skip_norm_fusion else [],
        )
        for _ in range(repeats + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summarize_events(events, num_runs=repeats + 1)


def summarize_events(events: Sequence[Mapping[str, Any]], *, num_runs: int) -> OperatorProfile:
    """Sum up the profiler's events of several runs; the first run is left out as the warm-up."""
    kernels = [
        event
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    per_run = len(kernels) // num_runs
    seconds: dict[str, float] = {}
    operations: dict[str, tuple[int, int]] = {}
    for event in kernels[per_run:]:
        name = event["args"]["op_name"]
        seconds[name] = seconds.get(name, 0.0) + event["dur"] / 1e6 / (num_runs - 1)
    for event in kernels[:per_run]:
        name, (int8, floats) = event["args"]["op_name"], _operations(event["args"])
        if int8 or floats:
            before = operations.get(name, (0, 0))
            operations[name] = before[0] + int8, before[1] + floats
    ordered = dict(sorted(seconds.items(), key=lambda entry: -entry[1]))
    return OperatorProfile(seconds=ordered, operations=operations)


def measure_gemm_peak() -> GemmPeak:
    """Speed of large matrix products on one core, with constant weights as in a model."""
    rng = np.random.default_rng(0)
    int8, floats = [], []
    for size in _GEMM_SIZES:
        rows = rng.integers(0, 255, (size, size)).astype(np.uint8)
        weight = rng.integers(-127, 127, (size, size)).astype(np.int8)
        int8.append(_gemm_speed("MatMulInteger", rows, weight))
        floats.append(_gemm_speed("MatMul", rows.astype(np.float32), weight.astype(np.float32)))
    return GemmPeak(int8_ops_per_second=max(int8), float_ops_per_second=max(floats))


def _operations(args: Mapping[str, Any]) -> tuple[int, int]:
    """Multiplications and additions of one operator in int8 and in float."""
    shapes = [next(iter(entry.items())) for entry in args["input_type_shape"]]
    if not shapes or not args["output_type_shape"]:
        return 0, 0
    (kind, first), op = shapes[0], args["op_name"]
    output = next(iter(args["output_type_shape"][0].values()))
    is_int8 = kind in ("uint8", "int8")
    if op in ("MultiHeadAttention", "Attention", "QAttention"):
        batch, queries, _ = first
        width = output[-1]
        second = shapes[1][1]
        takes_keys = len(second) == 3  # else the weights of a projection that is part of it
        keys = second[1] if takes_keys else queries
        attention = 4 * batch * queries * keys * width  # scores, and the weighted sum
        if takes_keys:
            return 0, attention
        projection = 2 * batch * queries * first[-1] * 3 * width
        return (projection, attention) if is_int8 else (0, attention + projection)
    if "MatMul" in op or "Gemm" in op:
        product = 2 * int(np.prod(first)) * output[-1]
        # DynamicQuantizeMatMul takes floats and multiplies in int8.
        return (product, 0) if is_int8 or op.startswith("DynamicQuantize") else (0, product)
    return 0, 0


def _gemm_speed(op: str, rows: NDArray[Any], weight: NDArray[Any]) -> float:
    """Multiplications and additions a second of one product, in the best of its runs."""
    import onnx
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
    result = onnx.TensorProto.INT32 if op == "MatMulInteger" else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, ["rows", "weight"], ["product"])],
        "gemm",
        [helper.make_tensor_value_info("rows", kind, list(rows.shape))],
        [helper.make_tensor_value_info("product", result, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), _one_thread(), providers=["CPUExecutionProvider"]
    )
    times = time_calls(lambda: session.run(None, {"rows": rows}), for_s=_GEMM_S)
    return float(2 * rows.shape[0] * rows.shape[1] * weight.shape[1] / min(times))


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options
