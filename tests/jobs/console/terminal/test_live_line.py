"""The line of progress at every width: what matters most stays longest."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.spinner import Spinner

from fastformers.jobs.console.terminal.live_line import ProgressLine, WaitingLine, fit

NUMBERS = (
    *("45%", "ETA 1:23:45", "12,345 rows/s", "0.0123 USD", "3/20 shards"),
    *("1,234,567 rows (11,234/s overall)", "16 actors on 2 nodes (infer 84%, read 9%)"),
)


def lines_of(renderable, width):
    file = io.StringIO()
    console = Console(file=file, width=width, color_system="standard", no_color=False)
    console.print(renderable)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()


def line_at(width, **changes):
    settings = {"what": "scored", "share": 0.45, "numbers": NUMBERS, **changes}
    return lines_of(ProgressLine(**settings), width)


def test_80_columns_have_the_numbers_that_matter_and_a_bar_of_ten_cells():
    (line,) = line_at(80)
    assert re.fullmatch(
        "scored [━╸╺]{10,} 45%, ETA 1:23:45, 12,345 rows/s, 0.0123 USD, 3/20 shards *", line
    )


def test_120_columns_have_more():
    (line,) = line_at(120)
    assert re.match("scored [━╸╺]{10,} 45%", line)
    assert "0.0123 USD, 3/20 shards, 1,234,567 rows (11,234/s overall)" in line


@pytest.mark.parametrize("width", range(12, 200, 7))
def test_a_line_is_one_line_whose_numbers_are_the_first_ones(width):
    (line,) = line_at(width)
    assert cell_len(line) <= width
    shown = line.rstrip().rpartition("━")[2].strip().removeprefix("scored ")
    assert ", ".join(NUMBERS).startswith(shown)
    assert shown.startswith("45%")


def test_a_narrow_terminal_has_numbers_in_place_of_a_bar():
    (line,) = line_at(32)
    assert line.rstrip() == "scored 45%, ETA 1:23:45"


def test_what_a_user_should_know_stands_whole_on_lines_of_its_own():
    remark = "node a: the storage does not answer since 40 s, which is too long for this line"
    first, *others = line_at(40, remarks=[remark, "slow"])
    assert "45%" in first
    assert " ".join("".join(others).split()) == f"{remark}slow".replace("  ", " ")


def test_the_first_number_is_shown_whatever_the_width():
    assert fit(["100%", "ETA 0:10"], 2) == "100%"
    assert fit(["100%", "ETA 0:10"], 14) == "100%, ETA 0:10"


def test_a_wait_is_cut_and_not_wrapped():
    (line,) = lines_of(WaitingLine(spinner=Spinner("dots"), text="starting " * 20), 40)
    assert "starting" in line
    assert cell_len(line.rstrip()) <= 40
