"""Views show what commands print: means and spreads, what was scaled, what was assumed."""

import pytest

from fastformers.errors import InputError
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
    with pytest.raises(InputError, match="chart: no view has this name; there are frontier"):
        make_view("chart", [])
    with pytest.raises(InputError, match="a-1, a-2, a-3: this view shows one measurement"):
        make_view("table", [SEEDS])


def test_a_number_without_a_format_is_named_with_its_row():
    broken = filed("t", table={"columns": ["", "x"], "rows": [["a", 1.5]]})
    with pytest.raises(InputError, match="t: row 1: a number without a format"):
        make_view("table", [[broken]])
