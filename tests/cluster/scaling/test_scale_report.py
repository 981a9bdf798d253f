"""scale.json comes back as it was written, and is refused where it is not ours."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from fastformers.cluster.scaling.scale_report import ScaleReport
from fastformers.cluster.scaling.summary import find_cheapest, is_efficient
from fastformers.cluster.scaling.tables import (
    describe_share,
    list_points,
    render_scaling,
    say_doubts,
)
from fastformers.errors import InputError

POINT_KEYS = {
    *("kind", "actors", "nodes", "rows_per_second", "rows_per_second_low", "rows_per_second_high"),
    *("job_rows_per_second", "speedup", "efficiency", "usd_per_million"),
}
KEYS = {
    *("format_version", "corpus", "bundle", "bundle_digest", "engine", "rows", "shards"),
    *("cpu_model", "actors_per_node", "cores_per_actor", "repeats", "measured_at", "usd_per_hour"),
    *("price", "points", "serial_share", "universal_law", "cheapest", "checked", "is_believed"),
    *("simulated", "limits", "driver", "inputs"),
}


def test_a_report_comes_back_as_it_was_written(make_scale_report):
    for report in (make_scale_report(), make_scale_report(universal_law=None, serial_share=None)):
        content = json.loads(json.dumps(report.to_json()))
        assert ScaleReport.from_json(content, path="scale.json") == report


def test_the_file_has_the_documented_keys(make_scale_report):
    content = make_scale_report().to_json()
    assert set(content) == KEYS
    for name in ("points", "simulated"):
        assert all(set(point) == POINT_KEYS for point in content[name])
    assert set(content["cheapest"]) == POINT_KEYS
    assert set(content["serial_share"]) == {"value", "low", "high"}
    assert set(content["universal_law"]) == {"sigma", "kappa", "knee"}
    assert {"slots", "shards_per_second", "us_per_shard"} <= set(content["driver"][0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: [], "is not a scaling test of ours"),
        (lambda content: {**content, "format_version": 99}, "another version"),
        (lambda content: {**content, "rows": "many"}, "damaged: rows is of type str"),
        (lambda content: {k: v for k, v in content.items() if k != "points"}, "points is missing"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(make_scale_report, change, reason):
    with pytest.raises(InputError, match=reason) as refused:
        ScaleReport.from_json(change(make_scale_report().to_json()), path="out/scale.json")
    assert str(refused.value).startswith("out/scale.json: ")
    assert "run fastformers scale again" in str(refused.value)


def test_the_cheapest_is_a_strong_point_and_the_smaller_of_equal_ones(make_scale_report):
    points = make_scale_report().points
    assert find_cheapest(points).actors == 4
    equal = [replace(point, usd_per_million=0.1) for point in points]
    assert find_cheapest(equal) == equal[0]
    assert find_cheapest([*points, replace(points[-1], usd_per_million=0.01)]).kind == "strong"


def test_efficiency_is_judged_by_the_last_simulated_point(make_scale_report):
    simulated = make_scale_report().simulated
    assert is_efficient(())
    assert is_efficient(simulated)
    assert not is_efficient([*simulated, replace(simulated[0], efficiency=0.89)])


def test_the_table_marks_the_cheapest_and_shows_what_is_simulated(make_scale_report):
    rows = list_points(make_scale_report())
    assert [row[0] for row in rows] == ["strong"] * 3 + ["weak"] * 2 + ["simulated"] * 3
    assert [row[1] for row in rows if row[-1].endswith("*")] == ["4"]
    assert rows[-1][1:3] == ["1,000", "250"]


def test_doubts_are_said_and_nothing_is_where_there_are_none(make_scale_report):
    report = make_scale_report()
    assert say_doubts(report) == []
    off = replace(report.checked[0], error=-0.08)
    doubts = say_doubts(make_scale_report(is_believed=False, checked=(*report.checked, off)))
    assert len(doubts) == 1
    assert "of 4 actors (strong) it is -8.0% off" in doubts[0]
    (limited,) = say_doubts(make_scale_report(limits="the driver: without it 30.0% more"))
    assert "1,000 actors work less than 90%" in limited
    assert "the driver: without it 30.0% more" in limited
    (few,) = say_doubts(make_scale_report(universal_law=None))
    assert "cannot tell contention from coordination" in few


def test_everything_is_shown_in_a_terminal(make_scale_report):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_scaling(make_scale_report()))
    text = console.export_text()
    for shown in ("1.30%", "50 actors", "5,000", "+2.0%", "0.05 ms", "0.1700 USD/h"):
        assert shown in text


def test_a_law_of_one_turn_is_said_to_have_no_interval(make_scale_report):
    share = replace(make_scale_report().serial_share, low=None, high=None)
    report = make_scale_report(repeats=1, serial_share=share)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_scaling(report))
    assert "1.30% (of one turn, so without an interval)" in console.export_text()
    assert describe_share(report) == "of one turn, so without an interval"
