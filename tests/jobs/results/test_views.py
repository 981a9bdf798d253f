"""Views show what commands print: means and spreads, what was scaled, what was assumed."""

import pytest

from fastformers.errors import InputError
from fastformers.jobs.benchmarks.bench_report import BenchReport
from fastformers.jobs.benchmarks.parts import (
    EngineRates,
    EnginesPart,
    NotRun,
    OperatorShares,
    OperatorsPart,
    Ratio,
)
from fastformers.jobs.results.filed import Filed
from fastformers.jobs.results.views import make_view


def filed(name, **content):
    return Filed(name=name, content={"measured": {"title": name.upper()}, **content})


def lines(view, *groups):
    return make_view(view, groups).to_markdown().splitlines()


def compressed(name, teacher, pruned, int8, lost):
    """The last line of a `compress` that pruned in two rounds."""
    stages = {"teacher": teacher, "prune_1": 0.1, "prune_2": pruned, "quantize": int8}
    return filed(
        name,
        stages=[
            {"stage": stage, "quality": quality, "num_rows": 3270}
            for stage, quality in stages.items()
        ],
        drop_points=lost,
        drop_points_interval=[lost - 1, lost + 1],
        metric="accuracy",
        transfer_curve=[
            {"texts": texts, "quality": quality, "low": 0.5, "high": 0.9, "agreement": 0.8}
            for texts, quality in ((0, pruned), (60000, int8))
        ],
    )


SEEDS = [
    compressed("a-1", 0.70, 0.71, 0.69, 1.0),
    compressed("a-2", 0.72, 0.71, 0.71, 1.0),
    compressed("a-3", 0.71, 0.71, 0.67, 4.0),
]


def test_students_of_several_seeds_have_means_and_spreads_and_one_has_its_interval():
    head, _, three, one = lines("students", SEEDS, [compressed("b", 0.5, 0.25, 0.5, 0.0)])
    assert head == "| | rows | seeds | teacher | pruned | int8 | points lost |"
    assert three == (
        "| A-1 | 3,270 | 3 | 71.00 ± 1.00 | 71.00 ± 0.00 | 69.00 ± 2.00 "
        "| **2.00** ± 1.73 (1.00 to 4.00) |"
    )
    assert one.endswith("| 50.00 | 25.00 | 50.00 | **0.00** (95%: -1.00 to 1.00) |")


def test_a_transfer_curve_has_its_interval_or_the_spread_of_its_seeds():
    *_, last = lines("transfer-curve", SEEDS[:1])
    assert last == "| 60,000 | 69.00 | 50.00 to 90.00 | 80.00 |"
    head, _, first, _ = lines("transfer-curve", SEEDS)
    assert "accuracy, 3 seeds" in head
    assert first == "| 0 | 71.00 ± 0.00 | 80.00 ± 0.00 |"


def test_a_ladder_says_which_rows_were_scaled_and_how_sure_they_are():
    common = {"accuracy": None, "rows": 3270, "cumulative": 1.0, "step": 1.0}
    steps = [
        {"name": "PyTorch", "seconds": 2044.0, "timed_rows": 60, "standard_error_s": 12.345}
        | common
        | {"note": "fp32; the paper: 1.00x"},
        {"name": "ours", "seconds": 4.64, "timed_rows": 3270, "standard_error_s": None}
        | common
        | {"cumulative": 440.8, "note": "int8"},
    ]
    head, _, scaled, whole = lines("ladder", [filed("l", steps=steps)])
    assert head.endswith("| step | the paper, cumulative |")
    assert scaled == (
        "| PyTorch, scaled from 60 of 3,270 texts | 2,044.00 ± 12.35 | 1.00x | 1.00x | 1.00x |"
    )
    assert whole == "| ours | 4.64 | 440.80x | 1.00x | |"


