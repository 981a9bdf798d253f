"""What a machine's cloud says about it: its type, and whether the cloud will take it back soon.

    DMI files, metadata service -> [cloud_metadata] -> type of a node, notices -> spot watcher

The kernel's DMI files say which cloud a machine belongs to, so a machine of no cloud sends no
request. Requests go straight to the cloud's address, without proxies and redirects, and wait a
short time. This module knows nothing of Ray, shards or prices.

Sources, read 2026-11-26:
    docs.aws.amazon.com/AWSEC2/latest/UserGuide/, spot-instance-termination-notices.html: "two
        minutes before", "check every 5 seconds"; 404 while there is none, then
        {"action": "terminate", "time": "2017-09-18T08:22:00Z"}
        rebalance-recommendations.html: {"noticeTime": "2020-10-27T08:22:00Z"}
    cloud.google.com/compute/docs/, instances/create-use-preemptible: "preempted" is TRUE or FALSE,
        30 seconds from the soft to the hard end
        metadata/getting-live-migration-notice: NONE, MIGRATE_ON_HOST_MAINTENANCE or
        TERMINATE_ON_HOST_MAINTENANCE, 60 seconds before
    learn.microsoft.com/azure/virtual-machines/linux/scheduled-events: the machines of a scale set
        get the events of all; NotBefore is blank once an event has started; Preempt comes at best
        30 seconds before
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

Cloud = Literal["aws", "gcp", "azure"]

# All three answer here; Google's name metadata.google.internal would need a lookup first.
_ADDRESS = "169.254.169.254"
# The clouds' own variables for other addresses; Azure has none.
_AWS_VARIABLE, _GCP_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT", "GCE_METADATA_HOST"
_TIMEOUT_S = 1.0
_MAX_ANSWER_BYTES = 64 * 2**10
_MAX_DETAIL = 200
# Microsoft writes it into the chassis of every machine of Azure, and of no other Hyper-V.
_AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
_EC2_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
_GCP_HEADERS = {"Metadata-Flavor": "Google"}
_AZURE_HEADERS = {"Metadata": "true"}
_AZURE_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
_AZURE_COMPUTE = "/metadata/instance/compute/{item}?api-version=2021-02-01&format=text"
# Events of Azure that end what runs on the machine; a Freeze is over after some seconds.
_AZURE_ENDS = ("Preempt", "Terminate", "Reboot", "Redeploy")


class MetadataError(Exception):
    """A metadata service gave no answer, or none that it documents; ask again later."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What a cloud will do to this machine.

    Attributes:
        cloud: Who says so.
        action: What it will do: "terminate", "stop", "hibernate", "preempt", "rebalance", or an
            event of Azure in lower case.
        left_s: Seconds until it happens; None where the cloud does not say.
        is_certain: Whether it will happen. AWS's rebalance recommendation only says that the risk
            has grown; such a machine may stay for hours.
        detail: What the service answered.
    """

    cloud: Cloud
    action: str
    left_s: float | None
    is_certain: bool
    detail: str

    def __str__(self) -> str:
        when = "" if self.left_s is None else f" in {self.left_s:.0f} s"
        announced = "announces" if self.is_certain else "recommends"
        return f"{self.cloud} {announced}: {self.action}{when}"


def detect_cloud(
    root: Path = Path("/"), environment: Mapping[str, str] = os.environ
) -> Cloud | None:
    """Cloud that this machine belongs to; None for a machine of no cloud.

    Its DMI files say so. In a container that hides them, whoever sets the address of a cloud's
    metadata service says so.

    Args:
        root: Root of the file system.
        environment: Environment variables.
    """
    product, vendor = _read_dmi(root, "product_name"), _read_dmi(root, "sys_vendor")
    versions = (_read_dmi(root, "bios_version"), _read_dmi(root, "product_version"))
    # Amazon's older machines say that they are Xen, of version 4.11.amazon.
    if vendor == "Amazon EC2" or any(version.endswith(".amazon") for version in versions):
        return "aws"
    if product == "Google Compute Engine":
        return "gcp"
    if _read_dmi(root, "chassis_asset_tag") == _AZURE_ASSET_TAG:
        return "azure"
    if environment.get(_AWS_VARIABLE):
        return "aws"
    return "gcp" if environment.get(_GCP_VARIABLE) else None


def read_instance_type(
    root: Path = Path("/"), *, url: str | None = None, timeout_s: float = _TIMEOUT_S
) -> str | None:
    """Name that its cloud gives the type of this machine, as price tables spell it.

    Args:
        root: Root of the file system.
        url: Address of the metadata service; the cloud's own by default.
        timeout_s: Seconds to wait for each answer.

    Returns:
        None on a machine of no cloud, and where the service does not answer.
    """
    cloud = detect_cloud(root)
    product = _read_dmi(root, "product_name")
    if cloud == "aws" and _EC2_TYPE.fullmatch(product):
        return product  # as on all machines since 2017
    try:
        if cloud is not None:
            return _ask_instance_type(cloud, _Service(url or service_url(cloud), timeout_s))
    except MetadataError:
        pass
    return None


def read_notice(
    cloud: Cloud,
    *,
    url: str | None = None,
    timeout_s: float = _TIMEOUT_S,
    now: Callable[[], float] = time.time,
) -> Notice | None:
    """Ask a cloud whether it will take this machine; None if it will not.

    Args:
        cloud: The machine's cloud.
        url: Address of the metadata service; the cloud's own by default.
        timeout_s: Seconds to wait for each answer.
        now: Seconds since the epoch, with which the cloud's times are compared.

    Raises:
        MetadataError: The service does not answer, or not as it is documented.
    """
    service = _Service(url or service_url(cloud), timeout_s)
    ask = {"aws": _ask_aws, "gcp": _ask_gcp, "azure": _ask_azure}[cloud]
    return ask(service, now())


def service_url(cloud: Cloud, environment: Mapping[str, str] = os.environ) -> str:
    """Address of a cloud's metadata service, or the one that its own variable sets."""
    if cloud == "aws":
        return environment.get(_AWS_VARIABLE) or f"http://{_ADDRESS}"
    if cloud == "gcp":
        return f"http://{environment.get(_GCP_VARIABLE) or _ADDRESS}"
    return f"http://{_ADDRESS}"


