"""The wheel holds this code, whether it runs from a checkout or was installed from a wheel."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fastformers import installation
from fastformers.cluster.launch import wheel
from fastformers.cluster.launch.wheel import build_wheel
from fastformers.errors import InputError

REPOSITORY = Path(__file__).parents[3]
PIP_INSTALL = (
    *(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"),
    *("--no-deps", "--no-index", "--no-compile", "--target"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def names_of(path):
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_of_the_checkout_holds_all_of_its_packages(built):
    modules = {
        str(package / path.relative_to(REPOSITORY / package.name))
        for package in map(Path, ("fastformers", "fastformers/cluster", "fastformers/jobs"))
        for path in (REPOSITORY / package.name).rglob("*.py")
    }
    names = names_of(built)
    assert modules <= names
    assert {"fastformers/cluster/pricing/prices.csv", "fastformers/demo_bundle/model.onnx"} <= names
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)
    with zipfile.ZipFile(built) as archive:
        metadata = archive.read("fastformers_batch-0.1.0.dist-info/METADATA").decode()
    assert "Provides-Extra: cluster" in metadata
    assert "Name: fastformers-batch" in metadata.splitlines()


def test_the_same_code_gives_the_same_bytes_and_leaves_nothing_behind(built, tmp_path):
    before = set(REPOSITORY.iterdir())
    again = build_wheel(tmp_path)
    assert (
        hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(built.read_bytes()).digest()
    )
    assert again.name == built.name
    assert set(REPOSITORY.iterdir()) == before


@pytest.fixture
def installed(built, tmp_path):
    """A directory that pip installed the wheel into."""
    target = tmp_path / "site"
    subprocess.run([*PIP_INSTALL, target, built], check=True)
    return target


def test_an_installed_wheel_is_packed_again(built, installed, tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "__file__", str(installed / "fastformers/installation.py"))
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    packed = build_wheel(tmp_path / "packed")
    assert packed.name == built.name
    assert names_of(packed) == names_of(built)
    once, again = zipfile.ZipFile(built), zipfile.ZipFile(packed)
    for name in names_of(built):
        if not name.endswith("RECORD"):
            assert again.read(name) == once.read(name)
    record = "fastformers_batch-0.1.0.dist-info/RECORD"
    lines = [set(archive.read(record).decode().split()) for archive in (once, again)]
    assert lines[0] == lines[1]
    subprocess.run([*PIP_INSTALL, tmp_path / "twice", packed], check=True)
    assert (tmp_path / "twice" / "fastformers/jobs/score.py").exists()


def test_an_installation_that_lists_no_files_is_refused(installed, tmp_path, monkeypatch):
    (record,) = installed.glob("*.dist-info/RECORD")
    record.unlink()
    distribution = PathDistribution(record.parent)
    monkeypatch.setattr(wheel, "find_distribution", lambda: distribution)
    monkeypatch.setattr(wheel, "find_checkout", lambda: None)
    with pytest.raises(InputError, match=r"does not list its own files; .*pip"):
        build_wheel(tmp_path)


def test_a_stranger_of_the_same_name_is_not_shipped(installed, tmp_path, monkeypatch):
    """The public index has another project of this import name, without commands."""
    (record,) = installed.glob("*.dist-info/RECORD")
    own = [line for line in record.read_text().splitlines() if "fastformers/jobs/" not in line]
    record.write_text("\n".join(own))
    monkeypatch.setattr(installation, "__file__", str(installed / "fastformers/installation.py"))
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    with pytest.raises(InputError, match="does not list its own files"):
        build_wheel(tmp_path)


def test_code_that_nobody_installed_is_refused(tmp_path, monkeypatch):
    copied = tmp_path / "copied" / "fastformers" / "installation.py"
    copied.parent.mkdir(parents=True)
    copied.touch()
    monkeypatch.setattr(installation, "__file__", str(copied))
    with pytest.raises(InputError, match="not installed by pip and is no checkout"):
        build_wheel(tmp_path)


def test_a_build_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel, "_BUILD", "raise ImportError('no setuptools here')")
    with pytest.raises(
        InputError, match=r"no setuptools here\); .*pip install .*\[cluster\]' brings"
    ):
        build_wheel(tmp_path)


def write_empty_wheel(directory, name, version):
    name = name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", head)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("extra", ["", "[cluster]", "[dev]"])
def test_extras_that_name_the_project_bring_no_stranger(built, tmp_path, extra):
    """`dev` names the project itself; an index offers a newer version of that name."""
    with zipfile.ZipFile(built) as archive:
        text = archive.read("fastformers_batch-0.1.0.dist-info/METADATA").decode()
    lines = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("Requires-D")]
    names = {Requirement(line).name for line in lines}
    assert {"ray", "torch", "fastformers-batch"} <= names
    for name in names:
        write_empty_wheel(tmp_path, name, "9999.0")
    variables = {name: os.environ[name] for name in os.environ if not name.startswith("PIP_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "-qq"),
            *("--ignore-installed", "--disable-pip-version-check", "--no-index"),
            *("--find-links", tmp_path, "--report", "-", f"{built}{extra}"),
        ],
        env={**variables, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    items = json.loads(done.stdout)["install"]
    versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in items}
    assert versions["fastformers-batch"] == "0.1.0"
    assert versions["ray"] == "9999.0"
    assert ("torch" in versions) == (extra == "[dev]")