def system(source, **changes):
    content = {
        "task": "BoolQ",
        "metric": "accuracy",
        "rows": 100,
        "out_of_the_box": {"quality": 0.75, "timed_rows": 64},
        "bundle": {"quality": 0.74},
        "speedup": 40.26,
        "speedup_range": [38.0, 41.0],
        "speedup_standard_error": 1.25,
        "energy_ratio": 14.0,
        "energy_source": source,
    }
    return filed("s", **{**content, **changes})


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("measured by RAPL", "measured"),
        ("assumed: 3.9 W", "assumed"),
        ("unknown: no RAPL here", "of core-seconds"),
    ],
)
def test_a_row_of_table_4_says_what_was_scaled_and_whether_energy_was_measured(source, shown):
    *_, row = lines("systems", [system(source)])
    assert row == (
        "| S | accuracy | 75.00 | 74.00 | **40.3x** ± 1.2 (38.0 to 41.0, scaled from 64 of 100 "
        f"texts) | 14.0x, {shown} |"
    )


def test_an_error_that_is_small_is_not_shown_as_none():
    *_, row = lines("systems", [system("measured by RAPL", speedup_standard_error=0.03)])
    assert "**40.3x** ± <0.1 (38.0" in row


def test_runs_that_differ_in_more_than_a_seed_are_no_row():
    other = compressed("a-4", 0.7, 0.7, 0.7, 1.0)
    other.content["stages"].pop()
    with pytest.raises(InputError, match=r"a-4: is of accuracy on 3,270 rows after .*, and a-1"):
        make_view("students", [[*SEEDS, other]])


@pytest.mark.parametrize(
    ("view", "content", "reason"),
    [
        ("ladder", {"steps": [{"name": "x", "accuracy": None}]}, "ladder cannot show it: KeyErr"),
        ("systems", {"out_of_the_box": 1, "bundle": 1, "speedup_range": 3}, "systems cannot show"),
        ("table", {"table": {"rows": 1}}, "table cannot show it: KeyError 'columns'"),
        ("picture-of-frontier", {"candidates": [], "metric": "x"}, "picture-of-frontier cannot"),
    ],
)
def test_what_a_view_cannot_show_is_named_in_one_line(view, content, reason):
    with pytest.raises(InputError, match=f"b: {reason}"):
        make_view(view, [[filed("b", **content)]])


def candidate(name, quality, seconds, **changes):
    return {
        "recipe": name,
        "kind": "student",
        "quality": quality,
        "quality_interval": [quality - 0.01, quality + 0.01],
        "drop_points": 1.0,
        "drop_points_interval": [0.0, 2.0],
        "seconds_per_million": seconds,
        "usd_per_million": seconds / 1000,
        "holds": True,
        "is_chosen": False,
        "remarks": [],
        **changes,
    }


def test_a_frontier_is_a_table_and_a_picture_that_is_drawn_anew_when_numbers_change(tmp_path):
    pytest.importorskip("matplotlib")
    found = [candidate("teacher", 0.9, 900.0), candidate("small", 0.89, 100.0, is_chosen=True)]
    search = filed("search", candidates=found, metric="accuracy")
    table = lines("frontier", [search])
    assert "| small | 89.00 (88.0 to 90.0) |" in table[2]
    picture = make_view("picture-of-frontier", [[search]])
    assert picture.to_markdown("r") == (
        "![accuracy over USD per million rows of 2 recipes for SEARCH; small was chosen with "
        "89.00](r/search.svg)\n"
    )
    assert not picture.is_current(tmp_path)
    assert picture.update(tmp_path)
    assert picture.is_current(tmp_path)
    assert not picture.update(tmp_path)
    found[1]["recipe"] = "smaller"
    assert not make_view("picture-of-frontier", [[search]]).is_current(tmp_path)


def test_a_view_that_is_none_or_shows_one_is_refused_by_name():
    with pytest.raises(InputError, match="chart: no view has this name; there are engines, fr"):
        make_view("chart", [])
    with pytest.raises(InputError, match="a-1, a-2, a-3: this view shows one measurement"):
        make_view("table", [SEEDS])


