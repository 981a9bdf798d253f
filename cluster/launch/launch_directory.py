"""Write all that a cluster is started from into one directory.

    cluster, bundle -> [launch_directory] -> cluster.yaml, wheel, auth_token -> ray up

This module writes files and starts nothing.
"""

import shutil
from pathlib import Path

from fastformers.atomic_file import whole_file
from fastformers.cluster.launch.access_token import TOKEN_FILE, write_token
from fastformers.cluster.launch.host_setup import Shipment
from fastformers.cluster.launch.kuberay_job import KubernetesCluster, render_image, render_ray_job
from fastformers.cluster.launch.ray_cluster_file import (
    CloudCluster,
    HostCluster,
    render_cloud_file,
    render_host_file,
)
from fastformers.cluster.launch.wheel import build_wheel
from fastformers.errors import InputError

CLUSTER_FILE = "cluster.yaml"
JOB_FILE = "rayjob.yaml"


def check_launch_directory(directory: Path) -> None:
    """Refuse a directory in which a cluster's files would take the place of others.

    Raises:
        InputError: It is a file, or holds what launch did not write.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: a file; name a directory, for several files are written")
    found = [path.name for path in directory.iterdir()] if directory.exists() else []
    own = (CLUSTER_FILE, JOB_FILE, TOKEN_FILE, ".whl")  # some are there where it was interrupted
    if found and not any(name.endswith(own) for name in found):
        raise InputError(f"{directory}: holds something else; name a directory of its own")


def write_launch_files(
    directory: Path,
    cluster: CloudCluster | HostCluster | KubernetesCluster,
    *,
    bundle: Path | None,
) -> Path:
    """Write a cluster's files; returns the one that `ray up` or `kubectl apply` takes.

    Args:
        directory: Made where it is missing; the token in it is kept.
        cluster: What to start.
        bundle: Directory of a bundle that travels along, or None.

    Raises:
        InputError: The directory is a file or another's, or the wheel cannot be built.
    """
    check_launch_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    wheel = build_wheel(directory)
    if isinstance(cluster, KubernetesCluster):
        if bundle is not None:  # an image is built from what lies beside its recipe
            shutil.copytree(bundle, directory / "bundle", dirs_exist_ok=True)
        shipment = Shipment(wheel=str(wheel), bundle=None if bundle is None else "bundle")
        _write(directory / "Dockerfile", render_image(shipment))
        return _write(directory / JOB_FILE, render_ray_job(cluster))
    shipment = Shipment(
        wheel=str(wheel),
        token=str(write_token(directory)),
        bundle=None if bundle is None else str(bundle.resolve()),
    )
    # The token is in no commit, if the directory is.
    _write(directory / ".gitignore", f"{TOKEN_FILE}\n")
    if isinstance(cluster, CloudCluster):
        text = render_cloud_file(cluster, shipment)
    else:
        text = render_host_file(cluster, shipment)
    return _write(directory / CLUSTER_FILE, text)


def _write(path: Path, text: str) -> Path:
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path
