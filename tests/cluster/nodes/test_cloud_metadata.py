"""Metadata services of three clouds, as they are documented, and answers that they are not."""

import json
import socket

import pytest

from fastformers.cluster.nodes.cloud_metadata import (
    MetadataError,
    Notice,
    detect_cloud,
    read_instance_type,
    read_notice,
    service_url,
)
from fastformers.cluster.pricing.prices import load_prices

NITRO = {"sys_vendor": "Amazon EC2", "product_name": "c7i.4xlarge", "board_asset_tag": "i-0af01c0"}
XEN = {"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11.amazon"}
GCP = {"sys_vendor": "Google", "product_name": "Google Compute Engine", "bios_vendor": "Google"}
HYPER_V = {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}
AZURE = {**HYPER_V, "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}
LAPTOP = {"sys_vendor": "LENOVO", "product_name": "21HM", "bios_version": "N3XET56W (1.31 )"}
CHROMEBOOK = {"sys_vendor": "Google", "product_name": "Eve", "bios_vendor": "coreboot"}

SPOT = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event"
EVENTS = "/metadata/scheduledevents"
NAME = "/metadata/instance/compute/name"

# The moment of the question: 2026-11-26 12:00:00 UTC.
NOW = 1795694400.0


def dmi(root, files):
    directory = root / "sys/class/dmi/id"
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(f"{text}\n")
    return root


def ask(cloud, server, *, timeout_s=30.0):
    return read_notice(cloud, url=server.url, timeout_s=timeout_s, now=lambda: NOW)


@pytest.mark.parametrize(
    ("files", "cloud"),
    [
        *((NITRO, "aws"), (XEN, "aws"), (GCP, "gcp"), (AZURE, "azure")),
        *((HYPER_V, None), (LAPTOP, None), (CHROMEBOOK, None), ({}, None)),
    ],
)
def test_the_cloud_is_read_from_dmi(tmp_path, files, cloud):
    assert detect_cloud(dmi(tmp_path, files), {}) == cloud


@pytest.mark.parametrize(
    ("variable", "cloud"),
    [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "aws"), ("GCE_METADATA_HOST", "gcp")],
)
def test_where_dmi_is_hidden_the_clouds_own_variable_says_which_it_is(tmp_path, variable, cloud):
    assert detect_cloud(tmp_path, {variable: "elsewhere"}) == cloud
    assert detect_cloud(tmp_path, {variable: ""}) is None
    assert detect_cloud(dmi(tmp_path, AZURE), {variable: "elsewhere"}) == "azure"


def test_a_machine_without_dmi_is_of_no_cloud(tmp_path):
    assert detect_cloud(tmp_path, {}) is None


@pytest.mark.parametrize("files", [HYPER_V, LAPTOP, {}])
def test_a_machine_of_no_cloud_sends_no_request(tmp_path, metadata_server, files):
    assert read_instance_type(dmi(tmp_path, files), url=metadata_server.url) is None
    assert metadata_server.requests == []


def test_a_nitro_machine_knows_its_type_without_a_request(tmp_path, metadata_server):
    root = dmi(tmp_path, NITRO)
    assert read_instance_type(root, url=metadata_server.url) == "c7i.4xlarge"
    assert metadata_server.requests == []


@pytest.mark.parametrize(
    ("files", "item", "text", "name"),
    [
        (XEN, "/latest/meta-data/instance-type", "c5.4xlarge", "c5.4xlarge"),
        (
            GCP,
            "/computeMetadata/v1/instance/machine-type",
            "projects/12/machineTypes/n2-standard-16",
            "n2-standard-16",
        ),
        (AZURE, "/metadata/instance/compute/vmSize", "Standard_F16s_v2", "Standard_F16s_v2"),
    ],
)
def test_types_are_spelled_as_in_the_price_table(
    tmp_path, metadata_server, files, item, text, name
):
    root = dmi(tmp_path, files)
    metadata_server.items[item] = text
    assert read_instance_type(root, url=metadata_server.url, timeout_s=30.0) == name
    assert name in load_prices()
    for garbage in ("<html>a page</html>", "", b"\xff\xfe", 500, None):
        metadata_server.items[item] = garbage
        assert read_instance_type(root, url=metadata_server.url, timeout_s=30.0) is None


