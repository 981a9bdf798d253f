"""What is uploaded, and what is built from it: sources that can be tested, true metadata."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from fastformers.cluster.launch.wheel import build_wheel
from tests.sources import ROOT, list_files, walk

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
PYTHONS = ["3.11", "3.12", "3.13"]


@pytest.fixture(scope="module")
def backend():
    """The build backend that pyproject.toml names."""
    (folder,) = PYPROJECT["build-system"]["backend-path"]
    path = ROOT / folder / f"{PYPROJECT['build-system']['build-backend']}.py"
    spec = importlib.util.spec_from_file_location("backend", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def unpacked(backend, tmp_path_factory):
    """The source distribution of this checkout, as somebody unpacks it."""
    directory = tmp_path_factory.mktemp("sdist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where PEP 517 has a backend run
        name = backend.build_sdist(str(directory))
    assert name == "fastformers_batch-0.1.0.tar.gz"
    with tarfile.open(directory / name) as archive:
        archive.extractall(directory, filter="data")
    return directory / name.removesuffix(".tar.gz")


def test_the_source_distribution_is_the_checkout(unpacked):
    assert walk(unpacked) == {*list_files(), "PKG-INFO"}
    assert "Name: fastformers-batch" in (unpacked / "PKG-INFO").read_text().splitlines()
    for name in ("cluster", "jobs"):
        assert (unpacked / "fastformers" / name).readlink() == Path("..", name)


def test_tests_run_in_it(unpacked):
    """As `make test` runs them there; all of them would take as long as here."""
    tests = ["tests/fastformers/test_options.py", "tests/cluster/test_formatting.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests, "tests/fastformers/test_installation.py"],
        cwd=unpacked,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_a_wheel_of_it_is_the_wheel_of_the_checkout(unpacked, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom fastformers.cluster.launch.wheel import "
        "build_wheel\nprint(build_wheel(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "theirs"],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ours = build_wheel(tmp_path / "ours")
    assert Path(done.stdout.strip()).read_bytes() == ours.read_bytes()


def test_the_same_files_give_the_same_source_distribution(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        backend.build_sdist(str(tmp_path / name))
        contents.append((tmp_path / name / "fastformers_batch-0.1.0.tar.gz").read_bytes())
    assert contents[0] == contents[1]


def test_the_metadata_say_what_is_true(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    classifiers = [line.partition("Classifier: ")[2] for line in lines]
    supported = [f"Programming Language :: Python :: {version}" for version in PYTHONS]
    assert [name for name in classifiers if re.search(r":: 3\.\d+$", name)] == supported
    assert "Typing :: Typed" in classifiers
    assert "fastformers/py.typed" in names
    assert "Version: 0.1.0" in lines
    # Only what an index would resolve to this project or to what it needs.
    needed = {Requirement(line.partition(": ")[2]).name for line in lines if "Requires-D" in line}
    assert "fastformers" not in needed
    assert {"fastformers-batch", "ray", "torch"} <= needed


def test_the_workflow_tests_each_python_that_the_metadata_name():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == PYTHONS
    said = json.dumps(job["steps"])
    targets = set(re.findall(r"make ([a-z-]+)", said))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert {"lint", "types", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
