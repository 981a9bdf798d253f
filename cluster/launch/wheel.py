"""Build the wheel that a cluster's machines install: this code, from no index.

    checkout, or files of the installed package -> [wheel] -> fastformers_batch-VERSION-*.whl

Machines get the code that runs here as a file, whatever an index has under its name. This module
knows nothing of clusters.
"""

import base64
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import fastformers.errors
from fastformers.errors import InputError
from fastformers.installation import (
    DISTRIBUTION,
    find_checkout,
    find_distribution,
    how_to_install,
)

_PACKAGE = "fastformers"
# What a wheel of the checkout is built from, beside its package.
_FILES = ("pyproject.toml", "README.md", "LICENSE")
# The earliest time that a ZIP file can hold: the same code gives the same bytes, and `ray up` runs
# its set-up again only where they differ.
_TIME = (1980, 1, 1, 0, 0, 0)
_EPOCH = "315532800"
_BUILD = "import sys\nfrom setuptools import build_meta\nbuild_meta.build_wheel(sys.argv[1])\n"


def build_wheel(directory: Path) -> Path:
    """Write the wheel of the code that runs into a directory; returns its path.

    Raises:
        InputError: The code is neither in a checkout nor installed from a wheel, or the build
            fails, for example because setuptools is missing or too old.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkout = find_checkout()
    return _pack(_find_installed(), directory) if checkout is None else _build(checkout, directory)


def wheel_name() -> str:
    """Name of the file that `build_wheel` writes, without writing it."""
    return f"{DISTRIBUTION.replace('-', '_')}-{fastformers.__version__}-py3-none-any.whl"


def _build(root: Path, directory: Path) -> Path:
    """Build from a copy, so that neither old build files get in nor new ones stay behind."""
    with tempfile.TemporaryDirectory() as temporary:
        source, built = Path(temporary) / "source", Path(temporary) / "built"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / _PACKAGE, source / _PACKAGE, ignore=ignored)
        shutil.copytree(root / ".build", source / ".build", symlinks=True)
        for file in _FILES:
            shutil.copy(root / file, source / file)
        built.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(built)],
            cwd=source,
            env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
            capture_output=True,
            text=True,
        )
        found = list(built.glob("*.whl"))
        if done.returncode != 0 or len(found) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel was written"])[-1]
            raise InputError(
                f"{root}: no wheel could be built ({reason}); {how_to_install('cluster')} brings "
                "what builds it"
            )
        return Path(shutil.copy(found[0], directory / found[0].name))


def _find_installed() -> importlib.metadata.Distribution:
    """The installed distribution whose files run.

    Raises:
        InputError: There is none: the code was copied here by hand.
    """
    distribution = find_distribution()
    if distribution is None:
        raise InputError(
            f"{Path(fastformers.__file__).parent}: this code was not installed by pip and is no "
            f"checkout, so that no wheel can be made of it; {how_to_install('cluster')}"
        )
    return distribution


def _pack(distribution: importlib.metadata.Distribution, directory: Path) -> Path:
    """Put the files of an installed wheel back into one, with a new list of their digests."""
    files = [
        PurePosixPath(str(file))
        for file in distribution.files or ()
        if ".." not in file.parts and "__pycache__" not in file.parts
    ]
    # Written by whoever installed it here, and true of no other machine.
    local = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
    kept = sorted(f for f in files if not (f.parts[0].endswith(".dist-info") and f.name in local))
    record = next((f for f in files if f.name == "RECORD"), None)
    if record is None or PurePosixPath(_PACKAGE, "jobs/__init__.py") not in kept:
        raise InputError(
            f"{distribution.locate_file('')}: the installed {_PACKAGE} does not list its own "
            f"files; {how_to_install('cluster')}"
        )
    path = directory / wheel_name()
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in kept:
            content = Path(str(distribution.locate_file(file))).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            lines.append(f"{file},sha256={digest.rstrip('=')},{len(content)}\n")
            archive.writestr(zipfile.ZipInfo(str(file), _TIME), content)
        text = "".join([*lines, f"{record},,\n"])
        archive.writestr(zipfile.ZipInfo(str(record), _TIME), text)
    return path
