"""Write the file that `ray up` takes, for machines of a cloud or for hosts of one's own.

    machines or hosts, shipment -> [ray_cluster_file] -> cluster.yaml -> ray up -> ray submit

All machines are asked for at once; one that a cloud takes away is replaced, and none is released
before the cluster is taken down. This module starts nothing and knows no prices.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from fastformers.cluster.launch.cloud_machines import (
    CLIENTS,
    advise,
    check_cloud,
    plan_login,
    plan_machine,
    plan_provider,
)
from fastformers.cluster.launch.host_setup import (
    HOST_DIRECTORY,
    Shipment,
    own_python,
    plan_client_setup,
    plan_file_mounts,
    plan_gpu_setup,
    plan_head_start,
    plan_setup,
    plan_worker_start,
)
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.errors import InputError

_NAME = "fastformers"
_APT = "sudo apt-get update -qq && sudo apt-get install -qq -y python3-venv"


@dataclass(frozen=True, kw_only=True)
class CloudCluster:
    """A head and equal workers of one cloud, and helpers of another type.

    Attributes:
        worker: The workers' row of the price table, which says which cloud and where.
        num_workers: Machines beside the head.
        spot: Whether the workers are spot machines; the head never is.
        head_type: Instance type of a head that does not score; None for one that is of the
            workers' type and scores as they do.
        helper: Row of machines without GPUs that tokenize for the workers; None without such.
        num_helpers: How many of them.
    """

    worker: InstancePrice
    num_workers: int
    spot: bool
    head_type: str | None = None
    helper: InstancePrice | None = None
    num_helpers: int = 0

    def __post_init__(self) -> None:
        check_cloud(self.worker.cloud, self.worker.instance_type)
        if self.num_workers < (0 if self.head_type is None else 1):
            raise InputError(
                f"--num-workers {self.num_workers}: give at least 1, for the head does not score"
            )


@dataclass(frozen=True, kw_only=True)
class HostCluster:
    """Hosts of one's own, which the launching machine reaches by SSH.

    Attributes:
        head_ip: Address of the head, by which the workers reach it, too.
        worker_ips: Addresses of the others.
        user: Login on all of them.
        key: Path of the private key on the launching machine; the head gets it, to log in to the
            workers.
        head_scores: Whether actors may run on the head.
    """

    head_ip: str
    worker_ips: tuple[str, ...]
    user: str
    key: str
    head_scores: bool = True

    def __post_init__(self) -> None:
        if not self.worker_ips and not self.head_scores:
            raise InputError("--worker-ips: give at least one, for the head does not score")
        for flag, host in [
            ("--head-ip", self.head_ip),
            *(("--worker-ips", host) for host in self.worker_ips),
        ]:
            if not host or any(map(str.isspace, host)):
                raise InputError(f"{flag} {host!r}: give the address of a host")
        if len({self.head_ip, *self.worker_ips}) < 1 + len(self.worker_ips):
            raise InputError("--head-ip and --worker-ips name a host twice")


def build_cloud_file(cluster: CloudCluster, shipment: Shipment) -> dict[str, Any]:
    """Ray's configuration of machines of a cloud, as plain values."""
    worker, helper = cluster.worker, cluster.helper
    head_scores = cluster.head_type is None
    nodes: dict[str, Any] = {
        "head": {
            "resources": _resources(worker) if head_scores else {"CPU": 0},
            "min_workers": 0,
            "max_workers": 0,
            "node_config": plan_machine(
                worker.cloud,
                cluster.head_type or worker.instance_type,
                is_arm=head_scores and worker.is_arm,
                gpus=worker.gpu_count if head_scores else 0,
                spot=False,
            ),
        }
    }
    if cluster.num_workers:
        nodes["worker"] = _workers(worker, cluster.num_workers, spot=cluster.spot)
    if helper is not None and cluster.num_helpers:
        nodes["helper"] = _workers(helper, cluster.num_helpers, spot=cluster.spot)
    setup = [_APT, *plan_setup(shipment, python="python3")]
    return {
        "cluster_name": _NAME,
        "max_workers": cluster.num_workers + cluster.num_helpers,
        "idle_timeout_minutes": 60,
        "provider": plan_provider(worker.cloud, worker.region),
        "auth": plan_login(worker.cloud),
        "available_node_types": nodes,
        "head_node_type": "head",
        "file_mounts": plan_file_mounts(shipment),
        "setup_commands": [*setup, *(plan_gpu_setup() if worker.gpu_count else [])],
        "head_setup_commands": [plan_client_setup(CLIENTS[worker.cloud])],
        "worker_setup_commands": [],
        "head_start_ray_commands": plan_head_start(scores=head_scores, rents=True),
        "worker_start_ray_commands": plan_worker_start(),
    }


