import io

import pytest
from rich.console import Console

from fastformers.benchmark.comparison import Comparison, OperatorBreakdown
from fastformers.benchmark.operator_profile import GemmPeak, OperatorProfile
from fastformers.benchmark.timing import SHAPES, Rates
from fastformers.errors import InputError
from jobs.benchmarks.tables import (
    check_plot,
    describe_breakdown,
    describe_comparisons,
    print_comparison,
    print_report,
    save_plot,
)

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
RATIOS = {
    "engine_over_stock": 3.0,
    "engine_over_openvino": 1.5,
    "engine_of_peak": 0.5,
    "job_over_engine": None,
    "job_over_ray_tuned": 2.25,
    "job_over_pipeline": None,
}


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


def make_report(**changes):
    comparisons = make_comparisons()
    return {
        "cpu_model": "a processor",
        "measured_at": "2026-11-24",
        **describe_comparisons(comparisons, OURS),
        **describe_breakdown(make_breakdown(), comparisons, OURS),
        **RATIOS,
        "not_run": {"job_over_engine": "no corpus", "job_over_pipeline": "exit status 1"},
        "peers": {
            "ray-tuned": {"rows_per_second": 40.0, "rows": 500, "setting": "3 actors [tuned]"}
        },
        "peer_rows": 5000,
        "job_beside_peers_rows_per_second": 90.0,
        "saved_by_scoring_equal_texts_once": 0.125,
        **changes,
    }


def shown(report, comparisons=()):
    text = io.StringIO()
    console = Console(file=text, width=300)
    for comparison in comparisons:
        print_comparison(comparison, make_breakdown().dense_limits(), console)
    print_report(report, console)
    return text.getvalue()


def test_engines_are_held_against_the_best_of_each_other_on_one_thread_and_real_rows():
    found = describe_comparisons(make_comparisons(), OURS)
    assert found["engine_over_stock"] == 3.0
    assert found["engine_over_openvino"] == 1.5  # 800 tokens/s on rows
    assert found["engine_over_openvino_by_case"] == {**dict.fromkeys(CASES, 2.0), "rows": 1.5}
    assert [comparison["num_threads"] for comparison in found["engines"]] == [1, 4]
    assert found["engines"][0]["tokens_per_second"]["rows"] == ROW_RATES
    assert found["engines"][0]["agreement"]["ORT stock int8"] == 0.985


def test_without_rows_a_fixed_shape_counts_and_without_baselines_nothing_does():
    assert describe_comparisons(make_comparisons(rows=False), OURS)["engine_over_openvino"] == 2.0
    assert describe_comparisons([], OURS) == {}
    alone = Rates(by_case={case: {OURS: 5.0} for case in (*CASES, "rows")})
    found = describe_comparisons([Comparison(num_threads=1, rates=alone, agreement={})], OURS)
    assert (found["engine_over_stock"], found["engine_over_openvino"]) == (None, None)


def test_the_share_of_the_peak_is_of_one_text_on_one_thread():
    found = describe_breakdown(make_breakdown(), make_comparisons(), OURS)
    # A token takes 10 / 24,000 s at the peak, and 1 / 1,200 s as measured.
    assert found["engine_of_peak"] == pytest.approx(0.5)
    assert found["whole_model_at_peak_tokens_per_second"] == dict.fromkeys(CASES, 1600.0)
    assert (found["int8_gops"], found["float_gops"]) == (24e-6, 12e-6)
    assert found["operators"]["ours"] == pytest.approx(
        {"MatMul": 0.75, "Gelu": 0.245, "Shape": 5e-3}
    )
    assert found["operators"]["ours_of_peak"] == pytest.approx({"MatMul": 10240 / 24e3 / 3.0})
    assert describe_breakdown(make_breakdown(), [], OURS)["engine_of_peak"] is None
    assert describe_breakdown(make_breakdown(stock=False), [], OURS)["operators"]["stock"] == {}


def test_the_tables_show_what_was_measured_and_why_the_rest_was_not():
    text = shown(make_report(), make_comparisons())
    for words in (
        *("Engines, 1 thread: tokens/s", "Engines, 4 threads: tokens/s", "98.5%", "1,200", "800"),
        *("the whole model's arithmetic at this machine's peak", "1,600"),
        *("Operators, 8x128, one core", "75.0%", "24.5%"),
        *("engine over stock", "3.00", "not run: no corpus", "not run: exit status 1"),
        *("40.0 rows/s: 3 actors [tuned]", "90.0 rows/s on the same 5,000 rows", "saves 12.5%"),
    ):
        assert words in text
    assert "Shape" not in text  # below a hundredth
    assert text.count("the whole model's arithmetic") == 1  # that of one core


def test_what_a_peer_said_is_shown_as_it_is():
    said = "OSError: [/tmp/x]: pip install 'optimum[onnxruntime]'"
    text = shown(make_report(not_run={"job_over_pipeline": said, "job_over_engine": ""}))
    assert f"not run: {said}" in text


def test_a_report_of_nothing_but_reasons():
    ratios = dict.fromkeys(RATIOS)
    text = shown({**ratios, "not_run": dict.fromkeys(ratios, "no corpus")})
    assert text.count("not run: no corpus") == len(RATIOS)


@pytest.mark.parametrize("with_peers", [True, False])
def test_the_plot_is_a_picture(tmp_path, with_peers):
    pytest.importorskip("matplotlib")
    report = make_report() if with_peers else make_report(peers={})
    save_plot(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_has_our_bars_beside_the_others(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    drawn = []
    real = Axes.barh

    def barh(axes, names, widths, **options):
        drawn.append(dict(zip(names, zip(widths, options["color"], strict=True), strict=True)))
        return real(axes, names, widths, **options)

    monkeypatch.setattr(Axes, "barh", barh)
    save_plot(make_report(), tmp_path / "bench.png")
    assert len(drawn) == 2 * (len(CASES) + 1) + 1
    assert {name: width for name, (width, _) in drawn[3].items()} == ROW_RATES
    assert {name: width for name, (width, _) in drawn[-1].items()} == {
        "fastformers": 90.0,
        "ray-tuned": 40.0,
    }
    colors = {name: color for name, (_, color) in drawn[-1].items()}
    assert colors["fastformers"] != colors["ray-tuned"]


def test_a_plot_that_cannot_be_drawn_is_refused_at_once(tmp_path):
    pytest.importorskip("matplotlib")
    check_plot(tmp_path / "bench.png")
    with pytest.raises(InputError, match=r"--plot .*bench\.pgn: give a name that ends in \.png"):
        check_plot(tmp_path / "bench.pgn")
    with pytest.raises(InputError, match=r"--plot .*bench\.png: no such directory"):
        check_plot(tmp_path / "none" / "bench.png")
