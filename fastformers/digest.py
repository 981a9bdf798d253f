"""Identity of what decides a result: values, files and the versions of libraries.

    files, settings -> [digest] -> names of kept work

Work is kept under such a digest, so that a run finds it again and never takes that of another. This
module knows nothing of models.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path

from fastformers.version import VERSION


def digest_of(*parts: object) -> str:
    """SHA-256 of values that JSON can hold, and of paths by their names.

    Raises:
        TypeError: A value is neither.
    """
    text = json.dumps(parts, sort_keys=True, default=_name_path)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of what decides the results of training and export, by package."""
    return versions_of(("torch", "transformers", "tokenizers", "onnx", "onnxruntime"))


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Version of this project and of installed packages, by name."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"fastformers": VERSION, **versions}


def _name_path(part: object) -> str:
    if isinstance(part, Path):
        return str(part)
    raise TypeError(f"cannot digest a {type(part).__name__}")