def _workers(price: InstancePrice, number: int, *, spot: bool) -> dict[str, Any]:
    """Ray's description of so many machines of a type that are there all the time."""
    return {
        "resources": _resources(price),
        "min_workers": number,
        "max_workers": number,
        "node_config": plan_machine(
            price.cloud,
            price.instance_type,
            is_arm=price.is_arm,
            gpus=price.gpu_count,
            spot=spot,
        ),
    }


def _resources(price: InstancePrice) -> dict[str, int]:
    return {"CPU": price.vcpus} | ({"GPU": price.gpu_count} if price.gpu_count else {})


def build_host_file(cluster: HostCluster, shipment: Shipment, *, python: str) -> dict[str, Any]:
    """Ray's configuration of hosts of one's own, as plain values.

    Args:
        cluster: The hosts.
        shipment: What is copied to each of them.
        python: Interpreter that all hosts have.
    """
    return {
        "cluster_name": _NAME,
        "provider": {
            "type": "local",
            "head_ip": cluster.head_ip,
            "worker_ips": list(cluster.worker_ips),
        },
        "auth": {"ssh_user": cluster.user, "ssh_private_key": cluster.key},
        "file_mounts": plan_file_mounts(shipment),
        "setup_commands": plan_setup(shipment, python=python),
        "head_start_ray_commands": plan_head_start(scores=cluster.head_scores, rents=False),
        "worker_start_ray_commands": plan_worker_start(),
    }


def render_cloud_file(cluster: CloudCluster, shipment: Shipment) -> str:
    """Text of the file for a cloud, with what to do with it at its top."""
    worker, market = cluster.worker, "spot" if cluster.spot else "on-demand"
    workers = f"{cluster.num_workers} {market} workers {worker.instance_type}"
    if cluster.helper is not None and cluster.num_helpers:
        workers += f" and {cluster.num_helpers} {cluster.helper.instance_type} that tokenize"
    head = cluster.head_type or worker.instance_type
    scores = "scores, too" if cluster.head_type is None else "does not score"
    about = [f"{workers} in {worker.region}, and an on-demand head {head}, which {scores}."]
    if worker.gpu_count:
        about.append(
            "Those with GPUs get NVIDIA's driver and onnxruntime-gpu: score --device cuda."
        )
    return _render(build_cloud_file(cluster, shipment), [*about, *advise(worker.cloud)])


def render_host_file(cluster: HostCluster, shipment: Shipment, *, python: str | None = None) -> str:
    """Text of the file for hosts of one's own, with what to do with it at its top."""
    python = python or own_python()
    about = [
        f"Head {cluster.head_ip} and {len(cluster.worker_ips)} workers. All have {python} with its",
        "venv module and rsync, and reach each other on all ports, which nobody else may reach.",
        "ray up ends what Ray runs there under the same user.",
    ]
    return _render(build_host_file(cluster, shipment, python=python), about)


def _render(config: dict[str, Any], about: list[str]) -> str:
    lines = [
        "What `ray up` starts fastformers on. `fastformers launch` writes this file, the wheel and",
        "the token that its file_mounts name.",
        *about,
        "  ray up cluster.yaml",
        f"  ray exec cluster.yaml 'fastformers score CORPUS --bundle {HOST_DIRECTORY}/bundle "
        "--output OUT'",
        "  ray down cluster.yaml",
        "CORPUS and OUT are URIs of a bucket, or absolute paths of a disk that all machines share.",
        "Whoever has the token can run any code there; it goes to no other file. For the dashboard",
        "and the job server, `ray dashboard cluster.yaml` makes a tunnel to port 8265; then",
        "  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/auth_token",
        "  ray job submit --address http://localhost:8265 -- fastformers score ...",
    ]
    comments = "".join(f"# {line}\n" for line in lines)
    return comments + yaml.safe_dump(config, sort_keys=False, width=10_000)
