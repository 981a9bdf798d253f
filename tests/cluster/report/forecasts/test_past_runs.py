"""Errors of quotes by moment, and their sums by corpus and type."""

from dataclasses import replace

import pytest

from fastformers.cluster.report.forecasts.past_runs import group_runs, look_back, render_past_runs
from fastformers.jobs.console.output import PlainConsole
from tests.conftest import make_quote


@pytest.fixture
def run_of(make_report):
    def make(*, quoted=1.0, bill=1.1, **changes):
        history = (
            make_quote(share=0.011, usd=quoted, usd_low=0.8, usd_high=1.05, hours=1.0),
            make_quote(share=0.19, usd=1.1, usd_low=1.0, usd_high=1.2, hours=2.0),
            make_quote(share=0.7, usd=1.1, usd_low=1.0, usd_high=1.2, hours=2.0),
        )
        values = {"history": history, "early_quote": None, "usd_total": bill, "wall_s": 7200.0}
        return make_report(**{**values, **changes})

    return make


def test_a_run_has_the_errors_of_its_quotes(run_of):
    past = look_back(run_of())
    assert set(past.errors) == {"first", "10%"}  # the one at 70% says nothing of half a run
    first, later = past.errors["first"], past.errors["10%"]
    assert (first.share, first.usd, first.hours) == pytest.approx((0.011, 0.1, 1.0))
    assert (first.is_within, later.is_within) == (False, True)
    assert later.usd == pytest.approx(0.0)
    assert (past.corpus, past.usd, past.hours) == ("s3://a-bucket/wiki/", 1.1, 2.0)


def test_what_cost_said_is_one_of_them(run_of, make_report):
    early = replace(make_report().early_quote, usd=2.2, usd_low=None, usd_high=None, hours=4.0)
    error = look_back(run_of(history=(), early_quote=early)).errors["cost"]
    assert (error.usd, error.hours, error.is_within) == (-0.5, -0.5, None)


def test_a_run_without_quotes_has_no_past(run_of):
    assert look_back(run_of(history=())) is None


def test_a_machine_of_unknown_type_goes_by_its_processor(run_of):
    report = run_of()
    nodes = tuple(replace(node, instance_type=None) for node in report.nodes)
    assert look_back(replace(report, nodes=nodes)).instance_type == report.driver_cpu
    types = zip(report.nodes, ("c7i", "c7a"), strict=True)
    nodes = tuple(replace(node, instance_type=name) for node, name in types)
    assert look_back(replace(report, nodes=nodes)).instance_type == "c7a + c7i"


def test_groups_are_by_corpus_and_type(run_of):
    bills = (1.1, 0.9, 1.03)
    runs = [look_back(run_of(bill=bill)) for bill in bills]
    other = look_back(run_of(corpus="other"))
    mine, others = sorted(group_runs([*runs, other]), key=lambda group: -group.runs)
    assert (mine.runs, others.runs, others.corpus) == (3, 1, "other")
    first = mine.errors["first"]
    assert (first.runs, first.with_interval, first.within) == (3, 3, 2)
    assert (first.mean, first.mean_size, first.worst) == pytest.approx((0.01, 0.23 / 3, 0.1))


def test_the_table_marks_bills_outside_of_intervals(run_of):
    runs = [look_back(run_of(output="out-1")), look_back(run_of(output="out-2", bill=1.0))]
    console = PlainConsole(width=200)
    with console.capture() as capture:
        console.print(render_past_runs(runs, group_runs(runs)))
    text = capture.get()
    [line] = [line for line in text.splitlines() if "out-1" in line]
    assert "+10.0%*" in line
    assert "+0.0%" in line
    assert "1 of 2" in text