def test_a_number_without_a_format_is_named_with_its_row():
    broken = filed("t", table={"columns": ["", "x"], "rows": [["a", 1.5]]})
    with pytest.raises(InputError, match="t: row 1: a number without a format"):
        make_view("table", [[broken]])


def engines(name, speed):
    """The last line of a `bench --parts engines,operators` on one thread and on two."""
    on_shape = {
        "fastformers onnxruntime": 1000.0,
        "fastformers openvino": 900.0,
        "PyTorch float32, exact lengths, 100 tokens": 100.0,
        "ORT stock int8, exact lengths, 100 tokens": 400.0,
        "OpenVINO int8, exact lengths, 100 tokens": 800.0,
        "OpenVINO int8 and float32, exact lengths, 100 tokens": 500.0,
    }
    on_rows = {engine: speed * rate for engine, rate in on_shape.items()} | {
        "ORT stock int8, 32 sorted rows": speed * 500.0,
        "OpenVINO int8 and float32, 32 sorted rows": speed * 640.0,
    }
    one, two = (
        EngineRates(
            num_threads=threads,
            tokens_per_second={
                case: {engine: threads * rate for engine, rate in found.items()}
                for case, found in {"8x128": on_shape, "rows": on_rows}.items()
            },
            agreement={},
        )
        for threads in (1, 2)
    )
    ratio = Ratio(value=2.0, by_case={"8x128": 2.5, "rows": 2.0})
    shares = OperatorShares(case="8x128", ours={}, ours_of_peak={}, stock={})
    report = BenchReport(
        engine="onnxruntime",
        max_batch_tokens=100,
        precision="int8",
        weights=None,
        corpus="texts",
        cpu_model="a processor",
        cores=1,
        versions={},
        repeats=3,
        measured_at="2026-11-26",
        engines=EnginesPart(over_stock=ratio, over_openvino=ratio, rates=(one, two)),
        operators=OperatorsPart(
            of_peak=Ratio(value=0.5, by_case={"8x128": 0.625}),
            int8_gops=1.0,
            float_gops=1.0,
            whole_model_at_peak_tokens_per_second={},
            operators=shares,
        ),
        job=NotRun(reason="no"),
        job_baselines=NotRun(reason="no"),
    )
    return filed(name, **report.to_json())


def test_each_engine_has_its_fastest_way_of_batching_the_rows_of_each_corpus_on_one_thread():
    head, _, pytorch, stock, openvino, in_float, _, ours, *ratios, peak = lines(
        "engines", [engines("a", 1)], [engines("b", 2)]
    )
    assert head == "| engine | 8 x 128 | A | B |"
    assert pytorch == "| PyTorch float32 | 100 | 100 | 200 |"
    assert stock.endswith("| 400 | 500 | 1,000 |")
    assert openvino.endswith("| 800 | 800 | 1,600 |")
    assert in_float.endswith("in float32) | 500 | 640 | 1,280 |")
    assert ours.endswith("| 1,000 | 1,000 | 2,000 |")
    over_stock, over_openvino, over_float = ratios
    assert over_stock.endswith("| **2.50x** | **2.00x** | **2.00x** |")
    assert over_openvino.endswith("| **1.25x** | **1.25x** | **1.25x** |")
    assert over_float.endswith("| **2.00x** | **1.56x** | **1.56x** |")
    assert peak == "| share of this machine's peak | 62% | | |"


def test_a_bench_without_an_engine_of_the_table_is_named():
    one = engines("a", 1)
    for rates in one.content["engines"]:
        for found in rates["tokens_per_second"].values():
            del found["OpenVINO int8, exact lengths, 100 tokens"]
    with pytest.raises(InputError, match=r"a: engines cannot show it: .*'OpenVINO int8,' at 8x128"):
        make_view("engines", [[one]])
