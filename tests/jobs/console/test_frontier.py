"""What is shown of a search, with made-up candidates."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.installation import how_to_install
from fastformers.jobs import compress
from fastformers.jobs.console import frontier
from fastformers.jobs.console.frontier import FrontierSettings, SearchClock

PRICE = HourlyPrice(usd_per_hour=0.72, label="0.72 USD, as given", is_estimate=False)
SETTINGS = FrontierSettings(price=PRICE, num_cores=2, plot=None)


class Certainty:
    """Right or wrong on each of ten draws, in points."""

    def __init__(self, *, drop, spread):
        self.drop = drop
        self.drop_interval = drop - spread, drop + spread
        self.interval = 0.91 - (drop + spread) / 100, 0.91 - (drop - spread) / 100
        self.is_within_noise_of_teacher = drop <= spread

    def is_within_noise_of(self, other):
        return abs(self.drop - other.drop) < 0.2

    def is_within_noise_of_drop(self, limit):
        return self.drop_interval[0] <= limit <= self.drop_interval[1]


def tried(name, drop, seconds, *, passes=True):
    quality = SimpleNamespace(
        quality=0.91 - drop / 100, metric="accuracy", stage="quantize", num_rows=872
    )
    return SimpleNamespace(
        name=name,
        kind="student",
        quality=quality,
        drop=drop,
        certainty=Certainty(drop=drop, spread=0.3),
        seconds_per_million=seconds,
        passes=passes,
    )


@pytest.fixture
def result(tmp_path):
    candidates = [
        tried("teacher, int8", 0.1, 8000.0),
        tried("4 layers, int8", 0.5, 2000.0),
        tried("5 layers, int8", 0.6, 4000.0),
        tried("2 layers, int8", 1.2, 1000.0, passes=False),
    ]
    left = SimpleNamespace(name="1 layers, int8", predicted_s=7500.0, why="no time", reason="")
    begun = SimpleNamespace(name="3 layers, int8", predicted_s=7500.0, why="stopped", reason="")
    return SimpleNamespace(
        candidates=candidates,
        chosen=tried("4 layers, int8", 0.8, 2000.0),  # on other rows than by which it was chosen
        selected=candidates[1],
        left_out=[left, begun],
        bundle=SimpleNamespace(metric="accuracy", path=tmp_path / "bundle"),
    )


def test_every_candidate_has_its_price_on_this_machine_and_what_became_of_it(result):
    points = frontier.make_points(result, SETTINGS, 1.0)
    assert [one.usd for one in points] == pytest.approx([0.8, 0.2, 0.4, 0.1])
    assert [one.verdict for one in points] == ["", "chosen", "", "loses too much"]
    assert [one.remarks for one in points] == [
        ("within noise of the teacher",),
        (),
        ("within noise of the chosen",),
        ("within noise of the limit",),
    ]


def test_what_was_found_is_shown_and_returned(result, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    settings = FrontierSettings(price=PRICE, num_cores=2, plot=tmp_path / "frontier.svg")
    numbers = frontier.show_frontier(result, settings, 1.0)
    assert numbers["page"] == str(tmp_path / "bundle-search.html")
    page = Path(numbers["page"]).read_text(encoding="utf-8")
    assert "4 recipes for bundle" in page and PRICE.label in page
    assert "4 recipes for bundle" in settings.plot.read_text(encoding="utf-8")
    assert numbers["plot"] == str(settings.plot)
    assert [one["usd_per_million"] for one in numbers["candidates"]][1] == pytest.approx(0.2)
    rows = "on 872 evaluation rows, which chose nothing: accuracy 90.20 (89.90 to 90.50)"
    assert f"The chosen one {rows}" in page
    assert numbers["left_out"][0]["name"] == "1 layers, int8"
    shown = capsys.readouterr().err
    assert "left out: 1 layers, int8: would take about 2 h 5 min, more than --max-hours" in shown
    assert "left out: 3 layers, int8: stopped" in shown

    monkeypatch.setattr(os, "replace", refuse)  # what would have come last
    with pytest.raises(OSError, match="disk"):
        frontier.show_frontier(result, SETTINGS, 1.0)
    assert Path(numbers["page"]).read_text(encoding="utf-8") == page
    monkeypatch.setattr(frontier, "can_draw", lambda: False)
    assert frontier.show_frontier(result, SETTINGS, 1.0)["page"] is None
    assert how_to_install("report") in capsys.readouterr().err


def refuse(*_):
    raise OSError("disk full")


def test_a_line_says_what_the_rows_cannot_tell(result, capsys):
    frontier.show_candidate(result.candidates[3], 1.0)
    assert capsys.readouterr().err == (
        "2 layers, int8: accuracy 89.80 on the 872 rows that choose, points lost 1.20 (0.90 to "
        "1.50), 1,000 core-seconds a million rows, loses too much, within noise of the limit\n"
    )
    assert frontier.describe_certainty(result.candidates[0], 0.2) == (
        "quantize: 0.10 points below the teacher (95% interval -0.20 to 0.40, 872 evaluation rows, "
        "which chose nothing): within noise of the teacher and the limit of 0.2"
    )


def test_the_clock_of_a_search_runs_on(monkeypatch):
    clock = SearchClock()
    assert clock.remarks() == []
    monkeypatch.setattr(frontier.time, "monotonic", lambda: 1000.0)
    told = SimpleNamespace(name="4 layers", num_tried=1, num_expected=6, expected_s=7200.0)
    clock.tell(told)
    monkeypatch.setattr(frontier.time, "monotonic", lambda: 1060.0)
    assert clock.remarks() == ["search: 4 layers; 1 measured, at most 6 to go, ETA 1:59:00"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--plot f.pdf", "--plot f.pdf: give a name that ends in .svg or .png"),
        ("--plot no/f.svg", "--plot no/f.svg: no such directory"),
        ("--usd-per-hour 0", "--usd-per-hour must be above 0"),
        ("--max-hours 0", "--max-hours 0: give more than 0"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_any_work(
    flags, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "fastformers.compression.compress", None)
    (tmp_path / "t").mkdir()
    files = f"--teacher {tmp_path / 't'} --train a.csv --eval b.csv --output {tmp_path / 'o'}"
    search = "--search --max-accuracy-drop 1"
    assert compress.main(f"{files} {search} {flags}".split()) == 2
    assert message in capsys.readouterr().err
