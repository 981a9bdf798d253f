"""Which of an instance type's prices is paid: on demand, reserved or spot, less a discount.

    price table -> [market] -> estimate, cluster plan

Every price says whether it is an estimate and whether it is stale: prices of a cloud change every
few months, spot prices by the hour. This module knows nothing of jobs.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from fastformers.cluster.pricing.prices import InstancePrice

Market = Literal["on-demand", "reserved", "spot"]
STALE_AFTER_DAYS = 180


@dataclass(frozen=True, kw_only=True)
class MarketPrice:
    """What an hour of one machine costs in one market.

    Attributes:
        usd_per_hour: Price after the discount.
        market: How the machine is bought.
        as_of: ISO date of the price.
        is_stale: Whether it is older than `STALE_AFTER_DAYS`.
        is_estimate: Whether it was worked out rather than read from a price list.
    """

    usd_per_hour: float
    market: Market
    as_of: str
    is_stale: bool
    is_estimate: bool


def find_market_price(
    price: InstancePrice, market: Market, *, discount_percent: float, today: date
) -> MarketPrice | None:
    """The type's price in a market, or None where the table has none.

    Args:
        price: A row of the table.
        market: How the machine is bought.
        discount_percent: Percent off the on-demand price only: spot and reserved prices are
            discounts themselves.
        today: The date by which a price is stale or not.
    """
    usd = {
        "on-demand": price.usd_per_hour_on_demand * (1 - discount_percent / 100),
        "reserved": price.usd_per_hour_reserved,
        "spot": price.usd_per_hour_spot,
    }[market]
    if usd is None:
        return None
    as_of = (price.spot_as_of or price.as_of) if market == "spot" else price.as_of
    return MarketPrice(
        usd_per_hour=usd,
        market=market,
        as_of=as_of,
        is_stale=(today - date.fromisoformat(as_of)).days > STALE_AFTER_DAYS,
        is_estimate=market == "spot" and price.spot_is_estimate,
    )
