"""Shipments and clusters of each kind, and Ray's own checks of a cluster file."""

import json
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from fastformers.cluster.launch.host_setup import Shipment


@pytest.fixture
def shipment():
    """Files that travel, by the paths of the examples."""
    return Shipment(
        wheel="./fastformers_batch-0.1.0-py3-none-any.whl", token="./auth_token", bundle="./bundle"
    )


@pytest.fixture(scope="session")
def check():
    """Ray's own checks of a cluster file: schema, defaults, node types."""
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())

    def run(config):
        jsonschema.validate(config, schema)
        prepared = prepare_config(json.loads(json.dumps(config)))
        validate_config(prepared)
        return prepared

    return run
