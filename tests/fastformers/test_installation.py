"""The command at the end of a message installs this very copy again, with what it lacks."""

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fastformers import installation
from fastformers.installation import (
    DISTRIBUTION,
    find_checkout,
    find_distribution,
    how_to_install,
    how_to_upgrade,
)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("fastformers", "cluster", "jobs")
WHEEL = "fastformers_batch-0.1.0-py3-none-any.whl"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT = {
    "url": "https://example.org/team/fastformers.git",
    "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lets a copy run that an installer put somewhere, with a record of its origin."""

    def make(origin):
        site = tmp_path / "site"
        (site / "fastformers").mkdir(parents=True)
        (site / "fastformers" / "__init__.py").touch()
        info = site / f"{DISTRIBUTION.replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\n")
        if origin is not None:
            (info / "direct_url.json").write_text(json.dumps(origin))
        module = str(site / "fastformers" / "installation.py")
        monkeypatch.setattr(installation, "__file__", module)
        monkeypatch.setattr(sys, "path", [str(site), *sys.path])

    return make


def what_is_installed(command):
    """The last word of a command of pip, as pip gets it from a shell."""
    words = shlex.split(command)
    assert words[:-1][-2:] in (["pip", "install"], ["install", "-e"], ["install", "--upgrade"])
    return words[-1]


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "fastformers-batch[report]"),
        (GIT, f"fastformers-batch[report] @ git+https://example.org/team/fastformers.git@{COMMIT}"),
        (
            {**GIT, "subdirectory": "python"},
            "fastformers-batch[report] @ git+https://example.org/team/fastformers.git@"
            f"{COMMIT}#subdirectory=python",
        ),
        (
            {
                "url": f"https://example.org/{WHEEL}",
                "archive_info": {},
            },
            f"fastformers-batch[report] @ https://example.org/{WHEEL}",
        ),
    ],
)
def test_a_copy_out_of_a_network_is_named_with_its_origin(install, origin, requirement):
    install(origin)
    assert what_is_installed(how_to_install("report")) == requirement
    assert Requirement(requirement).name == DISTRIBUTION


def test_a_copy_of_a_wheel_file_is_named_by_the_file(install, tmp_path):
    wheel = tmp_path / "my wheels" / WHEEL
    wheel.parent.mkdir()
    wheel.touch()
    install({"url": wheel.as_uri(), "archive_info": {"hash": "sha256=0"}})
    assert what_is_installed(how_to_install("compress")) == f"{wheel}[compress]"
    assert what_is_installed(how_to_install()) == str(wheel)
    assert how_to_upgrade() == "upgrade from a newer wheel file of fastformers-batch"
    wheel.unlink()
    assert how_to_install("compress").endswith(
        f"'{WHEEL}[compress]', with the file that was {wheel}"
    )


def test_a_copy_of_a_directory_is_named_by_the_directory(install, tmp_path):
    install({"url": tmp_path.as_uri(), "dir_info": {}})
    assert what_is_installed(how_to_install("report")) == f"{tmp_path}[report]"
    assert how_to_upgrade().startswith(f"upgrade {tmp_path}, then ")


def test_a_newer_version_comes_from_where_this_one_came_from(install):
    install(GIT)
    newest = "fastformers-batch @ git+https://example.org/team/fastformers.git"
    assert what_is_installed(how_to_upgrade().removeprefix("upgrade: ")) == newest


def test_a_newer_version_comes_from_the_index_where_this_one_did(install):
    install(None)
    assert what_is_installed(how_to_upgrade().removeprefix("upgrade: ")) == DISTRIBUTION


def test_a_checkout_is_installed_again_as_one():
    assert find_checkout() == ROOT
    assert f"pip install -e '{ROOT}[report]'" in how_to_install("report") or " " in str(ROOT)
    assert how_to_upgrade() == f"upgrade the checkout {ROOT}"


def test_a_copy_that_nobody_installed_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "a" / "installation.py"))
    assert find_checkout() is None
    assert find_distribution() is None
    assert how_to_install("aws").startswith("install fastformers-batch[aws] with pip")
    assert how_to_upgrade() == "upgrade from a newer wheel file of fastformers-batch"


def test_a_checkout_of_something_else_is_not_this_one(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "fastformers"\n')
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "a" / "installation.py"))
    assert find_checkout() is None


def test_the_interpreter_is_named_where_the_shell_finds_another_pip(monkeypatch):
    own = Path(sys.executable)
    monkeypatch.setattr(installation.shutil, "which", lambda name: str(own.with_name(name)))
    assert how_to_install("report").startswith("pip install ")
    monkeypatch.setattr(installation.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert how_to_install("report").startswith(f"{own} -m pip install ")


def test_every_extra_that_a_message_names_is_there():
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    named = set(re.findall(r"how_to_install\([\"'](\w+)[\"']\)", text))
    assert {"report", "energy", "tables"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


# What runs on other machines than the one that reads it, where a wheel file lies beside it.
WRITTEN_FOR_OTHERS = {"host_setup.py", "kuberay_job.py"}
# CUDA's packages take the place of others, so that their command has two parts.
REPLACES = {"engine.py", "cuda_setup.py"}


def test_nobody_else_tells_how_to_install_something():
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    told = {path.name for path in sources if "pip install" in path.read_text("utf-8")}
    assert told <= WRITTEN_FOR_OTHERS | REPLACES