def _read_dmi(root: Path, name: str) -> str:
    try:
        return (root / "sys/class/dmi/id" / name).read_text(errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class _Service:
    """A metadata service, and how long to wait for it."""

    url: str
    timeout_s: float

    def get(self, path: str, headers: Mapping[str, str], *, method: str = "GET") -> str | None:
        """Text of an item; None if the service has no such item.

        Raises:
            MetadataError: There is no answer, or an error.
        """
        try:
            address = urlsplit(self.url)
            connection = HTTPConnection(
                address.hostname or "", address.port or 80, timeout=self.timeout_s
            )
            try:
                connection.request(method, address.path.rstrip("/") + path, headers=dict(headers))
                response = connection.getresponse()
                answer = response.read(_MAX_ANSWER_BYTES).decode()
            finally:
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            raise MetadataError(f"{self.url}{path}: {error}") from error
        if response.status == 404:
            return None
        if response.status != 200:
            raise MetadataError(f"{self.url}{path}: status {response.status}")
        flavor = headers.get("Metadata-Flavor")
        if response.headers.get("Metadata-Flavor") != flavor and flavor is not None:
            raise MetadataError(f"{self.url}{path}: another server answers")
        return answer.strip()


def _ask_instance_type(cloud: Cloud, service: _Service) -> str | None:
    if cloud == "aws":
        answer = service.get("/latest/meta-data/instance-type", _aws_headers(service))
    elif cloud == "gcp":  # projects/123/machineTypes/n2-standard-16
        answer = service.get("/computeMetadata/v1/instance/machine-type", _GCP_HEADERS)
    else:
        answer = service.get(_AZURE_COMPUTE.format(item="vmSize"), _AZURE_HEADERS)
    name = (answer or "").rpartition("/")[2]
    return name if re.fullmatch(r"[\w.-]+", name) else None


def _aws_headers(service: _Service) -> dict[str, str]:
    """Headers with the token that version 2 of the service demands of each request."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = service.get("/latest/api/token", lifetime, method="PUT")
    if not token:
        raise MetadataError(f"{service.url}: gives no token")
    return {"X-aws-ec2-metadata-token": token}


def _ask_aws(service: _Service, now_s: float) -> Notice | None:
    headers = _aws_headers(service)
    answer = service.get("/latest/meta-data/spot/instance-action", headers)
    if answer is not None:
        fields = _parse_object(answer)
        action = fields.get("action")
        if not isinstance(action, str) or not action:
            raise MetadataError(f"{service.url}: an action without a name: {answer[:_MAX_DETAIL]}")
        return Notice(
            cloud="aws",
            action=action,
            left_s=_seconds_until(fields.get("time"), now_s),
            is_certain=True,
            detail=answer[:_MAX_DETAIL],
        )
    answer = service.get("/latest/meta-data/events/recommendations/rebalance", headers)
    if answer is None:
        return None
    _parse_object(answer)
    return Notice(
        cloud="aws",
        action="rebalance",
        left_s=None,
        is_certain=False,
        detail=answer[:_MAX_DETAIL],
    )


def _ask_gcp(service: _Service, now_s: float) -> Notice | None:
    preempted = service.get("/computeMetadata/v1/instance/preempted", _GCP_HEADERS)
    if preempted not in ("TRUE", "FALSE"):
        raise MetadataError(f"{service.url}: preempted is {preempted!r:.{_MAX_DETAIL}}")
    if preempted == "TRUE":
        # Google gives no time. These are the longest that it grants, from when it said so.
        return Notice(
            cloud="gcp", action="preempt", left_s=30.0, is_certain=True, detail="preempted TRUE"
        )
    event = service.get("/computeMetadata/v1/instance/maintenance-event", _GCP_HEADERS)
    if event != "TERMINATE_ON_HOST_MAINTENANCE":  # a live migration only slows the machine down
        return None
    return Notice(cloud="gcp", action="terminate", left_s=60.0, is_certain=True, detail=event)


def _ask_azure(service: _Service, now_s: float) -> Notice | None:
    answer = service.get(_AZURE_EVENTS, _AZURE_HEADERS)
    events = _parse_object(answer or "").get("Events", [])
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise MetadataError(f"{service.url}: no list of events: {(answer or '')[:_MAX_DETAIL]}")
    ending = [event for event in events if event.get("EventType") in _AZURE_ENDS]
    if not ending:
        return None
    own_name = service.get(_AZURE_COMPUTE.format(item="name"), _AZURE_HEADERS)
    notices = [
        Notice(
            cloud="azure",
            action=event["EventType"].lower(),
            left_s=_azure_seconds(event, now_s),
            is_certain=True,
            detail=json.dumps(event)[:_MAX_DETAIL],
        )
        for event in ending
        if own_name in (event.get("Resources") or [])
    ]
    return min(notices, key=lambda notice: notice.left_s or 0.0, default=None)


def _azure_seconds(event: Mapping[str, Any], now_s: float) -> float | None:
    if event.get("EventStatus") == "Started":
        return 0.0
    return _seconds_until(event.get("NotBefore"), now_s)


def _parse_object(answer: str) -> dict[str, Any]:
    try:
        fields = json.loads(answer)
    except ValueError as error:
        raise MetadataError(f"no JSON: {answer[:_MAX_DETAIL]!r}") from error
    if not isinstance(fields, dict):
        raise MetadataError(f"no JSON object: {answer[:_MAX_DETAIL]!r}")
    return fields


def _seconds_until(text: object, now_s: float) -> float | None:
    """Seconds from `now_s` until a time in ISO 8601 or as in mail; None if it is neither."""
    if not isinstance(text, str):
        return None
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
        except (ValueError, TypeError):
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now_s)
    return None
