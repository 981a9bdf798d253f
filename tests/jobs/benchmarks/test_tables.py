import io
from dataclasses import replace

import pytest
from rich.console import Console

from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES
from fastformers.jobs.benchmarks.tables import print_rates, print_report

LIMITS = {"8x128": 1600.0}


@pytest.fixture
def shown():
    """Print a report, and before it each of its tables of engines, as `bench` does."""

    def show(report, rates=()):
        text = io.StringIO()
        console = Console(file=text, width=300, markup=False)
        for on_threads in rates:
            print_rates(on_threads, LIMITS, console)
        print_report(report, console)
        return text.getvalue()

    return show


def test_the_tables_show_what_was_measured_and_why_the_rest_was_not(bench_report, shown):
    text = shown(bench_report, bench_report.engines.rates)
    for words in (
        *("Engines, 1 thread: tokens/s", "Engines, 4 threads: tokens/s", "98.5%", "1,200", "410"),
        *("the whole model's arithmetic at this machine's peak", "1,600"),
        *("Operators, 8x128, one core", "75.0%", "24.5%", "60%", "87.5%"),
        *("engine over stock", "3.00", "ray-padded-64", "4.00x (3.60-4.00)"),
        *("not run: --peers leaves it out", "3 actors [tuned] (ray 2.50)", "saves 12.5%"),
        *(
            "90.0 (80.0-100.0)",
            "2.25x (2.00-2.50)",
            "62.5",
            "12.5",
            "91.25%",
            "job over best ray data",
        ),
    ):
        assert words in text
    assert "Shape" not in text  # below a hundredth
    assert text.count("the whole model's arithmetic") == 1  # that of one core
    lines = text.splitlines()
    places = [
        next(number for number, line in enumerate(lines) if words in line)
        for words in ("2.25x", "4.00x", "0.01x", "3 actors [tuned]", "job over best ray data")
    ]
    assert places == sorted(places)  # the tuned one first


def test_what_a_baseline_said_is_shown_as_it_is(bench_report, shown):
    assert "not run: OSError: [/tmp/x]: pip install 'a[b]'" in shown(bench_report)


def test_a_report_of_nothing_but_reasons(bench_report, shown):
    parts = ("engines", "operators", "job", "job_baselines")
    text = shown(replace(bench_report, **dict.fromkeys(parts, NotRun(reason="no corpus"))))
    assert text.count("not run: no corpus") == len(bench_report.ratios()) - len(JOB_BASELINES)
    assert "Whole jobs" not in text
