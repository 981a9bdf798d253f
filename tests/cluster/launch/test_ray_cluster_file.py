import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cluster.cost.cluster_plan import MachineOffer, PlanSettings, predict_cluster
from cluster.cost.ray_cluster_file import build_cluster_file, render_cluster_file
from cluster.pricing.prices import load_prices
from fastformers.errors import InputError


def make_plan(price, number):
    offer = MachineOffer(
        instance_type=price.instance_type,
        usd_per_hour=1.0,
        worker_usd_per_hour=1.0,
        num_actors=8,
        job_s=1e5,
        shard_s=20.0,
    )
    return predict_cluster(offer, number, PlanSettings())


@pytest.fixture(scope="module")
def check():
    """Ray's own checks of a cluster file: schema, defaults, node types."""
    jsonschema = pytest.importorskip("jsonschema")
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())

    def run(config):
        jsonschema.validate(config, schema)
        prepared = prepare_config(json.loads(json.dumps(config)))
        validate_config(prepared)
        return prepared

    return run


@pytest.mark.parametrize("spot", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *("c7i.4xlarge", "c8g.4xlarge", "g6.xlarge"),
        *("Standard_F16s_v2", "Standard_D16pls_v6", "Standard_NC4as_T4_v3"),
        *("n2-highcpu-16", "c4a-highcpu-16", "g2-standard-4"),
    ],
)
def test_ray_accepts_the_file_of_each_cloud_and_kind_of_machine(check, name, spot):
    price = load_prices()[name]
    text = render_cluster_file(make_plan(price, 3), price, spot=spot)
    prepared = check(yaml.safe_load(text))
    nodes = prepared["available_node_types"]
    assert set(nodes) == {"head", "worker"}
    assert nodes["worker"]["min_workers"] == nodes["worker"]["max_workers"] == 2
    assert nodes["head"]["resources"]["CPU"] == price.vcpus
    assert nodes["head"]["resources"].get("GPU", 0) == price.gpu_count


def test_one_machine_has_no_workers(check):
    price = load_prices()["c7i.4xlarge"]
    config = build_cluster_file(make_plan(price, 1), price, spot=True)
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
def test_the_head_is_never_a_spot_machine(name, market):
    price = load_prices()[name]
    nodes = build_cluster_file(make_plan(price, 2), price, spot=True)["available_node_types"]
    assert market in str(nodes["worker"])
    assert market not in str(nodes["head"])
    nodes = build_cluster_file(make_plan(price, 2), price, spot=False)["available_node_types"]
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
def test_an_arm_machine_gets_an_arm_image(name, image):
    price = load_prices()[name]
    assert image in str(build_cluster_file(make_plan(price, 1), price, spot=False))


def test_another_cloud_is_refused():
    price = replace(load_prices()["c7i.4xlarge"], cloud="basement")
    with pytest.raises(InputError, match="cloud 'basement', and Ray starts machines of aws, azure"):
        build_cluster_file(make_plan(price, 1), price, spot=False)
