"""A wheel in a fresh environment, where the current directory has packages of our folders' names.

`FASTFORMERS_PYTHON` names the interpreter of an environment that has a wheel of this code and what
it needs, perhaps of another Python. Without it one is made of this interpreter: our wheel is put
there by pip, and what it needs is found where the tests find it; the checkout is not.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyarrow.dataset
import pytest

from fastformers.cluster.launch.wheel import build_wheel
from fastformers.inference.bundle import DEMO_BUNDLE

# Packages in the user's own directory; whoever imports one of them in our place fails at once.
STRANGERS = ("cluster", "jobs", "tests")
ROWS = 400


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Interpreter of an environment that our wheel was installed into."""
    if given := os.environ.get("FASTFORMERS_PYTHON"):
        return Path(given).absolute()
    home = tmp_path_factory.mktemp("fresh")
    wheel = build_wheel(home)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python = home / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile"]
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], check=True)
    # A directory that a .pth file names is searched last, and its own .pth files are not read: one
    # of them would bring the checkout.
    (site,) = (home / "venv" / "lib").glob("*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture
def directory(tmp_path):
    """A project of somebody's, with packages of our names and a corpus of their own."""
    for name in STRANGERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} of a stranger')")
    (tmp_path / "fastformers").mkdir()  # as a clone is called, seen from the directory above it
    lines = [f'"text {row} of numpy arrays and their shapes"\n' for row in range(ROWS)]
    (tmp_path / "mine.csv").write_text("body\n" + "".join(lines))
    return tmp_path


def run(python, directory, *words, **variables):
    """What a program says that runs in the directory, which is also on its search path."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        words,
        cwd=directory,
        env={**cleared, "PYTHONPATH": ".", "CI": "1", **variables},
        capture_output=True,
        text=True,
    )


def test_the_directory_would_give_its_own_packages(python, directory):
    done = run(python, directory, python, "-c", "import cluster")
    assert "ImportError: cluster of a stranger" in done.stderr
    code = "import fastformers; print(fastformers.__file__)"
    done = run(python, directory, python, "-c", code)
    assert Path(done.stdout).is_relative_to(python.parent.parent), done.stderr


@pytest.mark.parametrize("how", ["command", "module"])
def test_help_is_ours(python, directory, how):
    program = (
        [python.with_name("fastformers")] if how == "command" else [python, "-m", "fastformers"]
    )
    for words in ([], ["score"], ["launch"]):
        done = run(python, directory, *program, *words, "--help")
        assert done.returncode == 0, done.stderr
        assert "usage: fastformers" in done.stdout


@pytest.mark.cluster
def test_two_workers_of_ray_find_ours(python, directory):
    """Also where the directory is the working directory that Ray gives a job and its workers."""
    job = json.dumps({"runtime_env": {"working_dir": str(directory)}})
    corpus, output = directory / "mine.csv", directory / "scored"
    words = ["score", corpus, "--text-column", "body", "--bundle", DEMO_BUNDLE, "--output", output]
    command = [python.with_name("fastformers"), *words, "--num-actors", "2"]
    done = run(python, directory, *command, RAY_JOB_CONFIG_JSON_ENV_VAR=job)
    assert done.returncode == 0, done.stderr
    assert "2 actors x 1 thread" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == ROWS
    table = pyarrow.dataset.dataset(output / "predictions").to_table()
    assert table.num_rows == ROWS
