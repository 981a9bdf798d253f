"""What `fastformers compress` shows of a search; compressing itself is tested elsewhere."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from cluster.pricing.prices import HourlyPrice
from jobs import compress

PRICE = HourlyPrice(usd_per_hour=0.36, label="0.36 USD per core-hour", is_estimate=True)


def tried(name, quality, seconds, *, passes=True):
    qualities = (SimpleNamespace(quality=quality),)
    return SimpleNamespace(
        name=name, qualities=qualities, seconds_per_million=seconds, passes=passes
    )


@pytest.fixture
def result():
    candidates = [
        tried("teacher, int8", 0.91, 8000.0),
        tried("4 layers, int8", 0.905, 2000.0),
        tried("5 layers, int8", 0.90, 4000.0),
        tried("2 layers, int8", 0.80, 1000.0, passes=False),
    ]
    return SimpleNamespace(candidates=candidates, chosen=candidates[1])


def test_every_candidate_has_its_price_and_what_became_of_it(result):
    drawn = compress._drawn(result, PRICE)
    assert [one.usd for one in drawn] == pytest.approx([0.8, 0.2, 0.4, 0.1])
    assert [one.verdict for one in drawn] == ["", "chosen", "", "loses too much"]


def test_the_table_goes_from_cheap_to_dear_and_marks_the_frontier(result):
    table = compress._frontier_table(compress._drawn(result, PRICE), "accuracy")
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    lines = [line.split("│")[1:-1] for line in text.getvalue().splitlines() if "int8" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["2 layers, int8", "80.00", "1,000", "8.00", "loses too much, frontier"],
        ["4 layers, int8", "90.50", "2,000", "4.00", "chosen, frontier"],
        ["5 layers, int8", "90.00", "4,000", "2.00", ""],
        ["teacher, int8", "91.00", "8,000", "1.00", "frontier"],
    ]


def test_the_page_lies_beside_the_bundle(result, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    drawn = compress._drawn(result, PRICE)
    path = compress._write_page(drawn, PRICE, tmp_path / "bundle")
    assert path == str(tmp_path / "bundle-search.html")
    page = Path(path).read_text(encoding="utf-8")
    assert "4 recipes for bundle" in page
    assert PRICE.label in page
    monkeypatch.setattr(compress, "can_draw", lambda: False)
    assert compress._write_page(drawn, PRICE, tmp_path / "other") is None
    assert "pip install 'fastformers[report]'" in capsys.readouterr().err
