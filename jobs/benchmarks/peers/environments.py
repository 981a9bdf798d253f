"""Environments of job baselines: made once by uv or venv, kept, and used again.

    catalog -> [environments] -> interpreter of a baseline

A baseline's packages often exclude ours (an older transformers, NumPy 1), so each has a directory
of its own. PyTorch is its build for CPUs in the one version that was tried: an open range brings
gigabytes of CUDA. This module knows nothing of what is run there.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers.catalog import Environment

TORCH_VERSION = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# Some packages ask for these. The registry's builds are for CUDA and keep transformers from being
# imported beside PyTorch's build for CPUs; no text needs them.
_UNFIT = ("torchvision", "torchaudio", "torchcodec")
_MARK = "packages.json"  # written last: without it, or with other packages, it is made anew
_TIMEOUT_S = 1800


def open_environment(
    environment: Environment, directory: Path, log: Callable[[str], None]
) -> Path | NotRun:
    """The interpreter of an environment, which is made if it is not there.

    Args:
        environment: Its packages.
        directory: Where environments are kept.
        log: Shows a line to the user.

    Returns:
        The interpreter, or why the packages cannot be installed: the last line of the installer, or
        that something else is in their place.
    """
    place = (directory / environment.name).absolute()
    python, mark = place / "bin" / "python", place / _MARK
    steps = plan_steps(environment, place, uv=shutil.which("uv"))
    wanted = json.dumps(
        [list(environment.packages), TORCH_VERSION if environment.has_torch else ""]
    )
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted and python.is_file():
        return python
    begun = place.with_name(f".{environment.name}-unfinished")
    if place.exists() and not (mark.is_file() or begun.is_file()):
        return NotRun(
            reason=f"{place} is no environment that was made here; name another --peer-env"
        )
    log(f"installing {', '.join(environment.packages)} into {place}")
    place.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    shutil.rmtree(place, ignore_errors=True)
    for step in steps:
        if reason := _run(step):
            return NotRun(reason=f"cannot be installed: {reason}")
    mark.write_text(wanted, encoding="utf-8")
    begun.unlink()
    return python


def plan_steps(environment: Environment, place: Path, *, uv: str | None) -> list[list[str]]:
    """The commands that make an environment.

    Args:
        environment: Its packages.
        place: Directory to make.
        uv: Path of uv; None for Python's own venv and pip.
    """
    python = str(place / "bin" / "python")
    torch = [f"torch=={TORCH_VERSION}+cpu"] if environment.has_torch else []
    packages = [*environment.packages, *torch]
    if uv is not None:
        install = [uv, "pip", "install", "--quiet", "--python", python]
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(place)],
            [*install, *(["--torch-backend", "cpu"] if torch else []), *packages],
        ]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The other packages are not asked of PyTorch's index, which has copies of some.
    first = (
        [[*install, "--retries", "1", "--extra-index-url", TORCH_INDEX, *torch]] if torch else []
    )
    last = [[python, "-m", "pip", "uninstall", "--quiet", "--yes", *_UNFIT]] if torch else []
    return [[sys.executable, "-m", "venv", str(place)], *first, [*install, *packages], *last]


def _run(step: list[str]) -> str | None:
    """Run a command; the last line of what it said if it failed."""
    try:
        done = subprocess.run(step, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{step[0]} took more than {_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"{step[0]}: exit status {done.returncode}"
