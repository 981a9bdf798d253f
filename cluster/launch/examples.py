"""The example files beside this module, one for each place where a cluster can be.

    [examples] -> aws.yaml, azure.yaml, gcp.yaml, on_premise.yaml, kuberay_rayjob.yaml

They are for reading: `fastformers launch` writes the same with your own machines, the wheel and the
token. `python -m fastformers.cluster.launch.examples` writes them again.
"""

from pathlib import Path

from fastformers.cluster.launch.cloud_machines import HEAD_TYPE
from fastformers.cluster.launch.host_setup import Shipment
from fastformers.cluster.launch.kuberay_job import KubernetesCluster, render_ray_job
from fastformers.cluster.launch.ray_cluster_file import (
    CloudCluster,
    HostCluster,
    render_cloud_file,
    render_host_file,
)
from fastformers.cluster.launch.wheel import wheel_name
from fastformers.cluster.pricing.prices import load_prices

_WORKER_TYPE = {"aws": "c7i.4xlarge", "azure": "Standard_F16as_v6", "gcp": "c3d-highcpu-16"}


def render_examples() -> dict[str, str]:
    """Text of each example, by file name."""
    shipment = Shipment(wheel=f"./{wheel_name()}", token="./auth_token", bundle="./bundle")
    prices = load_prices()
    examples = {
        f"{cloud}.yaml": render_cloud_file(
            CloudCluster(
                worker=prices[worker], num_workers=4, spot=True, head_type=HEAD_TYPE[cloud]
            ),
            shipment,
        )
        for cloud, worker in _WORKER_TYPE.items()
    }
    hosts = HostCluster(
        head_ip="10.0.0.1",
        worker_ips=("10.0.0.2", "10.0.0.3"),
        user="ubuntu",
        key="~/.ssh/id_ed25519",
    )
    examples["on_premise.yaml"] = render_host_file(hosts, shipment, python="python3.11")
    job = KubernetesCluster(
        image="registry.example.org/scoring:1", num_workers=4, cpus_per_worker=8, spot=True
    )
    examples["kuberay_rayjob.yaml"] = render_ray_job(job)
    return examples


if __name__ == "__main__":
    for name, text in render_examples().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
