"""First quote, last quote and bill stand beside each other in the terminal and on the page."""

import pytest

from fastformers.cluster.report.forecasts.beside_bill import quotes_beside_bill
from fastformers.cluster.report.page import can_draw, render_page
from tests.cluster.report.shown_bill import show_bill
from tests.conftest import make_early_quote, make_quote

QUOTES = {
    "usd_total": 0.0211,
    "wall_s": 190.0,
    "history": (
        make_quote(share=0.01, usd=0.02, usd_low=0.015, usd_high=0.025),
        make_quote(share=0.5),
        make_quote(share=0.95, usd=0.0205, usd_low=0.0202, usd_high=0.0208),
    ),
}


def test_each_quote_says_how_far_the_bill_is_from_it(make_report):
    early = make_early_quote(usd=0.02, usd_low=None, usd_high=None)
    rows = quotes_beside_bill(make_report(**QUOTES, early_quote=early))
    assert rows == [
        ("cost, c7i.4xlarge", "0.020 USD", "2 min 24 s on 1 machine", "+5.5%"),
        (
            *("first quote, at 1%", "0.020 USD (0.015-0.025)", "3:00 (2:24-3:36)"),
            "+5.5%, within its 90% interval",
        ),
        (
            *("last quote, at 95%", "0.021 USD (0.020-0.021)", "3:00 (2:24-3:36)"),
            "+2.9%, outside its 90% interval",
        ),
        ("bill", "0.021 USD", "3 min 10 s", ""),
    ]


def test_a_range_of_cost_is_shown_and_judged(make_report):
    [row, *_] = quotes_beside_bill(make_report(**QUOTES, early_quote=make_early_quote(usd=0.03)))
    assert row[1:] == (
        *("0.030 USD (0.013-0.026)", "2 min 24 s on 1 machine"),
        "-29.7%, within its range",
    )


def test_one_quote_is_first_and_last(make_report):
    report = make_report(**{**QUOTES, "history": QUOTES["history"][:1]}, early_quote=None)
    assert [row[0] for row in quotes_beside_bill(report)] == ["first quote, at 1%", "bill"]


def test_a_run_without_quotes_has_no_table_of_them(make_report):
    report = make_report(history=(), early_quote=None)
    assert quotes_beside_bill(report) == []
    assert "Quotes" not in show_bill(report)


def test_the_table_is_under_the_bill(make_report):
    lines = show_bill(make_report(**QUOTES)).splitlines()
    [title] = [line for line in lines if line.startswith("Quotes and bill")]
    assert lines.index(title) > max(n for n, line in enumerate(lines) if "saved:" in line)
    assert any("first quote, at 1%" in line and "+5.5%, within" in line for line in lines)


@pytest.mark.skipif(not can_draw(), reason="the page needs the extra `report`")
def test_the_page_has_all_quotes_and_a_picture(make_report):
    page = render_page(make_report(**QUOTES))
    assert "What the run said it would cost" in page
    for text in ("first quote, at 1%", "last quote, at 95%", "+2.9%, outside", "All quotes"):
        assert text in page
    early = render_page(make_report(history=()))
    assert "What the run said it would cost" not in early
    assert "cost, c7i.4xlarge" in early
