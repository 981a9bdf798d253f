from datetime import date

import pytest

from fastformers.cluster.pricing.market import find_market_price
from fastformers.cluster.pricing.prices import load_prices

TODAY = date(2026, 11, 24)


def find(name, market="on-demand", *, discount_percent=0.0, today=TODAY):
    price = load_prices()[name]
    return find_market_price(price, market, discount_percent=discount_percent, today=today)


def test_a_discount_is_off_the_list_price_alone():
    assert find("c7i.4xlarge", discount_percent=10).usd_per_hour == pytest.approx(0.714 * 0.9)
    assert find("c7i.4xlarge", "spot", discount_percent=10).usd_per_hour == 0.27846


def test_a_market_without_a_price_has_none():
    assert find("c8i.4xlarge", "spot") is None
    assert find("c8i.4xlarge", "reserved") is None


def test_estimates_and_stale_prices_are_marked():
    aws, azure, gcp = (
        find(name, "spot") for name in ("c7i.4xlarge", "Standard_F16s_v2", "c3-highcpu-22")
    )
    assert (aws.is_estimate, aws.is_stale, aws.as_of) == (True, True, "2025-06-28")
    assert (azure.is_estimate, azure.is_stale) == (False, True)
    assert (gcp.is_estimate, gcp.is_stale) == (False, False)
    assert not find("c7i.4xlarge").is_estimate


def test_a_price_is_stale_after_180_days():
    assert not find("c7i.4xlarge", today=date(2027, 1, 16)).is_stale
    assert find("c7i.4xlarge", today=date(2027, 1, 17)).is_stale
