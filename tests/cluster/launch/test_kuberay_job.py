import copy
import gzip
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from fastformers.cluster.launch.kuberay_job import (
    KubernetesCluster,
    build_ray_job,
    render_image,
    render_ray_job,
)
from fastformers.errors import InputError

SCHEMA = json.loads(Path(__file__).with_name("rayjob_schema.json").read_text())
# KubeRay's own schema of ray.io/v1 (ray.io_rayjobs.yaml of operator 1.7, Apache-2.0), as JSON.
PUBLISHED = Path(__file__).with_name("rayjob_published.json.gz")
CLUSTER = KubernetesCluster(image="registry/scoring:1", num_workers=3, cpus_per_worker=8, spot=True)


def refuse_others(schema):
    """A schema that accepts no field beside those it names, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [refuse_others(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: refuse_others(part) for key, part in schema.items()}
    is_open = "additionalProperties" in schema or "x-kubernetes-preserve-unknown-fields" in schema
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not is_open
    ):
        strict["additionalProperties"] = False
    return strict


@pytest.mark.parametrize("spot", [False, True])
def test_the_job_has_the_fields_that_kuberay_knows(spot):
    job = yaml.safe_load(render_ray_job(replace(CLUSTER, spot=spot)))
    jsonschema.validate(job, SCHEMA)
    assert job == build_ray_job(replace(CLUSTER, spot=spot))


@pytest.mark.parametrize("spot", [False, True])
def test_the_published_definition_accepts_the_job(spot):
    schema = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
    schema["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
    strict = jsonschema.Draft202012Validator(refuse_others(schema))
    job = build_ray_job(replace(CLUSTER, spot=spot))
    strict.validate(job)
    wrong = change(job, ("spec", "rayClusterSpec"), {"authMode": "token"})
    (error,) = strict.iter_errors(wrong)
    assert "'authMode' was unexpected" in error.message


def change(job, path, fields):
    changed = copy.deepcopy(job)
    place = changed
    for name in path:
        place = place[name]
    place.update(fields)
    return changed


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ((), {"kind": "RayCluster"}),
        (("spec",), {"entryPoint": "fastformers"}),
        (("spec",), {"submissionMode": "K8sJob"}),
        (("spec", "rayClusterSpec"), {"authOptions": {"mode": "password"}}),
        (("spec", "rayClusterSpec", "headGroupSpec"), {"rayStartParams": {"num-cpus": 0}}),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), {"replicas": "3"}),
    ],
)
def test_the_schema_refuses_what_kuberay_would(path, fields):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(change(build_ray_job(CLUSTER), path, fields), SCHEMA)


def test_the_head_scores_nothing_and_every_pod_asks_for_the_token():
    spec = build_ray_job(CLUSTER)["spec"]["rayClusterSpec"]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__


def test_workers_prefer_spot_nodes_and_the_head_does_not():
    spec = build_ray_job(CLUSTER)["spec"]["rayClusterSpec"]
    assert "spot" in str(spec["workerGroupSpecs"][0]["template"])
    assert "spot" not in str(spec["headGroupSpec"]["template"])
    assert "spot" not in str(build_ray_job(replace(CLUSTER, spot=False)))


def test_a_workers_cpus_are_its_own():
    (group,) = build_ray_job(CLUSTER)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "8", "memory": "16Gi"}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert group["minReplicas"] == group["maxReplicas"] == group["replicas"] == 3


def test_the_image_installs_the_wheel_beside_its_recipe(shipment):
    lines = render_image(shipment).splitlines()
    assert lines[0].startswith(f"FROM rayproject/ray:{ray.__version__}-py3")
    assert lines[1:3] == [
        "COPY fastformers_batch-0.1.0-py3-none-any.whl /tmp/",
        'RUN pip install --no-cache-dir "/tmp/fastformers_batch-0.1.0-py3-none-any.whl[cluster]"',
    ]
    assert lines[3:] == ["COPY bundle /home/ray/bundle"]
    assert len(render_image(replace(shipment, bundle=None)).splitlines()) == 3


@pytest.mark.parametrize(
    ("field", "flag"), [("num_workers", "--num-workers"), ("cpus_per_worker", "--cpus-per-worker")]
)
def test_a_job_without_workers_is_refused(field, flag):
    with pytest.raises(InputError, match=f"{flag} 0: give at least 1"):
        replace(CLUSTER, **{field: 0})
