import csv
import math

import pytest

from fastformers.cluster.pricing.prices import (
    PRICE_TABLE,
    choose_price,
    find_price,
    load_prices,
    usd_of,
    usd_per_million,
)
from fastformers.errors import InputError

ROW = {
    "cloud": "aws",
    "region": "us-east-1",
    "instance_type": "x.large",
    "vcpus": "4",
    "physical_cores": "2",
    "memory_gib": "7.5",
    "gpu_name": "",
    "gpu_count": "0",
    "cpu": "Made-up (x86, 2 vCPU/core)",
    "usd_per_hour_on_demand": "0.2",
    "usd_per_hour_spot": "",
    "as_of": "2026-07-20",
    "source": "a test",
}


@pytest.fixture
def write_table(tmp_path):
    def write(*rows, columns=tuple(ROW)):
        path = tmp_path / "prices.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="module")
def shipped():
    return load_prices()


def test_shipped_table_has_every_type_of_three_clouds(shipped):
    assert len(shipped) == len(PRICE_TABLE.read_text().splitlines()) - 1 > 60
    assert {price.cloud for price in shipped.values()} == {"aws", "azure", "gcp"}
    price = shipped["c7i.4xlarge"]
    assert (price.vcpus, price.physical_cores, price.gpu_name) == (16, 8, None)
    assert (price.usd_per_hour_on_demand, price.usd_per_hour_spot) == (0.714, 0.27846)
    assert shipped["c8i.4xlarge"].usd_per_hour_spot is None
    assert shipped["p5.48xlarge"].gpu_name == "H100-80GB"


def test_physical_cores_are_what_the_cpu_text_says(shipped):
    for price in shipped.values():
        (threads_per_core,) = (number for number in (1, 2) if f"{number} vCPU/core" in price.cpu)
        assert price.physical_cores * threads_per_core == price.vcpus
        if price.gpu_count:  # Azure rents out machines with GPUs without a second thread a core
            assert threads_per_core == (1 if price.cloud == "azure" else 2)


# Series whose virtual CPUs are whole cores, by the clouds' documentation; see cluster/README.md.
WHOLE_CORES = (
    *("c7a.", "c8a.", "m7a.", "c7g.", "c8g."),
    *("Standard_F16als_v6", "Standard_F16as_v6", "Standard_F16als_v7", "Standard_D16pls_v6"),
    *("Standard_NC4as_T4", "Standard_NC8as_T4", "Standard_NC16as_T4", "Standard_NC24ads_A100"),
    *("Standard_NC48ads_A100", "Standard_NC40ads_H100", "Standard_NC80adis_H100"),
    *("t2d-", "t2a-", "c4a-"),
)


def test_only_series_without_a_second_thread_have_a_core_for_each_cpu(shipped):
    for name, price in shipped.items():
        threads = 1 if name.startswith(WHOLE_CORES) else 2
        assert price.vcpus == threads * price.physical_cores, name


def test_a_type_is_arm_where_its_generation_is_and_not_where_none_is_known(shipped, write_table):
    assert shipped["c7g.4xlarge"].is_arm
    assert not shipped["c7i.4xlarge"].is_arm
    assert not load_prices(write_table(ROW))["x.large"].is_arm


def test_a_table_of_the_user_is_read(write_table):
    path = write_table(ROW, ROW | {"instance_type": "y.large", "usd_per_hour_spot": "0.05"})
    prices = load_prices(path)
    assert list(prices) == ["x.large", "y.large"]
    assert prices["x.large"].memory_gib == 7.5
    assert prices["x.large"].usd_per_hour_spot is None
    assert prices["y.large"].usd_per_hour_spot == 0.05


@pytest.mark.parametrize(
    ("column", "text", "what"),
    [
        ("usd_per_hour_on_demand", "0.68 USD", "'0.68 USD' is not a number; write 0.68"),
        ("usd_per_hour_on_demand", "0", "0 is not usable; it must be above 0 and finite"),
        ("usd_per_hour_on_demand", "nan", "nan is not usable; it must be above 0 and finite"),
        ("usd_per_hour_on_demand", "", "is empty; fill it in"),
        ("usd_per_hour_spot", "-0.1", "-0.1 is not usable; it must be above 0 and finite"),
        ("vcpus", "0", "0 is too small; it must be at least 1"),
        ("vcpus", "4.5", "'4.5' is not a whole number; write 16"),
        ("physical_cores", "8", "8 is more than the 4 vcpus; fix it"),
        ("gpu_count", "-1", "-1 is too small; it must be at least 0"),
        ("as_of", "July", "'July' is not a date; write 2026-07-20"),
        ("instance_type", "x.large", "x.large is on line 2 already; keep one of them"),
    ],
)
def test_a_bad_cell_is_named_with_its_place_and_remedy(write_table, column, text, what):
    path = write_table(ROW, ROW | {"instance_type": "y.large"} | {column: text})
    with pytest.raises(InputError) as error:
        load_prices(path)
    assert str(error.value) == f"{path}: line 3, column {column}: {what}"


