import tempfile

import numpy as np
import pytest

from fastformers.benchmark import operator_profile
from fastformers.benchmark.operator_profile import (
    GemmPeak,
    OperatorProfile,
    measure_gemm_peak,
    profile_operators,
    summarize_events,
)
from fastformers.export.graph import ActivationRange, write_graph

NUM_ROWS, LENGTH = 3, 10
PROJECTIONS = [
    *("layer0.qkv", "layer0.output", "layer0.up", "layer0.down"),
    *("layer1.q", "layer1.output", "layer1.up", "layer1.down"),
]


def profile_of(model, num_rows=NUM_ROWS, length=LENGTH):
    ids_BT = np.random.default_rng(0).integers(0, 128, (num_rows, length))
    return profile_operators(model, {"input_ids": ids_BT}, skip_norm_fusion=True, repeats=2)


@pytest.mark.parametrize("shape", [(3, 10), (1, 64), (7, 1)])
def test_the_operations_of_a_float_graph_are_those_of_its_shapes(
    bundle, shape, count_operations, operations_of
):
    counts = count_operations(profile_of(bundle.model_path, *shape))
    assert counts == (0, sum(operations_of(*shape)))


@pytest.mark.parametrize(
    "span", [ActivationRange(low=-6.0, high=5.0), None], ids=["fixed ranges", "ranges of the batch"]
)
def test_the_projections_of_an_int8_graph_count_as_int8(
    encoder_factory, tmp_path, span, count_operations, operations_of
):
    model = tmp_path / "model.onnx"
    write_graph(encoder_factory(), model, text_pairs=False, ranges=dict.fromkeys(PROJECTIONS, span))
    counts = count_operations(profile_of(model))
    assert counts == operations_of(NUM_ROWS, LENGTH)


def test_every_operator_has_its_share_and_the_profilers_files_are_gone(
    bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    feed = {"input_ids": np.ones((2, 5), np.int64)}
    profile = profile_operators(bundle.model_path, feed, skip_norm_fusion=True, repeats=3)
    assert {"Attention", "LayerNormalization", "MatMul"} <= set(profile.seconds)
    assert sum(profile.shares.values()) == pytest.approx(1)
    assert profile.seconds["MatMul"] > 0
    assert list(profile.seconds.values()) == sorted(profile.seconds.values(), reverse=True)
    assert not list(tmp_path.iterdir())


def kernel(op, microseconds, inputs=(), outputs=()):
    """An event as the profiler of ONNX Runtime 1.22 to 1.32 writes it."""
    return {
        "cat": "Node",
        "pid": 1,
        "tid": 1,
        "dur": microseconds,
        "ts": 0,
        "ph": "X",
        "name": f"{op.lower()}_1_kernel_time",
        "args": {
            "op_name": op,
            "provider": "CPUExecutionProvider",
            "input_type_shape": [{kind: list(shape)} for kind, shape in inputs],
            "output_type_shape": [{kind: list(shape)} for kind, shape in outputs],
        },
    }


def run_of(*microseconds):
    """One run of a small graph."""
    gemm, matmul, add = microseconds
    floats = [("float", (4, 8))]
    return [
        {"cat": "Node", "name": "gemm_1_fence_before", "dur": 999, "args": {"op_name": "Gemm"}},
        kernel("Gemm", gemm, [*floats, ("float", (8, 5))], [("float", (4, 5))]),
        kernel(
            *("MatMulIntegerToFloat", matmul),
            [("uint8", (2, 3, 8)), ("int8", (8, 5))],
            [("float", (2, 3, 5))],
        ),
        kernel("Add", add, [*floats, *floats], floats),
        kernel("Constant", 0, [], [("int64", (1,))]),
        {"cat": "Session", "name": "model_run", "dur": 999, "args": {}},
    ]


def test_times_are_means_without_the_first_run_and_operations_of_one_run():
    start = {"cat": "Session", "name": "model_loading_uri", "dur": 999, "args": {}}
    events = [start, *run_of(900, 900, 900), *run_of(10, 30, 2), *run_of(20, 50, 4)]
    profile = summarize_events(events, num_runs=3)
    assert profile.seconds == {
        "MatMulIntegerToFloat": pytest.approx(40e-6),
        "Gemm": pytest.approx(15e-6),
        "Add": pytest.approx(3e-6),
        "Constant": 0,
    }
    assert list(profile.seconds) == ["MatMulIntegerToFloat", "Gemm", "Add", "Constant"]
    assert profile.shares["Gemm"] == pytest.approx(15 / 58)
    assert profile.operations == {
        "Gemm": (0, 2 * 4 * 8 * 5),
        "MatMulIntegerToFloat": (2 * 6 * 8 * 5, 0),
    }


B, T, Q, W = 2, 7, 1, 8


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "expected"),
    [
        *(
            (
                op,
                [("float", (B, Q, W)), ("float", (B, T, W)), ("float", (B, T, W))],
                [("float", (B, Q, W))],
                (0, 4 * B * Q * T * W),
            )
            for op in ("MultiHeadAttention", "Attention")
        ),
        (  # a pruned layer: queries, keys and values are narrower than the tokens
            "QAttention",
            [("uint8", (B, T, W)), ("int8", (W, 3 * 4)), ("float", (3 * 4,))],
            [("float", (B, T, 4))],
            (2 * B * T * W * 3 * 4, 4 * B * T * T * 4),
        ),
        (  # the contributed operator of that name
            "Attention",
            [("float", (B, T, W)), ("float", (W, 3 * W)), ("float", (3 * W,))],
            [("float", (B, T, W))],
            (0, 2 * B * T * W * 3 * W + 4 * B * T * T * W),
        ),
        (
            "DynamicQuantizeMatMul",
            [("float", (B, T, W)), ("int8", (W, 5)), ("float", (5,))],
            [("float", (B, T, 5))],
            (2 * B * T * W * 5, 0),
        ),
        ("LayerNormalization", [("float", (B, T, W))], [("float", (B, T, W))], (0, 0)),
    ],
)
def test_operations_by_operator(op, inputs, outputs, expected, count_operations):
    events = [kernel(op, 1, inputs, outputs)] * 2
    profile = summarize_events(events, num_runs=2)
    assert count_operations(profile) == expected


def test_the_least_time_is_all_arithmetic_at_its_peak():
    profile = OperatorProfile(
        seconds={"MatMul": 4.0, "Attention": 8.0, "Split": 1.0},
        operations={"MatMul": (200, 25), "Attention": (100, 25)},
    )
    peak = GemmPeak(int8_ops_per_second=100.0, float_ops_per_second=25.0)
    assert profile.least_seconds(peak) == pytest.approx(3 + 2)
    assert profile.of_peak(peak) == {
        "MatMul": pytest.approx(3 / 4),
        "Attention": pytest.approx(2 / 8),
    }


def test_the_peak_is_the_best_of_all_sizes(small_products, monkeypatch):
    peak = measure_gemm_peak()
    assert 0 < peak.int8_ops_per_second < np.inf
    assert 0 < peak.float_ops_per_second < np.inf
    speeds = {("MatMulInteger", 8): 3.0, ("MatMulInteger", 16): 2.0}
    speeds |= {("MatMul", 8): 4.0, ("MatMul", 16): 5.0}
    monkeypatch.setattr(
        operator_profile, "_gemm_speed", lambda op, rows, weight: speeds[op, len(rows)]
    )
    assert measure_gemm_peak() == GemmPeak(int8_ops_per_second=3.0, float_ops_per_second=5.0)
