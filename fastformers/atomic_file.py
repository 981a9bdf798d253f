"""Write local files and directories that are complete or absent, whenever the process ends.

    content -> [atomic_file] -> the file or directory under its final name

This module knows nothing of what the files hold.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, of the same suffix; its file replaces `path` when the block ends.

    If the block fails, the old file stays and the new one is removed. Readers that have the old
    file open or mapped keep the old contents.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def keep_json(path: Path, make: Callable[[], Any]) -> Any:
    """What an earlier call kept in this file, or else what `make` returns now, as JSON reads it."""
    if not path.is_file():
        made = json.dumps(make(), indent=2)
        with whole_file(path) as unfinished:
            unfinished.write_text(made, encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def replace_directory(made: Path, path: Path) -> None:
    """Give a finished directory its final name, beside which it was made.

    An older directory of the name moves aside first, and back if the rename fails.
    """
    if not path.exists():
        os.replace(made, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    os.replace(path, aside)
    try:
        os.replace(made, path)
    except BaseException:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside)


def check_writable(path: Path) -> None:
    """Make sure that a file or directory can be made or replaced; nothing is written.

    Directories above it need not exist: the nearest that does is asked.

    Raises:
        OSError: It cannot; names `path`.
    """
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
