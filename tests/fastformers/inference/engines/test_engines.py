import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fastformers.errors import InputError
from fastformers.inference import engines
from fastformers.inference.autotune import open_right_engines
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.engines import (
    AUTO,
    CUDA_ENGINE,
    ENGINE_OPTIONS,
    ENGINES,
    REFERENCE_ENGINE,
    EngineEntry,
    candidate_names,
    check_installed,
    open_engine,
)
from tests.needs import need_openvino

PYPROJECT = Path(__file__).parents[4] / "pyproject.toml"


def test_an_engine_is_opened_by_name(bundle):
    assert isinstance(open_engine("onnxruntime", bundle.model_path, num_threads=1), OnnxEngine)
    need_openvino()
    engine = open_engine("openvino", bundle.model_path, num_threads=1)
    assert engine.name.startswith("openvino")


def test_auto_leaves_what_is_installed_and_a_name_leaves_itself(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda package: None if package == "openvino" else 1)
    on_cpus = tuple(name for name, entry in ENGINES.items() if entry.device == "cpu")
    others = tuple(name for name in on_cpus if name != "openvino")
    assert candidate_names(AUTO) == others
    assert REFERENCE_ENGINE in others
    assert candidate_names("openvino") == ("openvino",)
    with pytest.raises(InputError, match=r"openvino: .*; .*pip install .*\[openvino\]"):
        check_installed("openvino")
    monkeypatch.setattr(engines, "find_spec", lambda package: 1)
    assert candidate_names(AUTO) == on_cpus
    assert CUDA_ENGINE not in on_cpus  # a run on cards is asked for by its device


def test_an_unknown_engine_is_refused_with_those_there_are(bundle):
    with pytest.raises(
        InputError, match=f"--engine tvm: is not one of {', '.join(ENGINE_OPTIONS)}$"
    ):
        open_engine("tvm", bundle.model_path, num_threads=1)


def test_every_extra_of_an_engine_is_one_of_the_package_and_brings_it():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    tested = Requirement(extras["dev"][0]).extras
    for entry in ENGINES.values():
        if entry.extra is not None:
            assert any(name.startswith(entry.package) for name in extras[entry.extra])
            # The GPU's wheel breaks the CPU's, so that no extra may bring both.
            assert (entry.extra in tested) == (entry.device == "cpu")
    assert ENGINES[REFERENCE_ENGINE].extra is None


def test_a_new_engine_needs_an_entry_and_nothing_else(bundle, monkeypatch):

    entry = EngineEntry(open=lambda model, num_threads: OnnxEngine(model), package="numpy")
    monkeypatch.setitem(ENGINES, "another", entry)
    assert "another" in candidate_names(AUTO)
    assert list(open_right_engines(bundle, "another", num_threads=1)) == ["another"]


def test_the_table_loads_no_engine():
    code = (
        "import sys; import fastformers.inference.engines; "
        "print([m for m in ('openvino', 'torch') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
