import re

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
