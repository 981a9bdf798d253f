from dataclasses import replace

import jsonschema
import pytest
import yaml

from fastformers.cluster.launch.cloud_machines import HEAD_TYPE
from fastformers.cluster.launch.ray_cluster_file import (
    CloudCluster,
    HostCluster,
    build_cloud_file,
    build_host_file,
    render_cloud_file,
    render_host_file,
)
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import InputError

HOSTS = HostCluster(
    head_ip="10.0.0.1", worker_ips=("10.0.0.2", "10.0.0.3"), user="me", key="~/.ssh/k"
)


def make_cluster(name, *, num_workers=2, spot=True, head_type=None):
    price = load_prices()[name]
    return CloudCluster(worker=price, num_workers=num_workers, spot=spot, head_type=head_type)


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *("c7i.4xlarge", "c8g.4xlarge", "g6.xlarge"),
        *("Standard_F16s_v2", "Standard_D16pls_v6", "Standard_NC4as_T4_v3"),
        *("n2-highcpu-16", "c4a-highcpu-16", "g2-standard-4"),
    ],
)
def test_ray_accepts_the_file_of_each_cloud_and_kind_of_machine(
    check, shipment, name, own_head, spot
):
    price = load_prices()[name]
    head_type = HEAD_TYPE[price.cloud] if own_head else None
    cluster = make_cluster(name, spot=spot, head_type=head_type)
    prepared = check(yaml.safe_load(render_cloud_file(cluster, shipment)))
    nodes = prepared["available_node_types"]
    assert set(nodes) == {"head", "worker"}
    assert nodes["worker"]["min_workers"] == nodes["worker"]["max_workers"] == 2
    assert nodes["worker"]["resources"]["CPU"] == price.vcpus
    assert nodes["worker"]["resources"].get("GPU", 0) == price.gpu_count
    assert nodes["head"]["resources"]["CPU"] == (0 if own_head else price.vcpus)
    assert (head_type or name) in str(nodes["head"]["node_config"])
    start = prepared["head_start_ray_commands"][-1]
    assert ("--num-cpus=0" in start) == own_head


def test_gpus_and_those_that_tokenize_for_them_start_together(check, shipment):
    prices = load_prices()
    cluster = CloudCluster(
        worker=prices["g6.xlarge"],
        num_workers=2,
        spot=True,
        helper=prices["c7a.4xlarge"],
        num_helpers=3,
    )
    text = render_cloud_file(cluster, shipment)
    assert "2 spot workers g6.xlarge and 3 c7a.4xlarge that tokenize in us-east-1" in text
    config = check(yaml.safe_load(text))
    nodes = config["available_node_types"]
    assert config["max_workers"] == 5
    assert nodes["helper"]["min_workers"] == nodes["helper"]["max_workers"] == 3
    assert nodes["helper"]["resources"] == {"CPU": 16}
    assert nodes["helper"]["node_config"]["InstanceType"] == "c7a.4xlarge"
    assert "InstanceMarketOptions" in nodes["helper"]["node_config"]
    assert nodes["worker"]["resources"] == {"CPU": 4, "GPU": 1}
    assert nodes["head"]["resources"] == {"CPU": 4, "GPU": 1}


def test_only_clusters_with_gpus_install_a_driver_and_only_where_a_card_is(shipment):
    def setup_of(name):
        return build_cloud_file(make_cluster(name), shipment)["setup_commands"]

    driver, engine = setup_of("g6.xlarge")[-2:]
    assert "ubuntu-drivers install --gpgpu nvidia:580-server" in driver
    assert "onnxruntime-gpu[cuda,cudnn]" in engine
    assert all(command.startswith("! lspci | grep -qi nvidia || ") for command in (driver, engine))
    assert not any("nvidia" in command for command in setup_of("c7i.4xlarge"))


