"""Write a job for Kubernetes: the image's recipe, and the RayJob that KubeRay runs.

    image, workers -> [kuberay_job] -> rayjob.yaml, Dockerfile -> kubectl apply

The operator makes the token's secret itself (KubeRay 1.5 or newer), and the job's cluster lives as
long as the job. This module starts nothing.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from fastformers.cluster.launch.host_setup import Shipment, ray_version
from fastformers.errors import InputError

# The image's Python; any that this project supports would do, for all pods have this one.
_BASE_IMAGE_PYTHON = "py312"
_HOME = "/home/ray"
_MEMORY_GIB_PER_CPU = 2
# A spot node of GKE, EKS and AKS, by the label that each gives it.
_SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
# Taints that keep other pods from the spot nodes of GKE and AKS.
_SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


@dataclass(frozen=True, kw_only=True)
class KubernetesCluster:
    """Pods of a job: a head without scoring CPUs, and equal workers.

    Attributes:
        image: Name under which the image of the recipe is pushed.
        num_workers: Pods that score.
        cpus_per_worker: CPUs of each of them, as whole CPUs of its own.
        spot: Whether workers prefer spot nodes.
    """

    image: str
    num_workers: int
    cpus_per_worker: int
    spot: bool

    def __post_init__(self) -> None:
        if not self.image or any(map(str.isspace, self.image)):
            raise InputError(f"--image {self.image!r}: give a name such as registry/name:1")
        if self.num_workers < 1:
            raise InputError(
                f"--num-workers {self.num_workers}: give at least 1, for the head does not score"
            )
        if self.cpus_per_worker < 1:
            raise InputError(f"--cpus-per-worker {self.cpus_per_worker}: give at least 1")


def build_ray_job(cluster: KubernetesCluster) -> dict[str, Any]:
    """The RayJob, as plain values."""
    head = _pod("ray-head", cluster.image, cpus=2, memory_gib=8)
    worker = _pod(
        "ray-worker",
        cluster.image,
        cpus=cluster.cpus_per_worker,
        memory_gib=cluster.cpus_per_worker * _MEMORY_GIB_PER_CPU,
    )
    if cluster.spot:
        worker["spec"] |= _prefer_spot()
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "fastformers"},
        "spec": {
            "entrypoint": f"fastformers score CORPUS --bundle {_HOME}/bundle --output OUT",
            "submissionMode": "K8sJobMode",
            # A job that failed goes on where it stopped, on a new cluster.
            "backoffLimit": 2,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": {
                "rayVersion": ray_version(),
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "serviceType": "ClusterIP",
                    "rayStartParams": {"num-cpus": "0"},
                    "template": head,
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": cluster.num_workers,
                        "minReplicas": cluster.num_workers,
                        "maxReplicas": cluster.num_workers,
                        "rayStartParams": {},
                        "template": worker,
                    }
                ],
            },
        },
    }


def render_ray_job(cluster: KubernetesCluster) -> str:
    """Text of the RayJob, with what to do with it at its top."""
    lines = [
        "A job for KubeRay 1.5 or newer, which makes the token's secret itself.",
        "Write CORPUS and OUT, URIs of a bucket, into the entrypoint, then",
        f"  docker build -t {cluster.image} . && docker push {cluster.image}",
        "  kubectl apply -f rayjob.yaml",
        "  kubectl logs -f job/fastformers",
        "Pods read buckets with the identity of their service account: add serviceAccountName to",
        "both templates. The head's service is of this cluster alone; leave it so.",
    ]
    comments = "".join(f"# {line}\n" for line in lines)
    return comments + yaml.safe_dump(build_ray_job(cluster), sort_keys=False, width=10_000)


def render_image(shipment: Shipment) -> str:
    """Recipe of the image: Ray's own of the same version, this project's wheel, the bundle."""
    lines = [
        f"FROM rayproject/ray:{ray_version()}-{_BASE_IMAGE_PYTHON}-cpu",
        f"COPY {shipment.wheel_name} /tmp/",
        f'RUN pip install --no-cache-dir "/tmp/{shipment.wheel_name}[cluster]"',
    ]
    if shipment.bundle is not None:
        lines.append(f"COPY bundle {_HOME}/bundle")
    return "".join(f"{line}\n" for line in lines)


def _pod(name: str, image: str, *, cpus: int, memory_gib: int) -> dict[str, Any]:
    """A pod whose CPUs are its own: requests equal limits, which a static CPU policy asks for."""
    resources = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    return {
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "resources": {"requests": resources, "limits": dict(resources)},
                    "securityContext": {"allowPrivilegeEscalation": False},
                }
            ],
        }
    }


def _prefer_spot() -> dict[str, Any]:
    terms = [
        {
            "weight": 100,
            "preference": {
                "matchExpressions": [{"key": label, "operator": "In", "values": [value]}]
            },
        }
        for label, value in _SPOT_LABELS.items()
    ]
    return {
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}},
        "tolerations": [
            {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in _SPOT_TAINTS
        ],
    }
