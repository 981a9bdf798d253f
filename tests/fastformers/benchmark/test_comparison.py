"""Our engines beside each other and beside the peak; the others are in test_baselines."""

from functools import partial

import pytest

from fastformers.benchmark import comparison
from fastformers.benchmark.comparison import (
    OperatorBreakdown,
    compare_engines,
    our_name,
    profile_engines,
)
from fastformers.benchmark.operator_profile import GemmPeak, OperatorProfile
from fastformers.benchmark.timing import (
    SHAPES,
    Rates,
    measure_rates,
)
from fastformers.inference.autotune import open_right_engines
from fastformers.inference.tokenizer import Tokenizer


def test_without_a_checkpoint_our_engines_are_compared_alone(bundle_factory, tmp_path, make_texts):
    bundle = bundle_factory(tmp_path / "long", max_length=128)
    rows = Tokenizer(
        (bundle.path / "tokenizer.json").read_text(encoding="utf-8"), max_length=128
    ).encode(make_texts(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "measure_rates", partial(measure_rates, shape_s=0.0))
        compared = compare_engines(
            bundle, max_batch_tokens=128, baselines=None, rows=rows, num_threads=1, repeats=1
        )
    ours = {our_name(name) for name in open_right_engines(bundle, "auto", num_threads=1)}
    assert "fastformers onnxruntime" in ours
    assert all(set(rates) == ours for rates in compared.rates.by_case.values())
    assert all(rate > 0 for rates in compared.rates.by_case.values() for rate in rates.values())
    assert compared.agreement == dict.fromkeys(ours, 1.0)


def profile(int8_ops, float_ops):
    return OperatorProfile(seconds={}, operations={"MatMul": (int8_ops, float_ops)})


def test_the_share_of_the_peak_is_the_least_time_over_the_time_it_took():
    cases = {f"{num_rows}x{length}": num_rows * length for num_rows, length in SHAPES}
    breakdown = OperatorBreakdown(
        peak=GemmPeak(int8_ops_per_second=100.0, float_ops_per_second=50.0),
        ours={case: profile(2 * tokens, tokens) for case, tokens in cases.items()},
        stock={case: profile(3 * tokens, tokens) for case, tokens in cases.items()},
    )
    # A token takes 2/100 + 1/50 = 0.04 s at least; at 20 tokens a second it took 0.05 s.
    rates = Rates(by_case={case: {"ours": 20.0} for case in cases})
    assert breakdown.share_of_peak(rates, "ours") == dict.fromkeys(cases, pytest.approx(0.8))
    assert breakdown.dense_limits() == dict.fromkeys(cases, pytest.approx(1 / 0.05))


def test_without_the_stock_graph_there_is_no_limit_of_it():
    peak = GemmPeak(int8_ops_per_second=1.0, float_ops_per_second=1.0)
    assert OperatorBreakdown(peak=peak, ours={}, stock={}).dense_limits() == {}


def test_a_bundle_is_profiled_at_every_fixed_shape(
    small_products, bundle_factory, tmp_path, count_operations, operations_of
):
    bundle = bundle_factory(tmp_path / "long", max_length=128)
    breakdown = profile_engines(bundle, None)
    assert breakdown.stock == {}
    assert {case: count_operations(profile) for case, profile in breakdown.ours.items()} == {
        f"{num_rows}x{length}": (0, sum(operations_of(num_rows, length)))
        for num_rows, length in comparison.SHAPES
    }