def test_ray_accepts_the_file_of_own_hosts(check, shipment):
    prepared = check(yaml.safe_load(render_host_file(HOSTS, shipment)))
    (node,) = prepared["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == 2
    assert prepared["auth"] == {"ssh_user": "me", "ssh_private_key": "~/.ssh/k"}


def test_the_checks_refuse_what_ray_does_not_know(check, shipment):
    config = build_host_file(HOSTS, shipment, python="python3.11")
    with pytest.raises(jsonschema.ValidationError, match="'setup' was unexpected"):
        check({**config, "setup": []})


def test_one_machine_has_no_workers(check, shipment):
    config = build_cloud_file(make_cluster("c7i.4xlarge", num_workers=0), shipment)
    assert config["max_workers"] == 0
    assert set(check(config)["available_node_types"]) == {"head"}


@pytest.mark.parametrize(
    ("name", "market"),
    [
        ("c7i.4xlarge", "'MarketType': 'spot'"),
        ("Standard_F16s_v2", "'priority': 'Spot'"),
        ("n2-highcpu-16", "'preemptible': True"),
    ],
)
def test_the_head_is_never_a_spot_machine(shipment, name, market):
    nodes = build_cloud_file(make_cluster(name), shipment)["available_node_types"]
    assert market in str(nodes["worker"])
    assert market not in str(nodes["head"])
    nodes = build_cloud_file(make_cluster(name, spot=False), shipment)["available_node_types"]
    assert market not in str(nodes)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("c8g.4xlarge", "/arm64/"),
        ("c7i.4xlarge", "/amd64/"),
        ("Standard_D16pls_v6", "server-arm64"),
        ("c4a-highcpu-16", "lts-arm64"),
    ],
)
def test_an_arm_machine_gets_an_arm_image(shipment, name, image):
    nodes = build_cloud_file(make_cluster(name), shipment)["available_node_types"]
    assert all(image in str(node) for node in nodes.values())


def test_a_head_of_its_own_type_is_no_arm_machine_where_its_workers_are(shipment):
    cluster = make_cluster("c8g.4xlarge", head_type="m7i.large")
    nodes = build_cloud_file(cluster, shipment)["available_node_types"]
    assert "/amd64/" in str(nodes["head"])
    assert "/arm64/" in str(nodes["worker"])


@pytest.mark.parametrize("cluster", ["cloud", "hosts"])
def test_every_process_of_ray_asks_for_the_token(check, shipment, cluster):
    if cluster == "cloud":
        config = check(build_cloud_file(make_cluster("c7i.4xlarge"), shipment))
    else:
        config = check(build_host_file(HOSTS, shipment, python="python3.11"))
    variables = 'RAY_AUTH_MODE="token" RAY_AUTH_TOKEN_PATH="$HOME/fastformers-cluster/auth_token" '
    for role in ("head", "worker"):
        starts = [line for line in config[f"{role}_start_ray_commands"] if "ray start" in line]
        assert len(starts) == 1
        assert variables in starts[0]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    mounts = config["file_mounts"]
    assert mounts["~/fastformers-cluster/auth_token"] == "./auth_token"
    assert "chmod 600 ~/fastformers-cluster/auth_token" in " ".join(config["setup_commands"])


def test_the_machines_install_the_wheel_and_nothing_of_that_name(shipment):
    for config in (
        build_cloud_file(make_cluster("c7i.4xlarge"), shipment),
        build_host_file(HOSTS, shipment, python="python3.11"),
    ):
        wheel = "~/fastformers-cluster/fastformers_batch-0.1.0-py3-none-any.whl"
        assert config["file_mounts"][wheel] == shipment.wheel
        installs = [line for line in config["setup_commands"] if "pip install" in line]
        at_home = wheel.replace("~", "$HOME")
        assert f'"{at_home}[cluster]" "ray[default]==' in installs[0]
        assert installs[1].endswith(f'--no-deps --force-reinstall "{at_home}"')
        assert len(installs) == 2


def test_a_file_without_a_bundle_mounts_none(shipment):
    config = build_host_file(HOSTS, replace(shipment, bundle=None), python="python3.11")
    assert not any("bundle" in path for path in config["file_mounts"])
    assert config["setup_commands"][2] == "python3.11 -m venv ~/fastformers-cluster/venv"


def test_another_cloud_is_refused():
    price = replace(load_prices()["c7i.4xlarge"], cloud="basement")
    with pytest.raises(InputError, match="cloud 'basement', and Ray starts machines of aws, azure"):
        CloudCluster(worker=price, num_workers=1, spot=False)


def test_a_cluster_that_scores_nowhere_is_refused():
    with pytest.raises(InputError, match="--num-workers 0: give at least 1"):
        make_cluster("c7i.4xlarge", num_workers=0, head_type="m7i.large")
    with pytest.raises(InputError, match="--num-workers -1"):
        make_cluster("c7i.4xlarge", num_workers=-1)
    with pytest.raises(InputError, match="name a host twice"):
        replace(HOSTS, worker_ips=("10.0.0.2", "10.0.0.1"))
    with pytest.raises(InputError, match="--worker-ips: give at least one"):
        replace(HOSTS, worker_ips=(), head_scores=False)
