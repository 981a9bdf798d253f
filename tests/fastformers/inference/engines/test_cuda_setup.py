"""Each way in which a machine cannot use a GPU ends in one line that says what to install."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest

from fastformers.errors import InputError
from fastformers.inference.engines import cuda_setup
from fastformers.inference.engines.cuda_setup import GPU_REQUIREMENT, check_cuda, read_card_name

ROOT = Path(__file__).parents[4]
LIBRARIES = ("cudart.so.13", "cublasLt.so.13", "cublas.so.13", "curand.so.10", "cufft.so.12")
INSTALL = r"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu\[cuda,c"


class Driver:
    """libcuda.so.1 of a machine with so many GPUs; its functions fill in what they point to."""

    def __init__(self, *, version=13000, num_cards=1, status=0):
        self._version, self._num_cards, self._status = version, num_cards, status

    def cuInit(self, flags):
        return self._status

    def cuDriverGetVersion(self, pointer):
        pointer._obj.value = self._version
        return 0

    def cuDeviceGetCount(self, pointer):
        pointer._obj.value = self._num_cards
        return 0

    def cuDeviceGetName(self, buffer, size, card):
        buffer.value = b"NVIDIA H100 80GB HBM3"
        return 0


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with a GPU, but for what is asked."""

    def make(
        *,
        wheels=("onnxruntime-gpu",),
        providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
        driver=None,
        cuda_version="13.0",
        missing=(),
    ):
        def version(name):
            if name not in wheels:
                raise metadata.PackageNotFoundError(name)
            return "1.31.1"

        def load(library):
            if library == "libcuda.so.1":
                return driver
            return None if library in missing else object()

        def preload():
            print("Failed to load libcudnn.so.9")

        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(providers))
        monkeypatch.setattr(onnxruntime, "cuda_version", cuda_version)
        monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
        monkeypatch.setattr(cuda_setup, "_load", load)

    return make


def test_a_machine_that_has_all_passes_and_prints_nothing(machine, capfd):
    machine(driver=Driver())
    check_cuda()
    assert read_card_name() == "NVIDIA H100 80GB HBM3"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        (
            {"wheels": ("onnxruntime", "onnxruntime-gpu")},
            f"onnxruntime and onnxruntime-gpu are both installed and break each other; {INSTALL}",
        ),
        (
            {"wheels": ("onnxruntime",), "providers": ("CPUExecutionProvider",)},
            f"this onnxruntime is built for the CPU only; {INSTALL}",
        ),
        ({}, r"has no NVIDIA driver \(libcuda.so.1 .*; install NVIDIA's driver 580 or newer"),
        ({"cuda_version": "12.8"}, "install NVIDIA's driver 525 or newer"),
        (
            {"driver": Driver(version=12080)},
            r"driver is for CUDA 12 and .* needs CUDA 13; install NVIDIA's driver 580 or newer",
        ),
        ({"driver": Driver(num_cards=0)}, r"shows this process no GPU \(CUDA_VISIBLE_DEVICES=7\)"),
        ({"driver": Driver(status=100)}, r"no GPU .*, status 100; check nvidia-smi"),
        *(
            (
                {"driver": Driver(), "missing": (f"lib{library}",)},
                rf"CUDA 13 is not installed \(lib{library} does not load\); {INSTALL}",
            )
            for library in LIBRARIES
        ),
        (
            {"driver": Driver(), "missing": ("libcudnn.so.9",)},
            rf"cuDNN 9 is not installed \(libcudnn.so.9 does not load\); {INSTALL}",
        ),
    ],
)
def test_what_is_missing_is_named_in_one_line(machine, monkeypatch, lacks, reason):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    machine(**lacks)
    with pytest.raises(InputError, match=f"^device cuda: .*{reason}") as caught:
        check_cuda()
    assert "\n" not in str(caught.value)


def test_a_library_is_one_that_the_loader_finds():
    assert cuda_setup._load(None) is not None  # this program itself
    assert cuda_setup._load("libfastformers_has_none.so.1") is None


def test_the_extra_and_make_gpu_install_what_the_messages_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["gpu"] == [GPU_REQUIREMENT]
    assert f'"{GPU_REQUIREMENT}"' in (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_the_index_has_what_the_extra_asks_for(tmp_path):
    """pip finds every package of it; skipped where there is no index."""
    options = ["--dry-run", "--quiet", "--ignore-installed", "--target", str(tmp_path)]
    pip = [sys.executable, "-m", "pip", "--timeout", "5", "--retries", "0"]
    done = subprocess.run([*pip, "install", *options, "iniconfig"], capture_output=True)
    if done.returncode:
        pytest.skip("no package index can be reached")
    done = subprocess.run(
        [*pip, "install", *options, GPU_REQUIREMENT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
