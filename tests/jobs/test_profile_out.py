"""`fastformers bench --profile-out` by itself: what a stranger runs on a rented machine."""

import getpass
import json
import socket
from dataclasses import replace

import pytest

from fastformers.benchmark import operator_profile
from fastformers.cluster.cost.machine_profile import load_profile, reference_profile
from fastformers.cluster.pricing.prices import load_prices
from fastformers.errors import InputError
from fastformers.inference.bundle import DEMO_BUNDLE
from fastformers.jobs.benchmarks import arguments
from fastformers.jobs.console import calibrate
from fastformers.jobs.console.cli import main


@pytest.fixture
def measured(monkeypatch):
    """Lists what is measured, which takes no time."""
    asked = []

    def measure(bundle, *, texts, core_sets, machine, instance_type):
        asked.append((bundle.path, len(core_sets)))
        return replace(
            reference_profile(),
            origin="calibration",
            measured_at="2026-11-26",
            num_workers=len(core_sets),
            machine=machine,
            instance_type=instance_type,
        )

    monkeypatch.setattr(calibrate, "measure_machine_profile", measure)
    monkeypatch.setattr(operator_profile, "_GEMM_SIZES", (16,))
    monkeypatch.setattr(operator_profile, "_GEMM_S", 0.001)
    return asked


@pytest.fixture
def on_cloud(monkeypatch):
    """Sets what the metadata service of this machine's cloud answers."""

    def say(instance_type):
        monkeypatch.setattr(arguments, "read_instance_type", lambda: instance_type)

    say(None)
    return say


def fit_type(monkeypatch, instance_type):
    """Let this machine have the cores of a type."""
    cores = [frozenset({0})] * load_prices()[instance_type].physical_cores
    monkeypatch.setattr(calibrate, "_all_cores", lambda: cores)


def test_one_command_measures_the_bundle_that_everybody_has(
    measured, on_cloud, monkeypatch, capsys, tmp_path
):
    pytest.importorskip("onnx")
    on_cloud("c7i.4xlarge")
    fit_type(monkeypatch, "c7i.4xlarge")
    path = tmp_path / "mine.json"
    assert main(["bench", "--profile-out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert measured == [(DEMO_BUNDLE, 8)]
    profile = load_profile(path)
    assert profile.bundle_digest == reference_profile().bundle_digest
    assert profile.instance_type == "c7i.4xlarge"
    assert profile.machine.int8_gops > 0
    shown = json.loads(out.splitlines()[-1])
    assert shown["instance_type"] == "c7i.4xlarge"
    assert shown["machine"]["isa"] == list(profile.machine.isa)
    assert f"wrote {path}" in err
    written = path.read_text()
    for secret in (socket.gethostname(), getpass.getuser(), "/"):
        assert f'"{secret}' not in written


def test_without_onnx_matrix_products_are_left_out(measured, on_cloud, monkeypatch, tmp_path):
    monkeypatch.setattr(calibrate, "find_spec", lambda name: None)
    assert main(["bench", "--profile-out", str(tmp_path / "mine.json")]) == 0
    machine = load_profile(tmp_path / "mine.json").machine
    assert (machine.int8_gops, machine.float_gops) == (None, None)


def test_the_cloud_knows_its_type_better_than_a_flag(measured, on_cloud, capsys, tmp_path):
    on_cloud("c7i.4xlarge")
    path = str(tmp_path / "mine.json")
    assert main(["bench", "--profile-out", path, "--instance-type", "c7a.4xlarge"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("the cloud says that this machine is c7i.4xlarge; leave it out")
    assert not measured


def test_a_part_of_a_machine_is_of_no_type(on_cloud, monkeypatch, capsys):
    on_cloud("Standard_F72s_v2")
    fit_type(monkeypatch, "c7i.4xlarge")
    assert arguments.find_whole_type(None) is None
    assert "only a part of this Standard_F72s_v2" in capsys.readouterr().err
    with pytest.raises(InputError, match="has 36 physical cores, but 8 are measured"):
        arguments.find_whole_type("Standard_F72s_v2")


def test_a_type_that_no_table_has_is_kept_by_its_name(on_cloud):
    on_cloud("c9z.large")
    assert arguments.find_whole_type(None) == "c9z.large"
    on_cloud(None)
    assert arguments.find_whole_type(None) is None
