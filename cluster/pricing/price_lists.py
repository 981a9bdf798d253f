"""Read prices of known instance types from a cloud's own price list.

    price list of a region -> [price_lists] -> prices.csv of the user

A price list says what a type costs, but not which cores, processor or GPUs it has: these come from
the table that is refreshed. So only types of that table are looked up, a few requests each. Azure's
list is public; AWS and GCP are read through their own libraries with the user's credentials (extras
`aws` and `gcp`). This module knows nothing of jobs.
"""

import contextlib
import csv
import json
import re
import statistics
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from fastformers.atomic_file import whole_file
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.errors import InputError

AZURE_URL = "https://prices.azure.com/api/retail/prices"
SOURCE_OF_CLOUD = {
    "aws": "AWS Price List Query API and EC2 spot price history",
    "azure": "Azure Retail Prices API",
    "gcp": "Google Cloud Billing Catalog",
}
_HOURS_PER_YEAR = 8760
_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class ListPrice:
    """What a price list says of a type, USD per hour; reserved is for one year, nothing upfront."""

    on_demand: float
    spot: float | None = None
    reserved: float | None = None


def refresh_prices(
    prices: Mapping[str, InstancePrice],
    *,
    cloud: str,
    region: str,
    today: date,
    endpoint: str | None = None,
) -> dict[str, InstancePrice]:
    """The table's types of one cloud, with today's prices of a region.

    Args:
        prices: A table; its hardware is kept, its prices are replaced.
        cloud: "aws", "azure" or "gcp".
        region: Region, by the cloud's own name.
        today: Date of the prices.
        endpoint: URL of the price list; None for the cloud's own.

    Raises:
        InputError: The table has no type of the cloud, or the list cannot be read or has none of
            them in that region.
        ModuleNotFoundError: The cloud's library is not installed.
    """
    types = [price for price in prices.values() if price.cloud == cloud]
    if not types:
        raise InputError(f"--cloud {cloud}: the price table has no type of it; add some (--prices)")
    if cloud == "aws":
        found = _fetch_aws(types, region, endpoint)
    elif cloud == "azure":
        found = _fetch_azure(types, region, endpoint)
    else:
        found = _fetch_gcp(types, region, endpoint)
    if not found:
        raise InputError(f"--region {region}: {cloud} lists none of our {len(types)} types there")
    return {
        price.instance_type: replace(
            price,
            region=region,
            usd_per_hour_on_demand=found[price.instance_type].on_demand,
            usd_per_hour_spot=found[price.instance_type].spot,
            usd_per_hour_reserved=found[price.instance_type].reserved,
            as_of=today.isoformat(),
            spot_as_of=today.isoformat() if found[price.instance_type].spot else None,
            spot_is_estimate=False,
            source=f"{SOURCE_OF_CLOUD[cloud]}, read {today.isoformat()}",
        )
        for price in types
        if price.instance_type in found
    }


def write_prices(path: Path, prices: Mapping[str, InstancePrice]) -> None:
    """Write a price table that `load_prices` reads; the file is complete or absent."""
    with (
        whole_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(InstancePrice)])
        writer.writeheader()
        for price in prices.values():
            row = {k: "" if v is None else v for k, v in asdict(price).items()}
            writer.writerow({**row, "spot_is_estimate": "yes" if price.spot_is_estimate else "no"})


def _fetch_azure(
    types: list[InstancePrice], region: str, endpoint: str | None
) -> dict[str, ListPrice]:
    """Azure Retail Prices API: learn.microsoft.com/rest/api/cost-management/retail-prices."""
    found: dict[str, ListPrice] = {}
    for price in types:
        query = (
            "serviceName eq 'Virtual Machines' and "
            f"armRegionName eq '{region}' and armSkuName eq '{price.instance_type}'"
        )
        url = f"{endpoint or AZURE_URL}?{urllib.parse.urlencode({'$filter': query})}"
        on_demand = spot = reserved = None
        for item in _azure_items(url):
            name = f"{item.get('productName', '')} {item.get('skuName', '')}"
            usd = float(item["retailPrice"])
            if usd <= 0 or re.search(r"Windows|Low Priority|CloudServices", name):
                continue
            if item["type"] == "Reservation" and item.get("reservationTerm") == "1 Year":
                reserved = usd / _HOURS_PER_YEAR
            elif item["type"] == "Consumption" and "Spot" in name:
                spot = usd
            elif item["type"] == "Consumption":
                on_demand = usd
        if on_demand is not None:
            found[price.instance_type] = ListPrice(
                on_demand=on_demand, spot=spot, reserved=reserved
            )
    return found