def test_no_service_is_no_type(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert read_instance_type(dmi(tmp_path, GCP), url=f"http://127.0.0.1:{port}") is None
    with pytest.raises(MetadataError, match=f"http://127.0.0.1:{port}/latest/api/token: .*refused"):
        read_notice("aws", url=f"http://127.0.0.1:{port}")


def test_aws_announces_an_interruption_with_its_time(metadata_server):
    assert ask("aws", metadata_server) is None
    assert metadata_server.requests == ["PUT /latest/api/token", f"GET {SPOT}", f"GET {REBALANCE}"]
    metadata_server.items[SPOT] = '{"action": "terminate", "time": "2026-11-26T12:01:58Z"}'
    notice = ask("aws", metadata_server)
    assert notice == Notice(
        cloud="aws",
        action="terminate",
        left_s=118.0,
        is_certain=True,
        detail='{"action": "terminate", "time": "2026-11-26T12:01:58Z"}',
    )
    assert str(notice) == "aws announces: terminate in 118 s"


def test_a_time_that_has_passed_is_now_and_one_that_cannot_be_read_is_unknown(metadata_server):
    metadata_server.items[SPOT] = '{"action": "stop", "time": "2026-11-26T11:59:00Z"}'
    assert ask("aws", metadata_server).left_s == 0.0
    for fields in ({"action": "stop", "time": "soon"}, {"action": "stop"}):
        metadata_server.items[SPOT] = json.dumps(fields)
        notice = ask("aws", metadata_server)
        assert (notice.action, notice.left_s) == ("stop", None)
        assert str(notice) == "aws announces: stop"


def test_a_rebalance_recommendation_is_not_certain_and_an_interruption_comes_first(
    metadata_server,
):
    metadata_server.items[REBALANCE] = '{"noticeTime": "2026-11-26T11:58:00Z"}'
    notice = ask("aws", metadata_server)
    assert (notice.action, notice.left_s, notice.is_certain) == ("rebalance", None, False)
    assert str(notice) == "aws recommends: rebalance"
    metadata_server.items[SPOT] = '{"action": "hibernate", "time": "2026-11-26T12:00:00Z"}'
    notice = ask("aws", metadata_server)
    assert (notice.action, notice.left_s, notice.is_certain) == ("hibernate", 0.0, True)


def test_gcp_says_that_it_preempts_or_ends_the_machine(metadata_server):
    metadata_server.items.update({PREEMPTED: "FALSE", MAINTENANCE: "NONE"})
    assert ask("gcp", metadata_server) is None
    metadata_server.items[MAINTENANCE] = "MIGRATE_ON_HOST_MAINTENANCE"
    assert ask("gcp", metadata_server) is None
    metadata_server.items[MAINTENANCE] = "TERMINATE_ON_HOST_MAINTENANCE"
    notice = ask("gcp", metadata_server)
    assert (notice.action, notice.left_s, notice.is_certain) == ("terminate", 60.0, True)
    metadata_server.items[PREEMPTED] = "TRUE"
    notice = ask("gcp", metadata_server)
    assert (notice.action, notice.left_s, notice.is_certain) == ("preempt", 30.0, True)


def test_an_answer_of_another_server_is_not_taken_for_google(metadata_server):
    metadata_server.items[PREEMPTED] = "TRUE"
    metadata_server.flavor = None
    with pytest.raises(MetadataError, match="another server answers"):
        ask("gcp", metadata_server)


def azure_event(kind="Preempt", resources=("worker_3",), **changes):
    return {
        "EventId": "C1BF8322-4CBF-4FC4-9C45-B40CF3106D0E",
        "EventStatus": "Scheduled",
        "EventType": kind,
        "ResourceType": "VirtualMachine",
        "Resources": list(resources),
        "NotBefore": "Thu, 26 Nov 2026 12:00:30 GMT",
        **changes,
    }


def write_events(server, *events):
    server.items[EVENTS] = json.dumps({"DocumentIncarnation": 2, "Events": list(events)})


def test_azure_schedules_an_eviction(metadata_server):
    metadata_server.items[NAME] = "worker_3"
    write_events(metadata_server)
    assert ask("azure", metadata_server) is None
    write_events(metadata_server, azure_event())
    notice = ask("azure", metadata_server)
    assert (notice.cloud, notice.action, notice.left_s) == ("azure", "preempt", 30.0)
    assert notice.is_certain
    write_events(metadata_server, azure_event(EventStatus="Started", NotBefore=""))
    assert ask("azure", metadata_server).left_s == 0.0


def test_azure_tells_all_machines_of_a_set_and_only_the_named_ones_end(metadata_server):
    metadata_server.items[NAME] = "worker_3"
    write_events(metadata_server, azure_event(resources=["worker_1", "worker_30"]))
    assert ask("azure", metadata_server) is None
    write_events(metadata_server, azure_event(resources=["worker_1", "worker_3"]))
    assert ask("azure", metadata_server).action == "preempt"


def test_the_first_of_several_events_counts_and_a_freeze_does_not(metadata_server):
    metadata_server.items[NAME] = "worker_3"
    write_events(metadata_server, azure_event("Freeze"))
    assert ask("azure", metadata_server) is None
    reboot = azure_event("Reboot", NotBefore="Thu, 26 Nov 2026 12:15:00 GMT")
    write_events(metadata_server, reboot, azure_event("Redeploy"), azure_event("Freeze"))
    notice = ask("azure", metadata_server)
    assert (notice.action, notice.left_s) == ("redeploy", 30.0)
    write_events(metadata_server, reboot)
    assert ask("azure", metadata_server).left_s == 900.0


@pytest.mark.parametrize(
    ("cloud", "item", "garbage"),
    [
        *(("aws", SPOT, text) for text in ("", "terminate", "[]", "{}", '{"action": 3}', 503)),
        *(("aws", REBALANCE, text) for text in ("soon", "null", 500, b"\xff\xfe")),
        *(("gcp", PREEMPTED, text) for text in ("", "true-ish", 503, None, b"\xff\xfe")),
        *(("azure", EVENTS, text) for text in ("", "[]", '{"Events": 3}', '{"Events": [3]}', 410)),
    ],
)
def test_garbage_is_an_error_and_never_a_notice(metadata_server, cloud, item, garbage):
    metadata_server.items[item] = garbage
    with pytest.raises(MetadataError):
        ask(cloud, metadata_server)


def test_what_an_error_says_is_no_notice(metadata_server):
    metadata_server.items[PREEMPTED] = 503
    metadata_server.text_of_errors = "TRUE"
    with pytest.raises(MetadataError, match="status 503"):
        ask("gcp", metadata_server)


def test_a_service_without_tokens_is_not_asked_further(metadata_server):
    metadata_server.has_tokens = False
    with pytest.raises(MetadataError, match="gives no token"):
        ask("aws", metadata_server)
    assert metadata_server.requests == ["PUT /latest/api/token"]


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_a_slow_service_is_not_waited_for(metadata_server, cloud):
    metadata_server.may_answer.clear()
    with pytest.raises(MetadataError, match="timed out"):
        ask(cloud, metadata_server, timeout_s=0.05)


def test_no_proxy_is_asked(metadata_server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask("aws", metadata_server) is None


def test_the_clouds_own_variables_set_the_address(metadata_server, monkeypatch):
    assert service_url("azure", {"GCE_METADATA_HOST": "elsewhere"}) == "http://169.254.169.254"
    assert service_url("gcp", {}) == service_url("aws", {}) == "http://169.254.169.254"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{metadata_server.url}/")
    monkeypatch.setenv("GCE_METADATA_HOST", metadata_server.host)
    metadata_server.items.update({SPOT: '{"action": "stop"}', PREEMPTED: "TRUE"})
    assert read_notice("aws", timeout_s=30.0).action == "stop"
    assert read_notice("gcp", timeout_s=30.0).action == "preempt"