def test_a_missing_column_is_named(write_table):
    path = write_table(ROW, columns=[name for name in ROW if name != "vcpus"])
    with pytest.raises(InputError, match=r"prices\.csv: line 1: missing column vcpus; the header"):
        load_prices(path)


def test_an_unquoted_comma_is_named(write_table):
    path = write_table(ROW)
    path.write_text(path.read_text().replace("a test", "a, test"))
    with pytest.raises(InputError, match="line 2, column source: more cells than columns; quote"):
        load_prices(path)


def test_a_table_without_rows_or_file_is_refused(write_table, tmp_path):
    with pytest.raises(InputError, match=r"prices\.csv: no rows"):
        load_prices(write_table())
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read as CSV"):
        load_prices(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("c7i.4xlage", "c7i.4xlarge"), ("STANDARD_F16S_V2", "Standard_F16s_v2")],
)
def test_a_misspelled_type_gets_the_closest_first(shipped, typed, meant):
    with pytest.raises(InputError) as error:
        find_price(typed, shipped)
    assert str(error.value).startswith(f"unknown instance type '{typed}'; did you mean {meant}, ")
    assert str(error.value).endswith("? (or give --usd-per-hour)")


def test_a_type_like_no_other_still_gets_the_remedy(shipped):
    message = f"none of the {len(shipped)} known is close .*--usd-per-hour"
    with pytest.raises(InputError, match=message):
        find_price("???", shipped)


def test_an_explicit_price_wins(shipped):
    price = choose_price(usd_per_hour=0.5, instance_type=None, num_cores=2, prices=shipped)
    assert (price.usd_per_hour, price.is_estimate) == (0.5, False)
    assert price.label == "0.5 USD per hour, as given"


def test_an_instance_type_costs_its_on_demand_price(shipped):
    price = choose_price(
        usd_per_hour=None, instance_type="c7i.4xlarge", num_cores=2, prices=shipped
    )
    assert (price.usd_per_hour, price.is_estimate) == (0.714, False)
    assert price.label == "c7i.4xlarge on demand, us-east-1, 2026-07-20"


def test_an_estimate_is_the_median_core_times_cores(write_table):
    prices = load_prices(
        write_table(
            ROW | {"instance_type": "cheap"},  # 0.1 a core
            ROW | {"instance_type": "middle", "physical_cores": "4", "usd_per_hour_on_demand": "1"},
            ROW | {"instance_type": "dear", "usd_per_hour_on_demand": "9"},
            ROW | {"instance_type": "gpu", "usd_per_hour_on_demand": "99", "gpu_count": "1"},
        )
    )
    price = choose_price(usd_per_hour=None, instance_type=None, num_cores=2, prices=prices)
    assert price.usd_per_hour == pytest.approx(0.5)
    assert price.is_estimate
    assert price.label == (
        "estimate: 2 cores at the median 0.250 USD per core-hour of 3 CPU types; "
        "set --instance-type or --usd-per-hour"
    )