def _azure_items(url: str) -> Iterator[dict[str, Any]]:
    """Items of all pages of an answer."""
    next_url: str | None = url
    while next_url:
        try:
            with urllib.request.urlopen(next_url, timeout=_TIMEOUT_S) as response:
                page = json.load(response)
            yield from page["Items"]
            next_url = page.get("NextPageLink")
        except urllib.error.HTTPError as error:
            error.close()
            raise _unreachable("azure", next_url.partition("?")[0], str(error)) from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise _unreachable("azure", next_url.partition("?")[0], str(reason)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise _unreachable(
                "azure", next_url.partition("?")[0], f"an answer we cannot read: {error!r}"
            ) from error


def _fetch_aws(
    types: list[InstancePrice], region: str, endpoint: str | None
) -> dict[str, ListPrice]:
    """AWS Price List Query API, and EC2's history for spot."""
    import boto3
    import botocore.exceptions

    found: dict[str, ListPrice] = {}
    try:
        # The price list is served from few regions and holds all of them.
        with (
            contextlib.closing(
                boto3.client("pricing", region_name="us-east-1", endpoint_url=endpoint)
            ) as pricing,
            contextlib.closing(
                boto3.client("ec2", region_name=region, endpoint_url=endpoint)
            ) as ec2,
        ):
            _add_aws(found, types, region, pricing, ec2)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise _unreachable("aws", endpoint or "pricing", str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unreachable(
            "aws", endpoint or "pricing", f"an answer we cannot read: {error!r}"
        ) from error
    return found


def _add_aws(
    found: dict[str, ListPrice], types: list[InstancePrice], region: str, pricing: Any, ec2: Any
) -> None:
    for price in types:
        on_demand, reserved = _aws_listed(pricing, price.instance_type, region)
        if on_demand is not None:
            spot = _aws_spot(ec2, price.instance_type)
            found[price.instance_type] = ListPrice(
                on_demand=on_demand, spot=spot, reserved=reserved
            )


def _aws_listed(pricing: Any, instance_type: str, region: str) -> tuple[float | None, float | None]:
    """On-demand price, and the price reserved for a year with nothing upfront."""
    wanted = {
        "instanceType": instance_type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonEC2",
        Filters=[{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in wanted.items()],
    )
    on_demand = reserved = None
    for page in pages:
        for text in page["PriceList"]:
            terms = json.loads(text)["terms"]
            for term in terms.get("OnDemand", {}).values():
                on_demand = _aws_hourly(term) or on_demand
            for term in terms.get("Reserved", {}).values():
                bought = term["termAttributes"]
                if (
                    bought["LeaseContractLength"] == "1yr"
                    and bought["PurchaseOption"] == "No Upfront"
                    and bought["OfferingClass"] == "standard"
                ):
                    reserved = _aws_hourly(term) or reserved
    return on_demand, reserved


def _aws_hourly(term: dict[str, Any]) -> float | None:
    for dimension in term["priceDimensions"].values():
        if dimension["unit"] == "Hrs" and float(dimension["pricePerUnit"]["USD"]) > 0:
            return float(dimension["pricePerUnit"]["USD"])
    return None


def _aws_spot(ec2: Any, instance_type: str) -> float | None:
    """Median over zones of the newest price of each."""
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=[instance_type],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=date.today().isoformat(),
    )
    newest: dict[str, tuple[Any, float]] = {}
    for page in pages:
        for entry in page["SpotPriceHistory"]:
            zone, when = entry["AvailabilityZone"], entry["Timestamp"]
            if zone not in newest or when > newest[zone][0]:
                newest[zone] = (when, float(entry["SpotPrice"]))
    return statistics.median(usd for _, usd in newest.values()) if newest else None


_GCP_COMPUTE = "services/6F81-5844-456A"
_GCP_SKU = re.compile(
    r"^(?:Spot Preemptible )?(?P<family>[A-Z]\w+)(?: AMD| Arm)?(?: Predefined)? Instance "
    r"(?P<part>Core|Ram) running in "
)
_GCP_GPU_SKU = re.compile(
    r"^(?:Nvidia|NVIDIA) (?:Tesla )?(?P<gpu>T4|L4|A100 80GB|A100|H100 80GB) GPU "
)
_GCP_GPUS = {"A100-40GB": "A100", "A100-80GB": "A100 80GB", "H100-80GB": "H100 80GB"}


def _fetch_gcp(
    types: list[InstancePrice], region: str, endpoint: str | None
) -> dict[str, ListPrice]:
    """Cloud Billing Catalog: a machine costs the sum of its cores, GiB of memory and GPUs.

    Disks that come with a type (a2-ultragpu, a3) are not counted.
    """
    import google.api_core.exceptions
    import google.auth.exceptions
    from google.cloud import billing_v1

    try:
        if endpoint is None:
            client = billing_v1.CloudCatalogClient()
        else:
            from google.auth.credentials import AnonymousCredentials

            client = billing_v1.CloudCatalogClient(
                credentials=AnonymousCredentials(),
                transport="rest",
                client_options={"api_endpoint": endpoint},
            )
        usd_of_part: dict[tuple[str, str], float] = {}
        with client:
            for sku in client.list_skus(parent=_GCP_COMPUTE):
                if region in sku.service_regions:
                    _add_gcp_part(usd_of_part, sku)
    except (
        google.api_core.exceptions.GoogleAPIError,
        google.auth.exceptions.GoogleAuthError,
    ) as error:
        raise _unreachable("gcp", endpoint or "cloudbilling.googleapis.com", str(error)) from error
    found: dict[str, ListPrice] = {}
    for price in types:
        on_demand = _gcp_machine(usd_of_part, price, "OnDemand")
        if on_demand is not None:
            spot = _gcp_machine(usd_of_part, price, "Preemptible")
            found[price.instance_type] = ListPrice(on_demand=on_demand, spot=spot)
    return found


def _add_gcp_part(usd_of_part: dict[tuple[str, str], float], sku: Any) -> None:
    usage = sku.category.usage_type
    if usage not in ("OnDemand", "Preemptible") or not sku.pricing_info:
        return
    rates = sku.pricing_info[0].pricing_expression.tiered_rates
    if not rates:
        return
    usd = rates[-1].unit_price.units + rates[-1].unit_price.nanos / 1e9
    if part := _GCP_SKU.match(sku.description):
        usd_of_part[usage, f"{part['family'].lower()} {part['part']}"] = usd
    elif gpu := _GCP_GPU_SKU.match(sku.description.removeprefix("Spot Preemptible ")):
        usd_of_part[usage, gpu["gpu"]] = usd


def _gcp_machine(
    usd_of_part: dict[tuple[str, str], float], price: InstancePrice, usage: str
) -> float | None:
    """Sum of a machine's parts, or None if one of them is not listed."""
    family = price.instance_type.partition("-")[0]
    parts = {f"{family} Core": price.vcpus, f"{family} Ram": price.memory_gib}
    if price.gpu_count and price.gpu_name is not None:
        parts[_GCP_GPUS.get(price.gpu_name, price.gpu_name.partition("-")[0])] = price.gpu_count
    if not all((usage, part) in usd_of_part for part in parts):
        return None
    return sum(usd_of_part[usage, part] * number for part, number in parts.items())


def _unreachable(cloud: str, where: str, reason: str) -> InputError:
    first = reason.splitlines()[0] if reason else "no reason given"
    return InputError(
        f"{where}: the price list of {cloud} cannot be read ({first}); check the network and your "
        "credentials, or go on with the table that ships with the package"
    )
