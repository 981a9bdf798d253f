"""A quote: what is spent, and what the machines that are there cost for the time that is left."""

from dataclasses import replace

import pytest

from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import choose_price, load_prices
from fastformers.cluster.records.quotes import Quotes
from fastformers.cluster.report.forecasts.quoting import Quoter, price_machines
from fastformers.cluster.scheduling.forecast.time_left import TimeLeft
from fastformers.cluster.scheduling.progress import MachineKind, Progress
from tests.conftest import make_quote, make_session

SMALL, LARGE = MachineKind(instance_type="small"), MachineKind(instance_type="large")
USD_PER_HOUR = {SMALL: 0.36, LARGE: 3.6}
PROGRESS = Progress(
    elapsed_s=100.0,
    predicted_done_s=20.0,
    predicted_left_s=180.0,
    time_left=TimeLeft(seconds=1000.0, low_s=800.0, high_s=1250.0),
    machine_s={SMALL: 100.0, LARGE: 50.0},
    machines={SMALL: 2, LARGE: 1},
    num_actors=8,
)


def usd_of(seconds_by_kind):
    return sum(USD_PER_HOUR[kind] / 3600 * seconds for kind, seconds in seconds_by_kind.items())


def quoter(**changes):
    return Quoter("r1", 1_795_652_356.0, usd_of, **changes)


def test_it_adds_what_is_left_to_what_is_spent():
    quote = quoter().quote(PROGRESS)
    spent, usd_per_s = 0.01 + 0.05, (2 * 0.36 + 3.6) / 3600
    assert quote.usd == pytest.approx(spent + 1000 * usd_per_s)
    assert quote.usd_low == pytest.approx(spent + 800 * usd_per_s)
    assert quote.usd_high == pytest.approx(spent + 1250 * usd_per_s)
    assert quote.hours == pytest.approx(1100 / 3600)
    assert (quote.hours_low, quote.hours_high) == pytest.approx((900 / 3600, 1350 / 3600))
    assert (quote.share, quote.actors, quote.run) == (0.1, 8, "r1")
    assert quote.at == "2026-11-26T00:20:56+00:00"
    assert quote.ends_at == "2026-11-26T00:37:36+00:00"
    assert quote.ends_at_low < quote.ends_at < quote.ends_at_high


def test_machines_that_left_cost_nothing_more():
    left = replace(PROGRESS, machines={SMALL: 2})
    assert quoter().quote(left).usd == pytest.approx(0.06 + 1000 * 2 * 0.36 / 3600)


def test_a_session_that_goes_on_adds_what_was_before_it():
    before = make_session(usd=7.0, wall_s=3600.0)
    progress = replace(PROGRESS, predicted_before_s=200.0)
    own = quoter(earlier=[before, before], quotes=Quotes(history=(make_quote(share=0.5),)))
    quote = own.quote(progress)
    assert quote.share == 220 / 400
    assert quote.usd == pytest.approx(14.0 + quoter().quote(PROGRESS).usd)
    assert quote.hours == pytest.approx(2.0 + 1100 / 3600)
    assert [kept.share for kept in own.quotes.history] == [0.5, 0.55]


@pytest.mark.parametrize(
    "changes",
    [
        {"time_left": None},
        {"machines": {}},
        {"predicted_done_s": 1.8, "predicted_left_s": 198.2},
        {"predicted_done_s": 0.0, "predicted_left_s": 0.0},
        {"time_left": TimeLeft(seconds=0.0, low_s=0.0, high_s=0.0)},
    ],
)
def test_what_cannot_be_said_yet_is_not_said(changes):
    own = quoter()
    assert own.quote(replace(PROGRESS, **changes)) is None
    assert own.quotes.history == ()


def test_it_is_said_from_the_first_hundredth_on_and_kept_once_a_mark():
    own = quoter()
    for done_s in (1.0, 2.0, 2.1, 2.2, 4.1):
        own.quote(replace(PROGRESS, predicted_done_s=done_s, predicted_left_s=200 - done_s))
    assert [quote.share for quote in own.quotes.history] == pytest.approx([0.01, 0.0205])


def test_machines_of_a_kind_cost_what_the_bill_counts_for_them():
    table = load_prices()
    given = choose_price(usd_per_hour=None, instance_type="c7a.4xlarge", num_cores=2, prices=table)
    own = MachinePrices(given=given, table=table)
    on_demand = table["c7a.4xlarge"].usd_per_hour_on_demand
    part, whole = MachineKind(num_cores=4), MachineKind(instance_type="c7a.4xlarge", num_cores=16)
    usd = price_machines(own, {part: 3600.0, whole: 7200.0})
    assert usd == pytest.approx(2.25 * on_demand)
    assert price_machines(own, {}) == 0
