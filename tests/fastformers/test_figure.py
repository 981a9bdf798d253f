import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fastformers import figure
from fastformers.errors import InputError
from fastformers.figure import FILE_PALETTE, Bar, check_picture, draw_bars, render_svg, save_figure

BARS = [
    Bar(name="ours", value=4.0, label="4 rows/s", color="#112233"),
    Bar(name="theirs", value=1.0, label="1 row/s", color="#445566", hatch="///"),
]


def draw(drawing):
    draw_bars(drawing.subplots(), BARS)


def test_a_module_that_may_draw_loads_no_matplotlib():
    code = (
        "import sys, fastformers.figure, fastformers.ablation.plot; "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_matplotlib_a_picture_is_refused_before_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError):
        check_picture(tmp_path / "a.svg", "--plot")


def test_whether_one_can_draw_is_told_without_loading_anything(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not figure.can_draw()


def test_a_picture_of_no_known_kind_or_place_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--plot .*a\.pgn: give a name that ends in \.svg or"):
        check_picture(tmp_path / "a.pgn", "--plot")
    with pytest.raises(InputError, match=r"--plot .*a\.png: no such directory"):
        check_picture(tmp_path / "none" / "a.png", "--plot")


class TestDrawing:
    @pytest.fixture(autouse=True)
    def _needs_matplotlib(self):
        pytest.importorskip("matplotlib", reason="drawing needs the extra `report`")

    def test_bars_go_from_the_top_down_with_their_labels_as_text(self):
        svg = render_svg(draw, width=300, height=100)
        found = list(ElementTree.fromstring(svg[svg.index("<svg") :]).itertext())
        texts = [text.strip() for text in found if text.strip()]
        assert {"ours", "theirs", "4 rows/s", "1 row/s"} <= set(texts)
        assert 'width="300pt" height="100pt"' in svg
        assert "#112233" in svg
        # The first bar is the upper one; SVG counts from the top.
        assert svg.index("#112233") < svg.index("#445566")

        def check(drawing):
            axes = drawing.subplots()
            draw_bars(axes, BARS)
            upper, lower = (axes.transData.transform((0, place))[1] for place in (0, 1))
            assert upper > lower

        render_svg(check, width=300, height=100)

    def test_a_file_has_its_own_background_and_a_page_none(self):
        assert FILE_PALETTE.background in render_svg(draw, width=300, height=100)
        page = figure.Palette(**{**vars(FILE_PALETTE), "background": "none", "paper": "#000001"})
        assert FILE_PALETTE.background not in render_svg(draw, width=300, height=100, palette=page)

    def test_each_path_gets_the_format_of_its_name(self, tmp_path):
        paths = [tmp_path / "a.png", tmp_path / "a.svg"]
        save_figure(draw, paths, width=300, height=100)
        assert paths[0].read_bytes().startswith(b"\x89PNG")
        assert _png_size(paths[0]) == (600, 200)
        assert paths[1].read_text() == render_svg(draw, width=300, height=100)
        assert sorted(tmp_path.iterdir()) == sorted(paths)

    def test_equal_drawings_give_equal_files(self, tmp_path):
        for name in ("a", "b"):
            paths = [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"]
            save_figure(draw, paths, width=300, height=100)
        for suffix in ("png", "svg"):
            first, second = (tmp_path / f"{name}.{suffix}" for name in ("a", "b"))
            assert first.read_bytes() == second.read_bytes()

    def test_a_drawing_that_fails_leaves_the_file_that_was_there(self, tmp_path):
        path = tmp_path / "a.svg"
        path.write_text("kept")

        def fail(drawing):
            raise ValueError("no numbers")

        with pytest.raises(ValueError, match="no numbers"):
            save_figure(fail, [path], width=300, height=100)
        assert path.read_text() == "kept"


def _png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
