from types import SimpleNamespace

import pytest

from fastformers.benchmark.comparison import Comparison, OperatorBreakdown
from fastformers.benchmark.operator_profile import GemmPeak, OperatorProfile
from fastformers.benchmark.timing import SHAPES, Rates
from fastformers.jobs.benchmarks import engines
from fastformers.jobs.benchmarks.engines import (
    describe_engines,
    describe_operators,
    measure_engines,
)
from fastformers.jobs.benchmarks.parts import NotRun, Ratio

OURS = "fastformers onnxruntime"
CASES = [f"{num_rows}x{length}" for num_rows, length in SHAPES]
RATES = {
    OURS: 1200.0,
    "fastformers openvino": 1100.0,
    "PyTorch float32": 100.0,
    "ORT stock int8": 400.0,
    "OpenVINO int8, exact lengths, 100 tokens": 600.0,
}
ROW_RATES = {**RATES, "OpenVINO int8, padded to 16, 400 tokens": 800.0}


def make_comparisons(*, rows=True):
    by_case = dict.fromkeys(CASES, RATES) | ({"rows": ROW_RATES} if rows else {})
    slow = {case: dict.fromkeys(rates, 1.0) for case, rates in by_case.items()}
    agreement = {OURS: 1.0, "ORT stock int8": 0.985} if rows else {}
    return [
        Comparison(num_threads=1, rates=Rates(by_case=by_case), agreement=agreement),
        Comparison(num_threads=4, rates=Rates(by_case=slow), agreement=agreement),
    ]


def make_breakdown(*, stock=True):
    def profiles(ops_per_token):
        return {
            f"{num_rows}x{length}": OperatorProfile(
                seconds={"MatMul": 3.0, "Gelu": 0.98, "Shape": 0.02},
                operations={"MatMul": (num_rows * length * ops_per_token, 0)},
            )
            for num_rows, length in SHAPES
        }

    peak = GemmPeak(int8_ops_per_second=24e3, float_ops_per_second=12e3)
    return OperatorBreakdown(peak=peak, ours=profiles(10), stock=profiles(15) if stock else {})


def test_engines_are_held_against_the_best_of_each_other_on_one_thread_and_real_rows():
    part = describe_engines(make_comparisons(), OURS)
    assert part.over_stock == Ratio(value=3.0, by_case=dict.fromkeys([*CASES, "rows"], 3.0))
    # 800 tokens/s on rows
    by_case = {**dict.fromkeys(CASES, 2.0), "rows": 1.5}
    assert part.over_openvino == Ratio(value=1.5, by_case=by_case)
    assert [rates.num_threads for rates in part.rates] == [1, 4]
    assert part.rates[0].tokens_per_second["rows"] == ROW_RATES
    assert part.rates[0].agreement["ORT stock int8"] == 0.985


def test_without_rows_a_fixed_shape_counts():
    part = describe_engines(make_comparisons(rows=False), OURS)
    assert part.over_openvino == Ratio(value=2.0, by_case=dict.fromkeys(CASES, 2.0))


def test_without_the_checkpoint_nothing_can_be_compared():
    alone = Rates(by_case={case: {OURS: 5.0} for case in (*CASES, "rows")})
    part = describe_engines([Comparison(num_threads=1, rates=alone, agreement={})], OURS)
    assert part.over_stock == part.over_openvino == NotRun(reason="no --teacher")


def test_the_share_of_the_peak_is_of_one_text_on_one_thread():
    part = describe_operators(make_breakdown(), make_comparisons(), OURS)
    # A token takes 10 / 24,000 s at the peak, and 1 / 1,200 s as measured.
    assert isinstance(part.of_peak, Ratio)
    assert part.of_peak.value == pytest.approx(0.5)
    assert part.of_peak.by_case == pytest.approx(dict.fromkeys(CASES, 0.5))
    assert part.whole_model_at_peak_tokens_per_second == dict.fromkeys(CASES, 1600.0)
    assert (part.int8_gops, part.float_gops) == (24e-6, 12e-6)
    assert part.operators.ours == pytest.approx({"MatMul": 0.75, "Gelu": 0.245, "Shape": 5e-3})
    assert part.operators.ours_of_peak == pytest.approx({"MatMul": 10240 / 24e3 / 3.0})
    assert part.operators.stock == part.operators.ours


def test_operators_need_neither_engines_nor_the_checkpoint():
    part = describe_operators(make_breakdown(), [], OURS)
    assert part.of_peak == NotRun(reason="--parts leaves engines out")
    part = describe_operators(make_breakdown(stock=False), [], OURS)
    assert (part.operators.stock, part.whole_model_at_peak_tokens_per_second) == ({}, {})


def test_every_comparison_is_shown_before_the_next_is_measured(monkeypatch):
    events = []

    def compare_engines(bundle, *, num_threads, **_):
        events.append(f"measure {num_threads}")
        return Comparison(num_threads=num_threads, rates=Rates(by_case={}), agreement={})

    monkeypatch.setattr(engines, "compare_engines", compare_engines)
    topology = SimpleNamespace(num_usable_cores=4)
    monkeypatch.setattr(engines, "discover_topology", lambda: topology)
    found = measure_engines(
        SimpleNamespace(bundle=None, baselines=None, rows=None),
        max_batch_tokens=1,
        repeats=1,
        on_rates=lambda rates: events.append(f"show {rates.num_threads}"),
    )
    assert events == ["measure 1", "show 1", "measure 4", "show 4"]
    assert [comparison.num_threads for comparison in found] == [1, 4]
