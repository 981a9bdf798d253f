"""The recipe of the two images: linted, true to the Makefile, and small; it is built by no test."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "cluster" / "launch" / "Dockerfile"
MB = 1e6
# python:3.13-slim for amd64, uncompressed, rounded up: Debian 80 MB, Python 45 MB.
BASE_IMAGE_BYTES = 130 * MB
MAX_SCORING_BYTES = 700 * MB


@pytest.fixture(scope="module")
def project():
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def read_stages():
    """Text of each stage, by name, with continued lines joined and comments left out."""
    lines = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text("utf-8")).splitlines()
    stages = {}
    for line in lines:
        if match := re.fullmatch(r"FROM (\S+) AS (\w+)", line):
            name, base = match[2], match[1]
            stages[name] = [base]
        elif line and not line.startswith("#"):
            stages[name].append(line)
    return stages


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not installed; the extra dev brings it")
    done = subprocess.run([program, "--format", "json", DOCKERFILE], capture_output=True, text=True)
    assert json.loads(done.stdout) == [], done.stdout
    assert done.returncode == 0


def test_there_are_two_stages_and_the_full_one_adds_to_the_other():
    stages = read_stages()
    assert list(stages) == ["scoring", "full"]
    assert stages["scoring"][0] == "python:3.13-slim"
    assert stages["full"][0] == "scoring"
    for stage in stages.values():
        assert [line for line in stage if line.startswith("USER")][-1] == "USER 1000"
    assert 'ENTRYPOINT ["fastformers"]' in stages["scoring"]
    assert not any("torch" in line for line in stages["scoring"])


def test_the_full_image_has_the_torch_of_the_tests_for_cpus(project):
    version = re.search(r"^TORCH_VERSION \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    install = " ".join(read_stages()["full"])
    assert f"torch=={version[1]}+cpu" in install
    assert "https://download.pytorch.org/whl/cpu" in install
    (extras,) = re.findall(r"/src\[([\w,]+)\]", install)
    assert {"compress"} <= set(extras.split(",")) <= set(project["optional-dependencies"])


def needed_by(names):
    """Names of distributions that the given ones need here, themselves included."""
    found, pending = set(), list(names)
    while pending:
        requirement = Requirement(pending.pop())
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found:
            found.add(name)
            pending += importlib.metadata.requires(name) or []
    return found


def measure(name):
    """Bytes of the files of a distribution as the recipe installs it."""
    total = 0
    for file in importlib.metadata.files(name) or ():
        path = Path(file.locate())
        if path.suffix != ".pyc" and file.parts[:2] != ("ray", "jars") and path.is_file():
            total += path.stat().st_size
    return total


def test_the_scoring_image_is_below_700_mb(project):
    names = needed_by(project["dependencies"])
    assert "ray" in names
    assert "torch" not in names
    needed = sum(map(measure, names))
    own = sum(path.stat().st_size for path in (ROOT / "fastformers" / "demo_bundle").iterdir())
    assert needed > 300 * MB  # what is counted is there
    assert BASE_IMAGE_BYTES + needed + own + 10 * MB < MAX_SCORING_BYTES
