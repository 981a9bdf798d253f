"""The engines that can run a bundle's graph, each by its name.

    name -> [engines] -> Engine

One table says how an engine is opened, which package it needs, and which extra of fastformers
brings that package; the command line, the messages and `autotune` take their engines from it. An
engine's own module is imported when it is opened, so that this one costs nothing to import. A new
engine needs a module beside this one, an entry here and an extra in pyproject.toml. This module
knows nothing of bundles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastformers.errors import InputError
from fastformers.installation import how_to_install

if TYPE_CHECKING:
    from fastformers.inference.engine import Device, Engine


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """How to open and to install an engine.

    Attributes:
        open: Function that loads an ONNX file for a number of threads.
        package: Package that must be importable.
        extra: The extra of fastformers that brings the package; None for the base install.
        device: What it computes on. An engine on "cuda" says itself what is missing when it is
            opened: only the machine that has the card can tell.
    """

    open: Callable[[Path, int], "Engine"]
    package: str
    extra: str | None = None
    device: "Device" = "cpu"

    @property
    def is_installed(self) -> bool:
        """Whether this machine has it."""
        return find_spec(self.package) is not None


def _open_onnxruntime(model: Path, num_threads: int) -> "Engine":
    from fastformers.inference.engine import OnnxEngine

    return OnnxEngine(model, num_threads=num_threads)


def _open_openvino(model: Path, num_threads: int) -> "Engine":
    from fastformers.inference.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(model, num_threads=num_threads)


def _open_cuda(model: Path, num_threads: int) -> "Engine":
    from fastformers.inference.engines.cuda import CudaEngine

    return CudaEngine(model)


# The engine with which the quality of every bundle was measured; the others must agree with it.
REFERENCE_ENGINE = "onnxruntime"
CUDA_ENGINE = "onnxruntime-cuda"
ENGINES: dict[str, EngineEntry] = {
    REFERENCE_ENGINE: EngineEntry(open=_open_onnxruntime, package="onnxruntime"),
    "openvino": EngineEntry(open=_open_openvino, package="openvino", extra="openvino"),
    CUDA_ENGINE: EngineEntry(open=_open_cuda, package="onnxruntime", extra="gpu", device="cuda"),
}
# The option that chooses the fastest of the installed engines for CPUs.
AUTO = "auto"
# What `--engine` takes; that of GPUs follows from `--device`.
ENGINE_OPTIONS = (*(name for name, entry in ENGINES.items() if entry.device == "cpu"), AUTO)


def open_engine(name: str, model: Path, *, num_threads: int) -> "Engine":
    """Load a graph into the named engine.

    Raises:
        InputError: The engine is not known or not installed.
        BundleError: The engine cannot load the file.
    """
    check_installed(name)
    return ENGINES[name].open(model, num_threads)


def check_installed(name: str) -> None:
    """Refuse an engine that this machine does not have.

    Raises:
        InputError: The engine is not known or not installed.
    """
    entry = ENGINES.get(name)
    if entry is None:
        raise InputError(f"--engine {name}: is not one of {', '.join(ENGINE_OPTIONS)}")
    if not entry.is_installed:
        raise InputError(f"--engine {name}: it is not installed; {how_to_install(entry.extra)}")


def candidate_names(option: str) -> tuple[str, ...]:
    """Names of the engines that an option allows: one, or for "auto" all installed for CPUs."""
    if option != AUTO:
        return (option,)
    return tuple(
        name for name, entry in ENGINES.items() if entry.is_installed and entry.device == "cpu"
    )
