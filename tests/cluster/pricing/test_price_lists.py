"""Price lists are read from recorded answers, served by a local HTTP server."""

import json
import threading
import urllib.parse
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fastformers.cluster.pricing.price_lists import refresh_prices, write_prices
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import InputError

TODAY = date(2026, 11, 24)


@contextmanager
def serve(answer):
    """Serve `answer(method, path, body) -> (status, content type, text)`; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._reply()

        def do_POST(self):
            self._reply()

        def _reply(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            target = self.headers.get("X-Amz-Target", "")
            status, kind, text = answer(self.path, target, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # the end waits for each request's sockets to be closed
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refresh(cloud, endpoint, *, region, names):
    prices = {name: price for name, price in load_prices().items() if name in names}
    return refresh_prices(prices, cloud=cloud, region=region, today=TODAY, endpoint=endpoint)


def azure_item(name, usd, *, kind="Consumption", product="Virtual Machines FSv2 Series", **more):
    return {
        "currencyCode": "USD",
        "retailPrice": usd,
        "armRegionName": "westeurope",
        "productName": product,
        "skuName": name,
        "armSkuName": "Standard_F16s_v2",
        "type": kind,
        **more,
    }


def answer_azure(path, target, body):
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
    if query["$filter"][0].find("armSkuName eq 'Standard_F16s_v2'") < 0:
        return 200, "application/json", json.dumps({"Items": [], "NextPageLink": None})
    assert "armRegionName eq 'westeurope'" in query["$filter"][0]
    if "$skip" not in query:
        items = [
            azure_item("F16s v2 Low Priority", 0.2),
            azure_item("F16s v2 Spot", 0.12),
            azure_item("F16s v2", 1.5, product="Virtual Machines FSv2 Series Windows"),
            azure_item("F16s v2", 0.9, kind="DevTestConsumption"),
        ]
        host = answer_azure.base
        link = f"{host}{path}&%24skip=100"
        return 200, "application/json", json.dumps({"Items": items, "NextPageLink": link})
    items = [
        azure_item("F16s v2", 0.776),
        azure_item("F16s v2", 4380.0, kind="Reservation", reservationTerm="1 Year"),
        azure_item("F16s v2", 8000.0, kind="Reservation", reservationTerm="3 Years"),
    ]
    return 200, "application/json", json.dumps({"Items": items, "NextPageLink": None})


def test_azure_pages_are_followed_and_prices_told_apart(tmp_path):
    with serve(answer_azure) as url:
        answer_azure.base = url
        found = refresh(
            "azure", url, region="westeurope", names=("Standard_F16s_v2", "Standard_F8s_v2")
        )
    assert list(found) == ["Standard_F16s_v2"]
    price = found["Standard_F16s_v2"]
    assert price.usd_per_hour_on_demand == 0.776
    assert (price.usd_per_hour_spot, price.usd_per_hour_reserved) == (0.12, 0.5)
    assert (price.region, price.as_of, price.spot_as_of) == (
        "westeurope",
        "2026-11-24",
        price.as_of,
    )
    assert (price.physical_cores, price.cpu_generation) == (8, "skylake")
    write_prices(tmp_path / "prices.csv", found)
    assert load_prices(tmp_path / "prices.csv") == found


def test_a_refreshed_type_with_gpus_keeps_the_cores_that_it_has(tmp_path):
    known = load_prices()
    write_prices(tmp_path / "prices.csv", known)
    assert load_prices(tmp_path / "prices.csv") == known
    cores = {name: known[name].physical_cores for name in ("g6.xlarge", "Standard_NC4as_T4_v3")}
    assert cores == {"g6.xlarge": 2, "Standard_NC4as_T4_v3": 4}


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "prices.csv"
    prices = load_prices()
    write_prices(path, prices)
    with pytest.raises(TypeError):
        write_prices(path, {"a": next(iter(prices.values())), "b": None})
    assert load_prices(path) == prices
    assert list(tmp_path.iterdir()) == [path]


def test_a_region_without_our_types_is_said():
    def answer(path, target, body):
        return 200, "application/json", json.dumps({"Items": []})

    with serve(answer) as url, pytest.raises(InputError, match="--region mars: azure lists none"):
        refresh("azure", url, region="mars", names=("Standard_F16s_v2",))


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        ((500, "text/plain", "sorry"), "Internal Server Error"),
        ((200, "application/json", "{"), "an answer we cannot read"),
        ((200, "application/json", "{}"), "an answer we cannot read"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line(reply, what):
    with serve(lambda *request: reply) as url, pytest.raises(InputError) as error:
        refresh("azure", url, region="eastus", names=("Standard_F16s_v2",))
    assert what in str(error.value)
    assert str(error.value).count("\n") == 0
    assert "check the network" in str(error.value)


def test_no_network_is_one_line():
    with pytest.raises(InputError, match="the price list of azure cannot be read"):
        refresh("azure", "http://127.0.0.1:9", region="eastus", names=("Standard_F16s_v2",))


def aws_term(usd, **attributes):
    dimension = {"unit": "Hrs", "pricePerUnit": {"USD": usd}}
    upfront = {"unit": "Quantity", "pricePerUnit": {"USD": "100"}}
    return {"termAttributes": attributes, "priceDimensions": {"a": upfront, "b": dimension}}


def aws_reserved(years, option, offering, usd):
    return aws_term(usd, LeaseContractLength=years, PurchaseOption=option, OfferingClass=offering)


AWS_PRODUCT = {
    "terms": {
        "OnDemand": {"x": aws_term("0.7140000000")},
        "Reserved": {
            "a": aws_reserved("1yr", "No Upfront", "standard", "0.45"),
            "b": aws_reserved("3yr", "No Upfront", "standard", "0.31"),
            "c": aws_reserved("1yr", "All Upfront", "standard", "0.0"),
            "d": aws_reserved("1yr", "No Upfront", "convertible", "0.52"),
        },
    }
}
AWS_SPOT = """<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<spotPriceHistorySet>{items}</spotPriceHistorySet></DescribeSpotPriceHistoryResponse>"""
AWS_SPOT_ITEM = """<item><instanceType>c7i.4xlarge</instanceType><spotPrice>{usd}</spotPrice>
<productDescription>Linux/UNIX</productDescription><timestamp>2026-11-24T0{hour}:00:00.000Z
</timestamp><availabilityZone>us-east-1{zone}</availabilityZone></item>"""


def answer_aws(path, target, body):
    if target == "AWSPriceListService.GetProducts":
        fields = {entry["Field"]: entry["Value"] for entry in json.loads(body)["Filters"]}
        assert fields["operatingSystem"] == "Linux"
        found = [json.dumps(AWS_PRODUCT)] if fields["instanceType"] == "c7i.4xlarge" else []
        return 200, "application/x-amz-json-1.1", json.dumps({"PriceList": found})
    assert "Action=DescribeSpotPriceHistory" in body
    items = "".join(
        AWS_SPOT_ITEM.format(usd=usd, hour=hour, zone=zone)
        for usd, hour, zone in ((0.9, 1, "a"), (0.3, 2, "a"), (0.2, 1, "b"), (0.4, 1, "c"))
    )
    return 200, "text/xml", AWS_SPOT.format(items=items)


@pytest.fixture
def aws_credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def test_aws_prices_come_from_its_list_and_spot_history(aws_credentials):
    pytest.importorskip("boto3")
    with serve(answer_aws) as url:
        found = refresh("aws", url, region="us-east-1", names=("c7i.4xlarge", "c7a.4xlarge"))
    assert list(found) == ["c7i.4xlarge"]
    price = found["c7i.4xlarge"]
    assert (price.usd_per_hour_on_demand, price.usd_per_hour_reserved) == (0.714, 0.45)
    assert price.usd_per_hour_spot == 0.3  # median of the newest of each zone
    assert not price.spot_is_estimate


def test_an_aws_refusal_is_one_line(aws_credentials):
    pytest.importorskip("boto3")
    refusal = json.dumps({"__type": "AccessDeniedException", "message": "not\nallowed"})
    with (
        serve(lambda *request: (400, "application/x-amz-json-1.1", refusal)) as url,
        pytest.raises(InputError, match="the price list of aws cannot be read") as error,
    ):
        refresh("aws", url, region="us-east-1", names=("c7i.4xlarge",))
    assert "\n" not in str(error.value)


def gcp_sku(description, usd, usage="OnDemand", region="us-central1"):
    unit = {"currencyCode": "USD", "units": str(int(usd)), "nanos": round((usd % 1) * 1e9)}
    return {
        "description": description,
        "category": {"resourceFamily": "Compute", "usageType": usage},
        "serviceRegions": [region],
        "pricingInfo": [{"pricingExpression": {"tieredRates": [{"unitPrice": unit}]}}],
    }


GCP_SKUS = [
    gcp_sku("C3D Instance Core running in Americas", 0.03),
    gcp_sku("C3D Instance Ram running in Americas", 0.004),
    gcp_sku("Spot Preemptible C3D Instance Core running in Americas", 0.01, "Preemptible"),
    gcp_sku("Spot Preemptible C3D Instance Ram running in Americas", 0.001, "Preemptible"),
    gcp_sku("C3D Instance Core running in Tokyo", 9.0, region="asia-northeast1"),
    gcp_sku("Commitment v1: C3D Cpu in Americas for 1 Year", 0.01, "Commit1Yr"),
    gcp_sku("N2D AMD Instance Core running in Americas", 0.02),
    gcp_sku("G2 Instance Core running in Americas", 0.025),
    gcp_sku("G2 Instance Ram running in Americas", 0.003),
    gcp_sku("Nvidia L4 GPU running in Americas", 0.56),
]


def answer_gcp(path, target, body):
    assert path.startswith("/v1/services/6F81-5844-456A/skus")
    second = "pageToken=second" in path
    page = {"skus": GCP_SKUS[5:] if second else GCP_SKUS[:5]}
    return (
        200,
        "application/json",
        json.dumps(page if second else {**page, "nextPageToken": "second"}),
    )


def test_gcp_machines_are_the_sum_of_their_parts():
    pytest.importorskip("google.cloud.billing_v1")
    names = ("c3d-highcpu-16", "n2d-highcpu-16", "g2-standard-4")
    with serve(answer_gcp) as url:
        found = refresh("gcp", url, region="us-central1", names=names)
    assert set(found) == {"c3d-highcpu-16", "g2-standard-4"}  # memory of N2D is not listed
    c3d = found["c3d-highcpu-16"]
    assert c3d.usd_per_hour_on_demand == pytest.approx(16 * 0.03 + 32 * 0.004)
    assert c3d.usd_per_hour_spot == pytest.approx(16 * 0.01 + 32 * 0.001)
    gpu = found["g2-standard-4"]
    assert gpu.usd_per_hour_on_demand == pytest.approx(4 * 0.025 + 16 * 0.003 + 0.56)
    assert gpu.usd_per_hour_spot is None


def test_a_gcp_refusal_is_one_line():
    pytest.importorskip("google.cloud.billing_v1")
    refusal = json.dumps({"error": {"code": 403, "message": "API key\nmissing"}})
    with (
        serve(lambda *request: (403, "application/json", refusal)) as url,
        pytest.raises(InputError, match="the price list of gcp cannot be read") as error,
    ):
        refresh("gcp", url, region="us-central1", names=("c3d-highcpu-16",))
    assert "\n" not in str(error.value)


def test_a_table_without_types_of_the_cloud_is_refused():
    with pytest.raises(InputError, match="--cloud gcp: the price table has no type of it"):
        refresh("gcp", None, region="us-central1", names=("c7i.4xlarge",))
