"""How this copy of fastformers was installed, and so how to get what it lacks.

    record of the installer -> [installation] -> the command at the end of a message

Every message that sends somebody to pip takes the command from here: a checkout, a wheel file, a
commit and an index each need another one. `fastformers` is another project on the public index, so
this project has another name there and the same import name. This module knows nothing of what an
extra brings.

Source of `direct_url.json`: PEP 610.
"""

import importlib.metadata
import json
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

# Name on an index, in requirements and in the names of wheel files.
DISTRIBUTION = "fastformers-batch"


def how_to_install(extra: str | None = None) -> str:
    """Command that installs what an extra of this project brings, without changing its version.

    Args:
        extra: Its name in pyproject.toml; None for what the base install brings.
    """
    suffix = f"[{extra}]" if extra else ""
    if checkout := find_checkout():
        return pip_install("-e", f"{checkout}{suffix}")
    distribution = find_distribution()
    if distribution is None:
        return f"install {DISTRIBUTION}{suffix} with pip, from its checkout or a wheel file"
    origin = _read_origin(distribution)
    path = _local_path(origin)
    if path is not None and not path.exists():
        return f"{pip_install(path.name + suffix)}, with the file that was {path}"
    return pip_install(f"{path}{suffix}" if path else _requirement(suffix, origin))


def how_to_upgrade() -> str:
    """What brings a newer version of this project."""
    if checkout := find_checkout():
        return f"upgrade the checkout {checkout}"
    distribution = find_distribution()
    origin = _read_origin(distribution) if distribution else {}
    if distribution is None or "archive_info" in origin:
        return f"upgrade from a newer wheel file of {DISTRIBUTION}"
    if path := _local_path(origin):
        return f"upgrade {path}, then {pip_install(str(path))}"
    return f"upgrade: {pip_install('--upgrade', _requirement('', origin, pinned=False))}"


def find_checkout() -> Path | None:
    """Root of the checkout whose files run; None where they were copied by an installer."""
    root = Path(__file__).resolve().parent.parent
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    except (FileNotFoundError, KeyError):
        return None
    return root if project.get("name") == DISTRIBUTION else None


def find_distribution() -> importlib.metadata.Distribution | None:
    """The installed distribution whose files run; None where nobody installed them."""
    own = Path(__file__).resolve().with_name("__init__.py")
    for distribution in importlib.metadata.distributions(name=DISTRIBUTION):
        if Path(str(distribution.locate_file("fastformers/__init__.py"))).resolve() == own:
            return distribution
    return None


def _read_origin(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    """Where a distribution came from; empty if an installer found it on an index."""
    origin: dict[str, Any] = json.loads(distribution.read_text("direct_url.json") or "{}")
    return origin


def _local_path(origin: dict[str, Any]) -> Path | None:
    """Wheel file or directory that was installed; None if it came over a network."""
    parts = urlsplit(origin.get("url", ""))
    if parts.scheme != "file" or origin.get("vcs_info"):
        return None
    return Path(url2pathname(parts.path))


def _requirement(suffix: str, origin: dict[str, Any], *, pinned: bool = True) -> str:
    """The same thing once more, as a requirement of PEP 508; pinned to the commit if it was one."""
    url = origin.get("url")
    if url is None:
        return f"{DISTRIBUTION}{suffix}"
    if version_control := origin.get("vcs_info"):
        commit = f"@{version_control['commit_id']}" if pinned else ""
        url = f"{version_control['vcs']}+{url}{commit}"
    if subdirectory := origin.get("subdirectory"):
        url = f"{url}#subdirectory={subdirectory}"
    return f"{DISTRIBUTION}{suffix} @ {url}"


def pip_install(*words: str) -> str:
    """An installation by the pip of this interpreter, whichever pip a shell would find."""
    found, own = shutil.which("pip"), Path(sys.executable)
    is_found = found is not None and Path(found).parent == own.parent
    pip = "pip" if is_found else f"{shlex.quote(str(own))} -m pip"
    return f"{pip} install {shlex.join(words)}"
