"""The files that make up this project: what git tracks, or what a source distribution holds."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What tools leave in a directory without git: environments, caches, results.
_LEFT = {".venv", "build", "demo-output", "__pycache__"}


def list_files() -> set[str]:
    """Their paths below the root, links included."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    return walk(ROOT)


def walk(root: Path) -> set[str]:
    """Files and links below a directory, but for what tools left there."""
    found: set[str] = set()
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _LEFT and not name.endswith("_cache")]
        links = [name for name in names if Path(folder, name).is_symlink()]
        found |= {str(Path(folder, name).relative_to(root)) for name in [*links, *files]}
    return found
