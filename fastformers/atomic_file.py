"""Local files that are there whole or not at all, whenever a process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path`, of its suffix, whose file replaces `path` when the block ends.

    If the block fails, what was at `path` stays and what it wrote is removed. Who has `path` open
    or mapped keeps what it had.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
