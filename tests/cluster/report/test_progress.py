from types import SimpleNamespace

import pytest

from cluster.report import progress as progress_module
from cluster.report.progress import RunProgress
from cluster.scheduling.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    fake = SimpleNamespace(now=50.0)
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(perf_counter=lambda: fake.now))
    return fake


def news(*num_rows, done=0, left_s=0.0, slices_left=0):
    """Shards of these rows are finished, of a predicted second each."""
    return Progress(
        receipts=[SimpleNamespace(num_rows=rows, predicted_s=1.0) for rows in num_rows],
        num_done=done,
        num_known=4,
        predicted_left_s=left_s,
        num_slices_left=slices_left,
    )


def test_the_share_is_that_of_the_predicted_seconds(clock):
    so_far = RunProgress(usd_per_hour=1.0)
    assert so_far.add(news()) == 0  # nothing is known yet
    assert so_far.add(news(10, 10, left_s=6.0)) == 0.25
    assert so_far.add(news(10, left_s=3.0)) == 0.5
    assert so_far.add(news(10)) == 1.0


def test_rates_are_of_the_last_minute_and_of_the_whole_run(clock):
    so_far = RunProgress(usd_per_hour=36.0)
    clock.now += 10
    so_far.add(news(3000, done=1))
    assert so_far.describe(news(done=1, slices_left=2)) == (
        "1/4 shards, 2 slices to read, 3,000 rows, 300 rows/s now, 300 overall, 0.1000 USD so far"
    )
    clock.now += 90
    so_far.add(news(1200, done=2))
    assert so_far.describe(news(done=2)) == (
        "2/4 shards, 4,200 rows, 20 rows/s now, 42 overall, 1.0000 USD so far"
    )
