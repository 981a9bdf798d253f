"""How something was measured: what the last line of a measuring command says about itself.

    command line, this machine, libraries -> [conditions] -> `measured` of the last line

A measurement that is kept under version control is worth as much as its conditions, so the command
writes them itself. This module knows nothing of what is measured.
"""

import platform
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from fastformers.cluster.execution.topology import discover_topology
from fastformers.digest import versions_of
from fastformers.formatting import format_count

# Packages that decide a speed or a quality, by the module that shows whether they took part.
_PACKAGES = {
    "nncf": "nncf",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ray": "ray",
    "sentence_transformers": "sentence-transformers",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
}
_SECRET = "--storage-options"


def describe_conditions(words: Sequence[str]) -> dict[str, Any]:
    """Command line, date, machine, and the versions of the libraries that were loaded."""
    topology = discover_topology()
    loaded = [package for module, package in _PACKAGES.items() if module in sys.modules]
    return {
        "command": _spell(words),
        "at": time.strftime("%Y-%m-%d"),
        "machine": f"{format_count(topology.num_usable_cores, 'core')} of {topology.cpu_model}",
        "versions": {"python": platform.python_version(), **versions_of(loaded)},
    }


def _spell(words: Sequence[str]) -> str:
    """A command line as a shell takes it, without the secrets that it may hold."""
    shown = list(words)
    for place, word in enumerate(words):
        if word.startswith(f"{_SECRET}="):
            shown[place] = f"{_SECRET}=..."
        elif place and words[place - 1] == _SECRET:
            shown[place] = "..."
    return shlex.join(shown)
