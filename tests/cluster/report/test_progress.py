import pytest

from cluster.pricing.machine_prices import MachinePrices
from cluster.pricing.prices import HourlyPrice, load_prices
from cluster.report.progress import RunProgress
from cluster.scheduling.progress import Progress

GIVEN = HourlyPrice(usd_per_hour=36.0, label="as given", is_estimate=False)
PRICES = MachinePrices(given=GIVEN, table={})


def at(elapsed_s, *, rows=0, done_s=0.0, left_s=0.0, done=0, slices_left=0, node_s=None):
    """State of a run at a moment."""
    return Progress(
        elapsed_s=elapsed_s,
        num_done=done,
        num_known=4,
        num_rows=rows,
        num_tokens=0,
        num_errors=0,
        num_retries=0,
        predicted_done_s=done_s,
        predicted_left_s=left_s,
        num_slices_left=slices_left,
        node_s={None: elapsed_s} if node_s is None else node_s,
        num_nodes=1,
        num_actors=2,
    )


def test_the_share_is_that_of_the_predicted_seconds():
    so_far = RunProgress(PRICES)
    assert so_far.add(at(1)) == 0  # nothing is known yet
    assert so_far.add(at(2, done_s=2.0, left_s=6.0)) == 0.25
    assert so_far.add(at(3, done_s=3.0, left_s=3.0)) == 0.5
    assert so_far.add(at(4, done_s=4.0)) == 1.0


def test_rates_are_of_the_last_minute_and_of_the_whole_run():
    so_far = RunProgress(PRICES)
    first = at(10, rows=3000, done=1, slices_left=2)
    so_far.add(first)
    assert so_far.describe(first) == (
        "1/4 shards, 2 slices to read, 3,000 rows, 300 rows/s now, 300 overall, 0.1000 USD so far"
    )
    for second in range(11, 101):
        later = at(second, rows=3000 + 1200 * (second > 40), done=2)
        so_far.add(later)
    assert so_far.describe(later) == (
        "2/4 shards, 4,200 rows, 20 rows/s now, 42 overall, 1.0000 USD so far"
    )


def test_a_run_of_which_no_time_has_passed_has_no_rate():
    so_far = RunProgress(PRICES)
    so_far.add(at(0))
    assert "0 rows/s now, 0 overall, 0.0000 USD" in so_far.describe(at(0))


def test_money_is_of_all_machines_by_their_types():
    table = load_prices()
    estimate = HourlyPrice(usd_per_hour=2.0, label="estimate", is_estimate=True)
    so_far = RunProgress(MachinePrices(given=estimate, table=table))
    hours = {"c7i.4xlarge": 3600.0, "c7a.4xlarge": 7200.0, None: 1800.0, "my-own-type": 1800.0}
    assert so_far.usd_so_far(at(7200, node_s=hours)) == pytest.approx(
        table["c7i.4xlarge"].usd_per_hour_on_demand
        + 2 * table["c7a.4xlarge"].usd_per_hour_on_demand
        + 2.0
    )