@pytest.mark.parametrize("usd_per_hour", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_none_is_refused(shipped, usd_per_hour):
    with pytest.raises(InputError, match="--usd-per-hour must be above 0 and finite"):
        choose_price(usd_per_hour=usd_per_hour, instance_type=None, num_cores=1, prices=shipped)


def test_a_price_and_a_type_together_are_refused(shipped):
    with pytest.raises(InputError, match="both --usd-per-hour and --instance-type"):
        choose_price(usd_per_hour=1.0, instance_type="c7i.4xlarge", num_cores=1, prices=shipped)


def test_no_estimate_without_cores_or_cpu_types(shipped):
    with pytest.raises(ValueError, match="0 cores"):
        choose_price(usd_per_hour=None, instance_type=None, num_cores=0, prices=shipped)
    gpus = {name: price for name, price in shipped.items() if price.gpu_count}
    with pytest.raises(InputError, match="no type without a GPU; give --usd-per-hour"):
        choose_price(usd_per_hour=None, instance_type=None, num_cores=1, prices=gpus)


@pytest.mark.parametrize(
    ("seconds", "usd_per_100_million"),
    [
        (734.35, 4223),
        (209.29, 1204),
        (22.5, 129),
        (9.97, 57),
        (5.68, 33),
        (4.11, 24),
        (3.14, 18),
    ],
)
def test_prices_of_the_papers_table_3_come_out(shipped, seconds, usd_per_100_million):
    """arXiv:2010.13382, Table 3: 3,270 rows of BoolQ on an Azure F16s_v2."""
    usd_per_hour = shipped["Standard_F16s_v2"].usd_per_hour_on_demand
    assert usd_per_hour == 0.677
    usd = usd_of(seconds, usd_per_hour=usd_per_hour)
    assert round(100 * usd_per_million(usd, 3270)) == usd_per_100_million


def test_machines_are_paid_together():
    assert usd_of(1800, usd_per_hour=0.5, num_machines=4) == 1.0
    assert usd_of(0, usd_per_hour=0.5) == 0


@pytest.mark.parametrize(("seconds", "num_machines"), [(-1, 1), (math.nan, 1), (1, 0)])
def test_impossible_times_are_refused(seconds, num_machines):
    with pytest.raises(ValueError, match="cannot price"):
        usd_of(seconds, usd_per_hour=1.0, num_machines=num_machines)


def test_no_rows_have_no_price_per_million():
    with pytest.raises(ValueError, match="at least one row, not 0"):
        usd_per_million(1.0, 0)


def test_every_shipped_price_says_which_commit_it_comes_from(shipped):
    assert all("@" in price.source for price in shipped.values())


def test_optional_columns_are_read(write_table):
    columns = (
        *ROW,
        *("cpu_generation", "clock_ghz", "usd_per_hour_reserved", "spot_as_of", "spot_is_estimate"),
    )
    row = ROW | {"usd_per_hour_spot": "0.1", "cpu_generation": "turin", "clock_ghz": "4.1"}
    row |= {"usd_per_hour_reserved": "0.15", "spot_as_of": "2025-01-31", "spot_is_estimate": "yes"}
    price = load_prices(write_table(row, columns=columns))["x.large"]
    assert (price.cpu_generation, price.clock_ghz) == ("turin", 4.1)
    assert (price.usd_per_hour_reserved, price.spot_as_of) == (0.15, "2025-01-31")
    assert price.spot_is_estimate
    bare = load_prices(write_table(ROW))["x.large"]
    assert (bare.cpu_generation, bare.usd_per_hour_reserved, bare.spot_as_of) == (None, None, None)


def test_another_currency_needs_its_rate_and_is_converted(write_table):
    columns = (*ROW, "currency", "usd_per_unit")
    row = ROW | {"currency": "EUR", "usd_per_unit": "1.25", "usd_per_hour_spot": "0.08"}
    price = load_prices(write_table(row, columns=columns))["x.large"]
    assert price.usd_per_hour_on_demand == pytest.approx(0.25)
    assert price.usd_per_hour_spot == pytest.approx(0.1)
    assert load_prices(write_table(ROW | {"currency": "USD"}, columns=columns))


@pytest.mark.parametrize(
    ("column", "text", "what"),
    [
        ("currency", "EUR", "'EUR' has no known rate; give it in a column usd_per_unit"),
        ("currency", "dollars", "'dollars' is not a currency; write USD"),
        ("usd_per_unit", "2", "2 is not the rate of USD; leave it empty"),
        ("cpu_generation", "zen9", "'zen9' is not known; leave it empty or use skylake"),
        ("clock_ghz", "-1", "-1 is not usable"),
        ("usd_per_hour_reserved", "free", "'free' is not a number"),
        ("spot_is_estimate", "maybe", "'maybe' is neither yes nor no"),
    ],
)
def test_a_bad_optional_cell_is_named(write_table, column, text, what):
    columns = tuple(dict.fromkeys((*ROW, "currency", "usd_per_unit", column)))
    path = write_table(ROW | {column: text}, columns=columns)
    with pytest.raises(InputError) as error:
        load_prices(path)
    assert str(error.value).startswith(f"{path}: line 2, column {column}: {what}")


def test_an_unknown_column_is_named(write_table):
    with pytest.raises(InputError, match="line 1: unknown column usd_per_hour_reseved"):
        load_prices(write_table(ROW, columns=(*ROW, "usd_per_hour_reseved")))
