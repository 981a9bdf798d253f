"""Write a planned cluster as the file that `ray up` takes.

    plan -> [ray_cluster_file] -> cluster.yaml -> ray up -> ray submit

The head is one of the planned machines and scores too. All machines are asked for at once and none
is released before the job ends, as planned. This module starts nothing and knows no prices.
"""

import importlib.metadata
from typing import Any

import yaml

from cluster.cost.cluster_plan import ClusterPlan
from cluster.pricing.prices import InstancePrice
from fastformers.errors import InputError
from fastformers.inference.cpu import CPU_GENERATIONS

_DISK_GIB = 100
# Packages that Ray's node provider of each cloud imports on the head.
_CLIENTS = {
    "aws": "boto3",
    "azure": "azure-cli-core azure-identity azure-mgmt-compute azure-mgmt-network "
    "azure-mgmt-resource azure-common msrestazure",
    "gcp": "google-api-python-client google-auth cryptography",
}


def build_cluster_file(plan: ClusterPlan, price: InstancePrice, *, spot: bool) -> dict[str, Any]:
    """A Ray cluster configuration, as plain values.

    Args:
        plan: Plan with the number of machines.
        price: Their type's row of the price table, which says which cloud and where.
        spot: Whether all machines but the head are spot machines.

    Raises:
        InputError: Ray has no node provider for that cloud.
    """
    if price.cloud not in _CLIENTS:
        known = ", ".join(_CLIENTS)
        raise InputError(
            f"--write-cluster: {price.instance_type} is of cloud {price.cloud!r}, and Ray starts "
            f"machines of {known} only; start them yourself and use --address"
        )
    num_workers = plan.num_instances - 1
    resources = {"CPU": price.vcpus} | ({"GPU": price.gpu_count} if price.gpu_count else {})
    nodes: dict[str, Any] = {
        "head": {
            "resources": resources,
            "min_workers": 0,
            "max_workers": 0,
            "node_config": _node_config(price, spot=False),
        }
    }
    if num_workers:
        nodes["worker"] = {
            "resources": resources,
            "min_workers": num_workers,
            "max_workers": num_workers,
            "node_config": _node_config(price, spot=spot),
        }
    start = "ulimit -n 65536; ~/venv/bin/ray start --object-manager-port=8076"
    return {
        "cluster_name": "fastformers",
        "max_workers": num_workers,
        "idle_timeout_minutes": 60,
        "provider": _provider(price),
        "auth": _auth(price),
        "available_node_types": nodes,
        "head_node_type": "head",
        "setup_commands": [
            "sudo apt-get update -qq && sudo apt-get install -qq -y python3-venv",
            "python3 -m venv ~/venv",
            f"~/venv/bin/pip install -q fastformers ray[default]=={_ray_version()}",
        ],
        "head_setup_commands": [f"~/venv/bin/pip install -q {_CLIENTS[price.cloud]}"],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            "~/venv/bin/ray stop",
            f"{start} --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "~/venv/bin/ray stop",
            f"{start} --address=$RAY_HEAD_IP:6379",
        ],
    }


def render_cluster_file(plan: ClusterPlan, price: InstancePrice, *, spot: bool) -> str:
    """The text of the file, with what to do with it at its top."""
    config = build_cluster_file(plan, price, spot=spot)
    head = [
        f"{plan.num_instances} x {price.instance_type} in {price.region}, as fastformers cost "
        "planned it.",
        "  ray up THIS_FILE",
        "  ray exec THIS_FILE '~/venv/bin/fastformers score CORPUS --bundle BUNDLE --output OUT "
        "--address auto'",
        "  ray down THIS_FILE",
        "CORPUS and OUT are URIs of a bucket; put BUNDLE at the same path of every machine, with",
        "file_mounts below or a shared disk.",
    ]
    if price.cloud == "gcp":
        head.append("Replace PROJECT_ID first.")
    comments = "".join(f"# {line}\n" for line in head)
    return comments + yaml.safe_dump(config, sort_keys=False, width=100)


def _aws_node(price: InstancePrice, *, spot: bool) -> dict[str, Any]:
    architecture = "arm64" if _is_arm(price) else "amd64"
    image = (
        "resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/"
        f"{architecture}/hvm/ebs-gp3/ami-id"
    )
    market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": _DISK_GIB, "VolumeType": "gp3"}}
    return {
        "InstanceType": price.instance_type,
        "ImageId": image,
        "BlockDeviceMappings": [disk],
        **market,
    }


def _azure_node(price: InstancePrice, *, spot: bool) -> dict[str, Any]:
    # maxPrice -1: pay up to the on-demand price, so that price alone never takes a machine away.
    market = {"priority": "Spot", "billingProfile": {"maxPrice": -1}} if spot else {}
    return {
        "azure_arm_parameters": {
            "vmSize": price.instance_type,
            "imagePublisher": "canonical",
            "imageOffer": "ubuntu-24_04-lts",
            "imageSku": "server-arm64" if _is_arm(price) else "server",
            "imageVersion": "latest",
            **market,
        }
    }


def _gcp_node(price: InstancePrice, *, spot: bool) -> dict[str, Any]:
    architecture = "arm64" if _is_arm(price) else "amd64"
    image = f"projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-{architecture}"
    scheduling: dict[str, Any] = {}
    if spot:
        scheduling["preemptible"] = True
    if price.gpu_count:
        scheduling["onHostMaintenance"] = "TERMINATE"
    return {
        "machineType": price.instance_type,
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


def _node_config(price: InstancePrice, *, spot: bool) -> dict[str, Any]:
    if price.cloud == "aws":
        return _aws_node(price, spot=spot)
    if price.cloud == "azure":
        return _azure_node(price, spot=spot)
    return _gcp_node(price, spot=spot)


def _provider(price: InstancePrice) -> dict[str, Any]:
    place: dict[str, Any] = {"region": price.region}
    if price.cloud == "azure":
        place = {"location": price.region, "resource_group": "fastformers"}
    elif price.cloud == "gcp":
        place |= {"availability_zone": f"{price.region}-a", "project_id": "PROJECT_ID"}
    return {"type": price.cloud, **place, "cache_stopped_nodes": False}


def _auth(price: InstancePrice) -> dict[str, str]:
    if price.cloud != "azure":  # Ray makes a key pair on the others
        return {"ssh_user": "ubuntu"}
    keys = {"ssh_private_key": "~/.ssh/id_rsa", "ssh_public_key": "~/.ssh/id_rsa.pub"}
    return {"ssh_user": "ubuntu", **keys}


def _ray_version() -> str:
    """Version of Ray here, which the cluster must have, too."""
    return importlib.metadata.version("ray")


def _is_arm(price: InstancePrice) -> bool:
    generation = CPU_GENERATIONS.get(price.cpu_generation or "")
    return generation is not None and generation.is_arm
