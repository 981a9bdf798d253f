import re
from dataclasses import replace
from typing import get_args

import pytest

pytest.importorskip("matplotlib", reason="a picture needs the extra `report`")

from fastformers.cluster.report.frontier.plot import render_frontier, save_frontier
from fastformers.figure import FILE_PALETTE
from tests.cluster.report.frontier.test_frontier_points import POINTS


def test_the_picture_names_the_frontier_and_what_shapes_and_colors_mean(tmp_path):
    path = tmp_path / "frontier.svg"
    save_frontier(POINTS, path, metric="accuracy", title="4 recipes for x")
    svg = path.read_text(encoding="utf-8")
    texts = set(re.findall(r">([^<>]+)</text>", svg))
    assert {"4 recipes for x", "accuracy, %", "USD per million rows"} <= texts
    assert {"teacher", "chosen", "loses too much", "95% interval"} <= texts
    assert {"1  2 layers", "2  4 layers", "3  5 layers", "4  teacher, int8"} <= texts
    assert {"1", "2", "3", "4"} <= texts
    assert FILE_PALETTE.series[0] in svg


def test_a_page_gets_it_twice_in_the_colors_of_the_theme():
    drawings = render_frontier(POINTS[:1], metric="accuracy")
    assert drawings.count("<svg") == 2
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)


def test_every_kind_of_model_has_a_color_of_its_own(tmp_path):
    pytest.importorskip("torch", reason="compressing needs the extra `compress`")
    from fastformers.compression.search.candidate import Kind

    path = tmp_path / "frontier.svg"
    kinds = [replace(POINTS[0], kind=kind) for kind in get_args(Kind)]
    save_frontier(kinds, path, metric="accuracy", title="x")
    svg = path.read_text(encoding="utf-8")
    assert sum(color in svg for color in FILE_PALETTE.series) == len(kinds)
