import json
from pathlib import Path

import pytest
import yaml

from fastformers.jobs.console.cli import main


@pytest.fixture
def launch(capsys, tmp_path):
    """Run `fastformers launch`; returns its JSON, or the one line it is refused with."""

    def run(cloud, *options):
        output = ("--output", str(tmp_path / "launch"))
        status = main(["launch", "--cloud", cloud, *output, *map(str, options)])
        captured = capsys.readouterr()
        if status == 0:
            return json.loads(captured.out)
        (line,) = captured.err.splitlines()
        assert (status, captured.out) == (2, "")
        return line

    return run


def test_spot_workers_and_a_small_head_are_the_default(launch):
    shown = launch("aws", "--instance-type", "c7i.4xlarge")
    assert shown["files"][-1].endswith(".whl")
    nodes = yaml.safe_load(Path(shown["file"]).read_text())["available_node_types"]
    assert nodes["worker"]["min_workers"] == 2
    assert "MarketType" in str(nodes["worker"])
    assert nodes["head"]["node_config"]["InstanceType"] == "m7i.large"
    assert nodes["head"]["resources"] == {"CPU": 0}


def test_machines_of_a_cloud_can_be_chosen(launch, bundle):
    shown = launch(
        *("gcp", "--instance-type", "n2-highcpu-16", "--num-workers", "5", "--on-demand"),
        *("--head-type", "same", "--region", "europe-west4", "--bundle", bundle.path),
    )
    config = yaml.safe_load(Path(shown["file"]).read_text())
    nodes = config["available_node_types"]
    assert config["provider"]["availability_zone"] == "europe-west4-a"
    assert config["max_workers"] == nodes["worker"]["min_workers"] == 5
    assert nodes["head"]["resources"]["CPU"] == 16
    assert "preemptible" not in str(nodes)
    assert str(bundle.path) in config["file_mounts"].values()


def test_own_hosts(launch):
    shown = launch(
        *("local", "--head-ip", "10.0.0.1", "--worker-ips", "10.0.0.2, 10.0.0.3,"),
        *("--ssh-user", "me", "--ssh-key", "/k"),
    )
    config = yaml.safe_load(Path(shown["file"]).read_text())
    assert config["provider"] == {
        "type": "local",
        "head_ip": "10.0.0.1",
        "worker_ips": ["10.0.0.2", "10.0.0.3"],
    }
    assert config["auth"] == {"ssh_user": "me", "ssh_private_key": "/k"}


def test_pods(launch):
    shown = launch("kubernetes", "--image", "r/i:1", "--cpus-per-worker", "4")
    assert "Dockerfile" in shown["files"]
    spec = yaml.safe_load(Path(shown["file"]).read_text())["spec"]["rayClusterSpec"]
    assert spec["workerGroupSpecs"][0]["replicas"] == 2
    assert "'cpu': '4'" in str(spec["workerGroupSpecs"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("aws",), "--instance-type: name the workers' type"),
        (("aws", "--instance-type", "c7i.4xlarg"), "did you mean c7i.4xlarge"),
        (("gcp", "--instance-type", "c7i.4xlarge"), "--cloud gcp: c7i.4xlarge is a type of aws"),
        (("aws", "--image", "r/i:1"), "--image says nothing for --cloud aws; leave it out"),
        (("local", "--on-demand"), "--on-demand says nothing for --cloud local"),
        (("local",), "--head-ip: name the host that becomes the head"),
        (("local", "--head-ip", "a", "--worker-ips", "a"), "name a host twice"),
        (("kubernetes",), "--image: name the image"),
        (("kubernetes", "--image", "i", "--num-workers", "0"), "--num-workers 0: give at least 1"),
        (("kubernetes", "--image", "i", "--ssh-key", "k"), "--ssh-key says nothing for"),
        (("local", "--head-ip", "a", "--bundle", "none"), "none: "),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_is_written(
    launch, tmp_path, options, reason
):
    assert reason in launch(*options)
    assert not (tmp_path / "launch").exists()
