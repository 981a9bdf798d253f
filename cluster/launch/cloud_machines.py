"""Machines of AWS, Azure and GCP in the words of Ray's node providers.

    instance type, region, spot -> [cloud_machines] -> ray_cluster_file

A row of the price table says which cloud a type is of and which processor it has. This module
starts nothing and knows no prices.
"""

from typing import Any

from fastformers.errors import InputError

_DISK_GIB = 100
# Packages that Ray's node provider of each cloud imports on the head.
CLIENTS = {
    "aws": "boto3",
    "azure": "azure-cli-core azure-identity azure-mgmt-compute azure-mgmt-network "
    "azure-mgmt-resource azure-common msrestazure",
    "gcp": "google-api-python-client google-auth cryptography",
}
# A head that does not score runs Ray's control store, the driver and the dashboard: two vCPUs and
# 8 GiB, on x86-64.
HEAD_TYPE = {"aws": "m7i.large", "azure": "Standard_D2s_v6", "gcp": "n2-standard-2"}


def check_cloud(cloud: str, instance_type: str) -> None:
    """Refuse a cloud that Ray has no node provider for.

    Raises:
        InputError: Names the clouds that it has one for.
    """
    if cloud not in CLIENTS:
        raise InputError(
            f"{instance_type} is of cloud {cloud!r}, and Ray starts machines of "
            f"{', '.join(CLIENTS)} only; start them yourself and use --address"
        )


def plan_machine(cloud: str, instance_type: str, *, is_arm: bool, gpus: int, spot: bool) -> Any:
    """Configuration of a machine with Ubuntu 24.04, whose Python is 3.12."""
    if cloud == "aws":
        return _aws_machine(instance_type, is_arm=is_arm, spot=spot)
    if cloud == "azure":
        return _azure_machine(instance_type, is_arm=is_arm, spot=spot)
    return _gcp_machine(instance_type, is_arm=is_arm, gpus=gpus, spot=spot)


def plan_provider(cloud: str, region: str) -> dict[str, Any]:
    """Where the machines are, and that they are deleted rather than stopped."""
    place: dict[str, Any] = {"region": region}
    if cloud == "azure":
        place = {"location": region, "resource_group": "fastformers"}
    elif cloud == "gcp":
        place |= {"availability_zone": f"{region}-a", "project_id": "PROJECT_ID"}
    return {"type": cloud, **place, "cache_stopped_nodes": False}


def plan_login(cloud: str) -> dict[str, str]:
    """User of the machines, and the keys where Ray does not make a pair itself."""
    if cloud != "azure":
        return {"ssh_user": "ubuntu"}
    keys = {"ssh_private_key": "~/.ssh/id_rsa", "ssh_public_key": "~/.ssh/id_rsa.pub"}
    return {"ssh_user": "ubuntu", **keys}


def advise(cloud: str) -> list[str]:
    """What a user has to fill in or allow before the machines work, as lines of the file."""
    if cloud == "aws":
        return [
            "Workers read buckets with an instance profile of their own, which you add to the",
            "worker's node_config (IamInstanceProfile: {Name: NAME}); the head's role needs",
            "iam:PassRole for it. Ray's security group opens port 22 alone to the world.",
        ]
    if cloud == "gcp":
        return [
            "Replace PROJECT_ID first. Workers read buckets with a service account that you add to",
            "the worker's node_config (serviceAccounts). Leave ports other than 22 closed in the",
            "network's firewall.",
        ]
    return [
        "The resource group is made where it is missing. Machines read storage accounts with the",
        "identity that Ray makes; give it the role Storage Blob Data Contributor. Ray's network",
        "security group opens port 22 alone to the world.",
    ]


def _aws_machine(instance_type: str, *, is_arm: bool, spot: bool) -> dict[str, Any]:
    image = (
        "resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/"
        f"{'arm64' if is_arm else 'amd64'}/hvm/ebs-gp3/ami-id"
    )
    market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": _DISK_GIB, "VolumeType": "gp3"}}
    return {
        "InstanceType": instance_type,
        "ImageId": image,
        "BlockDeviceMappings": [disk],
        **market,
    }


def _azure_machine(instance_type: str, *, is_arm: bool, spot: bool) -> dict[str, Any]:
    # maxPrice -1: pay up to the on-demand price, so that price alone never takes a machine away.
    market = {"priority": "Spot", "billingProfile": {"maxPrice": -1}} if spot else {}
    return {
        "azure_arm_parameters": {
            "vmSize": instance_type,
            "imagePublisher": "canonical",
            "imageOffer": "ubuntu-24_04-lts",
            "imageSku": "server-arm64" if is_arm else "server",
            "imageVersion": "latest",
            **market,
        }
    }


def _gcp_machine(instance_type: str, *, is_arm: bool, gpus: int, spot: bool) -> dict[str, Any]:
    family = f"ubuntu-2404-lts-{'arm64' if is_arm else 'amd64'}"
    image = f"projects/ubuntu-os-cloud/global/images/family/{family}"
    scheduling: dict[str, Any] = {}
    if spot:
        scheduling["preemptible"] = True
    if gpus:
        scheduling["onHostMaintenance"] = "TERMINATE"
    return {
        "machineType": instance_type,
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "type": "PERSISTENT",
                "initializeParams": {"diskSizeGb": _DISK_GIB, "sourceImage": image},
            }
        ],
        **({"scheduling": scheduling} if scheduling else {}),
    }
