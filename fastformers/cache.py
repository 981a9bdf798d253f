"""Where this user's files are kept that can be made again.

    environment -> [cache] -> measurements of autotune, bundles of a host

This module knows nothing of what is kept there.
"""

import os
from pathlib import Path

CACHE_VARIABLE = "FASTFORMERS_CACHE"


def cache_directory(name: str) -> Path:
    """A directory for one kind of file; it need not exist.

    It is under FASTFORMERS_CACHE if that is set, else under `fastformers` in XDG_CACHE_HOME or
    `~/.cache`.
    """
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).expanduser().absolute() / name
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home) / "fastformers" / name
