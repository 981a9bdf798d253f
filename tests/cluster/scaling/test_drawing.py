"""The page of a scaling test: whole, escaped, and its plots show what was measured."""

import re

import pytest

pytest.importorskip("matplotlib", reason="the page needs the extra `report`")
pytest.importorskip("jinja2", reason="the page needs the extra `report`")

from fastformers.cluster.scaling.drawing import render_page


def test_the_page_shows_points_laws_simulation_and_driver(make_scale_report):
    page = render_page(make_scale_report())
    assert page.count('role="img"') == 2 * page.count("<figure>") == 4
    assert "<script" not in page
    assert "s3://bucket/&lt;corpus&gt;/" in page
    assert "from scale.json, which has every number" in page
    for shown in ("measured, strong", "measured, weak", "simulated", "Amdahl", "universal law"):
        assert page.count(f">{shown}<") >= 4, shown
    for shown in ("knee", "cheapest"):
        assert f">{shown}<" in page
    assert "8 actors: 7.20 times one" in page
    assert "10,000 in this process" in page


def test_each_color_of_a_plot_is_the_theme_s(make_scale_report):
    page = render_page(make_scale_report())
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)


def test_one_point_and_no_simulation_make_a_page_too(make_scale_report):
    report = make_scale_report()
    page = render_page(
        make_scale_report(
            points=report.points[:1],
            cheapest=report.points[0],
            serial_share=None,
            universal_law=None,
            simulated=(),
        )
    )
    assert "Amdahl" not in page
    assert "1 actor: 1.00 times one" in page


def test_doubts_stand_at_the_top(make_scale_report):
    page = render_page(make_scale_report(is_believed=False))
    assert "Do not believe the simulation" in page.partition("<h2>")[0]
