import pytest

from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import choose_price, load_prices

TABLE = load_prices()
ON_DEMAND = TABLE["c7a.4xlarge"].usd_per_hour_on_demand


def prices(*, usd_per_hour=None, instance_type=None):
    given = choose_price(
        usd_per_hour=usd_per_hour, instance_type=instance_type, num_cores=2, prices=TABLE
    )
    return MachinePrices(given=given, table=TABLE)


def test_a_price_that_the_user_gives_is_that_of_every_machine():
    own = prices(usd_per_hour=0.5)
    for instance_type in (None, "c7a.4xlarge", "unheard-of"):
        assert own.price_of(instance_type, num_cores=64).usd_per_hour == 0.5


def test_a_type_that_the_cloud_names_has_its_own_price():
    for own in (prices(), prices(instance_type="c7i.4xlarge")):
        price = own.price_of("c7a.4xlarge", num_cores=16)
        assert (price.usd_per_hour, price.instance_type) == (ON_DEMAND, "c7a.4xlarge")
        assert price.label.startswith("c7a.4xlarge on demand")
        assert price.is_estimate is False


def test_a_machine_of_unknown_type_is_of_the_type_that_the_user_names():
    own = prices(instance_type="c7a.4xlarge")
    for instance_type in (None, "unheard-of"):
        assert own.price_of(instance_type, num_cores=64).usd_per_hour == ON_DEMAND


def test_of_a_machine_the_part_is_paid_for_that_the_run_may_use():
    own = prices(instance_type="c7a.4xlarge")
    for instance_type in (None, "c7a.4xlarge"):
        part = own.price_of(instance_type, num_cores=4)
        assert part.usd_per_hour == pytest.approx(ON_DEMAND / 4)
    assert prices(usd_per_hour=0.5).price_of("c7a.4xlarge", num_cores=4).usd_per_hour == 0.5


def test_an_estimate_is_by_the_cores_of_each_machine():
    own = prices()
    assert own.price_of(None) == own.price_of(None, num_cores=2) == own.given
    four = own.price_of("unheard-of", num_cores=4)
    assert four.usd_per_hour == pytest.approx(2 * own.given.usd_per_hour)
    assert four.is_estimate
    assert "4 cores" in four.label
