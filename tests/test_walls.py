"""What importing a module loads: the part of the walls that import-linter cannot see.

The contracts in pyproject.toml say what may be imported at all, from wherever; these tests say what
is loaded at once. Each runs in a fresh process, for this one has loaded everything.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import fastformers
from fastformers.jobs.console.cli import COMMANDS

PACKAGES = ("fastformers", "cluster", "jobs")
RUNTIMES = ("ray", "torch", "onnxruntime", "openvino")
OFFLINE = ("torch", "transformers", "onnx")


def loaded_by(statements: str) -> set[str]:
    """Top-level packages that a fresh process has loaded after some statements."""
    code = f"import sys\n{statements}\nsys.stderr.write(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {module.split(".")[0] for module in run.stderr.split()}


def show_help(*command: str) -> str:
    """Statements that print a command's help and go on."""
    return f"""
from fastformers.jobs.console.cli import main
try:
    main({[*command, "--help"]})
except SystemExit as end:
    assert end.code == 0
"""


def test_the_probe_sees_what_is_loaded():
    loaded = loaded_by("import onnxruntime, ray")
    assert {"ray", "onnxruntime"} <= loaded
    assert loaded & {"torch", "transformers"} == set()


@pytest.mark.parametrize(
    "command", ["", "cost refresh", *(name for name in COMMANDS if name != "bench")]
)
def test_help_waits_for_no_runtime(command):
    loaded = loaded_by(show_help(*command.split()))
    assert "argparse" in loaded
    assert loaded & {*RUNTIMES, *OFFLINE} == set()


def test_help_of_the_benchmark_waits_for_neither_ray_nor_torch():
    assert loaded_by(show_help("bench")) & {*OFFLINE, "ray"} == set()


def test_the_list_of_commands_loads_none_of_them():
    assert loaded_by(show_help()) & {"numpy", "rich"} == set()


def test_errors_load_nothing_but_themselves():
    loaded = loaded_by("import fastformers.errors")
    assert "fastformers" in loaded
    assert loaded & {*RUNTIMES, *OFFLINE, "numpy", "tokenizers"} == set()


@pytest.mark.parametrize(
    "statements",
    [
        "import fastformers.inference.scorer, fastformers.inference.autotune",
        "from fastformers import *",
        "import fastformers.data.superglue, fastformers.data.demo_corpus",
        "import fastformers.cluster.shards.preparation, fastformers.cluster.report.page\n"
        "import fastformers.cluster.cost.bundle_cost",
    ],
)
def test_what_scores_and_what_estimates_loads_neither_torch_nor_ray(statements):
    loaded = loaded_by(statements)
    assert "numpy" in loaded
    assert loaded & {*OFFLINE, "ray"} == set()


def test_ray_is_loaded_by_the_pool_alone():
    others = ("scheduling.driver", "execution.run", "execution.worker")
    imports = "\n".join(f"import fastformers.cluster.{name}" for name in others)
    assert "ray" not in loaded_by(imports)
    assert "ray" in loaded_by("import fastformers.cluster.nodes.ray_pool")


def test_the_public_names_are_there_without_being_loaded():
    assert set(fastformers.__all__) <= set(dir(fastformers))
    names = "from fastformers import Bundle, FastformersError, Predictions, Scorer, open_bundle"
    loaded_by(f"{names}\nfrom fastformers.inference import scorer\nassert Scorer is scorer.Scorer")
    loaded_by("import fastformers\nassert fastformers.Scorer.__name__ == 'Scorer'")


def test_every_public_name_loads():
    assert all(getattr(fastformers, name).__name__ == name for name in fastformers.__all__)


def test_a_name_that_is_not_public_is_refused():
    with pytest.raises(AttributeError, match="module 'fastformers' has no attribute 'Scored'"):
        _ = fastformers.Scored


def test_a_folder_and_a_file_can_be_read_in_one_go():
    root = Path(fastformers.__file__).parent.parent
    modules = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    folders = Counter(path.parent for path in modules if not path.name.startswith("__"))
    assert len(modules) > 100
    del folders[root / "jobs"]  # one file a command
    assert {str(folder): count for folder, count in folders.items() if count > 12} == {}
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
