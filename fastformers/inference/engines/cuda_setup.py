"""Find out why CUDA does not work here, before a session silently falls back to the CPU.

    installed packages, driver, libraries -> [cuda_setup] -> cuda, or one line that says what to do

ONNX Runtime takes the CPU where its CUDA provider does not load, with a warning on stderr and no
reason. Everything that it needs is looked at here in the order in which it is installed: the right
wheel alone, the driver, a GPU that this process may use, CUDA's libraries, cuDNN. `onnxruntime` and
`onnxruntime-gpu` install the same files, so that one breaks the other. This module opens no
session.
"""

import contextlib
import ctypes
import io
import os
from importlib import metadata
from typing import Any

from fastformers.errors import InputError

CPU_WHEEL, GPU_WHEEL = "onnxruntime", "onnxruntime-gpu"
# The extra `gpu` in pyproject.toml is the same. Older ones do not find what the extras bring: CUDA
# 13's packages have their libraries in another folder than CUDA 12's.
GPU_REQUIREMENT = "onnxruntime-gpu[cuda,cudnn]>=1.31.1"
HOW_TO_INSTALL = (
    f"pip uninstall -y {CPU_WHEEL} {GPU_WHEEL} && pip install '{GPU_REQUIREMENT}' (make gpu in the "
    "checkout)"
)
# CUDA's major version -> the first driver of Linux for it (CUDA compatibility guide).
_DRIVERS = {12: "525", 13: "580"}
_DRIVER = "libcuda.so.1"
_CUDNN = "libcudnn.so.9"


def check_cuda() -> None:
    """Load CUDA's libraries, and refuse a machine on which ONNX Runtime cannot use a GPU.

    Raises:
        InputError: Something is missing; names it and what to install.
    """
    wheels = [name for name in (CPU_WHEEL, GPU_WHEEL) if _is_installed(name)]
    if len(wheels) == 2:
        raise _refusal(f"{' and '.join(wheels)} are both installed and break each other")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise _refusal("this onnxruntime is built for the CPU only")
    # Its warning of a plugin that is not there means nothing; its errors reach the caller anyhow.
    onnxruntime.set_default_logger_severity(4)
    major = int(onnxruntime.cuda_version.split(".")[0])
    _check_driver(major)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    for library in (*_cuda_libraries(major), _CUDNN):
        if _load(library) is None:
            part = "cuDNN 9" if library == _CUDNN else f"CUDA {major}"
            raise _refusal(f"{part} is not installed ({library} does not load)")


def _check_driver(major: int) -> None:
    """Refuse a machine without a driver for this version of CUDA, or without a GPU to see."""
    driver = _load(_DRIVER)
    needed = f"NVIDIA's driver {_DRIVERS.get(major, 'for it')} or newer"
    if driver is None:
        raise InputError(
            f"device cuda: this machine has no NVIDIA driver ({_DRIVER} does not load); install "
            f"{needed}, or score on a machine with a GPU"
        )
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value // 1000 < major:
        raise InputError(
            f"device cuda: this driver is for CUDA {version.value // 1000} and ONNX Runtime needs "
            f"CUDA {major}; install {needed}"
        )
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or count.value == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
        raise InputError(
            f"device cuda: the driver shows this process no GPU{hint}, status {status}; check "
            "nvidia-smi, and in a container that it was started with --gpus all"
        )


def read_card_name() -> str:
    """Name of the first GPU that this process sees; `check_cuda` has passed."""
    driver = _load(_DRIVER)
    name = ctypes.create_string_buffer(100)
    driver.cuInit(0)
    driver.cuDeviceGetName(name, len(name), 0)
    return name.value.decode()


def _cuda_libraries(major: int) -> tuple[str, ...]:
    """Libraries that ONNX Runtime's provider is linked with."""
    fft = 12 if major >= 13 else 11
    return (
        f"libcudart.so.{major}",
        f"libcublasLt.so.{major}",
        f"libcublas.so.{major}",
        "libcurand.so.10",
        f"libcufft.so.{fft}",
    )


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _load(library: str) -> Any:
    """A shared library, or None where the loader does not find it or one that it needs."""
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


def _refusal(reason: str) -> InputError:
    return InputError(f"device cuda: {reason}; {HOW_TO_INSTALL}")
