"""Let one process at a time make a file or directory that several may ask for.

    path of what is made -> [file_lock] -> one process makes it; others wait for it, or are refused

Locks are the system's own (flock): one that a killed process held is free. On a filesystem without
locks nothing waits. This module knows nothing of what is made.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastformers.errors import ClaimedError

logger = logging.getLogger(__name__)

_TAKEN = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this path, and say so in a line.

    The lock is a file beside it, which stays; the directory of both is made if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path.with_name(f".{path.name}.lock")) as lock:
        if not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            logger.warning("%s: another run makes it; waiting for that", path)
            _take(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def alone_in(directory: Path, output: Path) -> Iterator[None]:
    """Work in a directory in which no other process does; it is made if it is not there.

    The lock is a file in it, which goes with the directory if the block removes that.

    Args:
        directory: The directory.
        output: What is made by the help of it, for the message.

    Raises:
        ClaimedError: Another process is in such a block for this directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _opened(directory / ".lock") as lock:
        if not _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise ClaimedError(
                f"--output {output}: another run works on it, in {directory}; wait for that, or "
                "give another directory"
            )
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file, which is locked for as long as it is open."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, how: int) -> bool:
    """Whether a lock was taken; a filesystem without locks gives it to everybody."""
    try:
        fcntl.flock(lock, how)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True
