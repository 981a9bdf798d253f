"""Who tokenizes for a machine with GPUs, and what that takes, by hand."""

import math
from dataclasses import replace
from datetime import date

import pytest

from fastformers.cluster.cost.gpu_pace import Helper, choose_helper, plan_pace
from fastformers.cluster.pricing.market import find_market_price
from fastformers.cluster.pricing.prices import load_prices

PRICES = load_prices()
TODAY = date(2026, 11, 24)
L4 = PRICES["g6.xlarge"]  # two cores, of which its GPU's actor has one


def helper_of(price, clock_ghz):
    market_price = find_market_price(price, "on-demand", discount_percent=0.0, today=TODAY)
    return Helper(price=price, market_price=market_price, clock_ghz=clock_ghz)


def test_a_host_whose_gpus_leave_no_core_tokenizes_one_batch_after_the_other():
    full = replace(L4, physical_cores=1)
    pace = plan_pace(100.0, 400.0, full, clock_ghz=2.0, helper=None)
    assert (pace.own_s, pace.alone_s, pace.helper_s) == (math.inf, 100 + 400 / 2, math.inf)
    assert (pace.num_helpers, pace.is_helped(1.0)) == (0.0, False)
    spare = plan_pace(100.0, 400.0, L4, clock_ghz=2.0, helper=None)
    assert (spare.own_s, spare.alone_s) == (200.0, 200.0)


def test_helpers_do_what_the_free_cores_do_not():
    helper = helper_of(replace(PRICES["c7a.4xlarge"], physical_cores=4), 2.5)
    pace = plan_pace(100.0, 400.0, L4, clock_ghz=2.0, helper=helper)
    assert pace.helper_s == 40.0
    assert pace.num_helpers == pytest.approx(200 / 400 * 40 / 100)  # the host does half of it
    usd_per_hour = helper.market_price.usd_per_hour
    break_even = pace.num_helpers * usd_per_hour  # it saves half of the time
    assert pace.is_helped(1.01 * break_even)
    assert not pace.is_helped(0.99 * break_even)
    fast = plan_pace(200.0, 400.0, L4, clock_ghz=2.0, helper=helper)
    assert fast.num_helpers == 0.0


def test_a_type_without_a_clock_or_a_price_helps_nobody():
    near = {
        name: price
        for name, price in PRICES.items()
        if (price.cloud, price.region) == (L4.cloud, L4.region) and not price.is_arm
    }

    def chosen(**changes):
        prices = {name: replace(price, **changes) for name, price in near.items()}
        found = choose_helper(L4, prices, "spot", discount_percent=0.0, today=TODAY)
        return found and found.price.instance_type

    assert chosen() is not None
    assert chosen(clock_ghz=None) is not None  # as its generation has
    assert chosen(clock_ghz=None, cpu_generation=None) is None
    assert chosen(usd_per_hour_spot=None) is None
    assert chosen(region="elsewhere") is None
    assert chosen(gpu_count=1) is None
