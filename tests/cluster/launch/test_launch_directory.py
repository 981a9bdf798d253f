"""What stands in the directory, and that the token is in one file of it alone."""

import shlex
from pathlib import Path

import pytest
import yaml

from fastformers.cluster.launch.kuberay_job import KubernetesCluster
from fastformers.cluster.launch.launch_directory import write_launch_files
from fastformers.cluster.launch.ray_cluster_file import CloudCluster, HostCluster
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import InputError

HOSTS = HostCluster(head_ip="10.0.0.1", worker_ips=("10.0.0.2",), user="me", key="~/.ssh/k")


def make_clusters():
    prices = load_prices()
    return {
        "hosts": HOSTS,
        "cloud": CloudCluster(worker=prices["c7i.4xlarge"], num_workers=2, spot=True),
    }


@pytest.mark.parametrize("kind", ["hosts", "cloud"])
def test_the_file_names_a_wheel_a_token_and_a_bundle_that_are_there(bundle, tmp_path, kind):
    path = write_launch_files(tmp_path / "launch", make_clusters()[kind], bundle=bundle.path)
    config = yaml.safe_load(path.read_text())
    mounted = [Path(local) for local in config["file_mounts"].values()]
    assert all(local.is_absolute() and local.exists() for local in mounted)
    wheel, token, shipped = mounted
    assert (wheel.suffix, token.name, shipped) == (".whl", "auth_token", bundle.path)
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text()
    others = [file for file in path.parent.iterdir() if file != token]
    assert {file.name for file in others} == {".gitignore", "cluster.yaml", wheel.name}
    assert not any(secret.encode() in file.read_bytes() for file in others)
    assert (path.parent / ".gitignore").read_text() == "auth_token\n"


def test_writing_again_keeps_the_token(tmp_path):
    first = write_launch_files(tmp_path, HOSTS, bundle=None)
    token = (tmp_path / "auth_token").read_text()
    again = write_launch_files(tmp_path, HOSTS, bundle=None)
    assert first == again
    assert (tmp_path / "auth_token").read_text() == token


def test_an_image_is_built_from_the_directory_alone(bundle, tmp_path):
    cluster = KubernetesCluster(image="r/i:1", num_workers=1, cpus_per_worker=2, spot=False)
    path = write_launch_files(tmp_path / "launch", cluster, bundle=bundle.path)
    write_launch_files(tmp_path / "launch", cluster, bundle=bundle.path)
    recipe = (path.parent / "Dockerfile").read_text()
    copied = [shlex.split(line)[1] for line in recipe.splitlines() if line.startswith("COPY")]
    assert len(copied) == 2
    assert all((path.parent / name).exists() for name in copied)
    assert (path.parent / "bundle" / "bundle.json").exists()
    assert not (path.parent / "auth_token").exists()


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "cluster.yaml").write_text("older")
    with pytest.raises(InputError, match=r"cluster\.yaml: a file; name a directory"):
        write_launch_files(tmp_path / "cluster.yaml", HOSTS, bundle=None)
