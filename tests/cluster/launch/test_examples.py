import re
from pathlib import Path

import pytest
import yaml

import fastformers.cluster.launch
from fastformers.cluster.launch.examples import render_examples

FOLDER = Path(fastformers.cluster.launch.__file__).parent
EXAMPLES = render_examples()
RAY_VERSION = re.compile(r"(?<=ray\[default\]==)[\d.]+|(?<=rayVersion: )[\d.]+")


def test_every_place_has_its_example():
    names = {path.name for path in FOLDER.glob("*.yaml")}
    places = {"aws.yaml", "azure.yaml", "gcp.yaml", "on_premise.yaml", "kuberay_rayjob.yaml"}
    assert names == set(EXAMPLES) == places


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_what_the_command_writes(name):
    """Whatever version of Ray wrote it; `cluster.launch.examples`, run, writes it again."""
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert len(RAY_VERSION.findall(written)) == 1
    assert RAY_VERSION.sub("RAY", written) == RAY_VERSION.sub("RAY", EXAMPLES[name])


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not name.startswith("kube")])
def test_ray_accepts_the_example(check, name):
    prepared = check(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")))
    assert prepared["provider"]["type"] == {"on_premise.yaml": "local"}.get(name, name[:-5])


def test_workers_of_a_cloud_are_spot_machines_and_its_head_does_not_score():
    for name in ("aws.yaml", "azure.yaml", "gcp.yaml"):
        nodes = yaml.safe_load(EXAMPLES[name])["available_node_types"]
        assert re.search(r"(?i)spot|preemptible", str(nodes["worker"]["node_config"]))
        assert not re.search(r"(?i)spot|preemptible", str(nodes["head"]["node_config"]))
        assert nodes["head"]["resources"] == {"CPU": 0}


def test_no_example_holds_a_token():
    for text in EXAMPLES.values():
        assert not re.search(r"[0-9a-f]{32}", text)
