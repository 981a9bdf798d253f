"""List a directory with all below it, on a disk or in a bucket.

    directory -> [places] -> files, and what cannot be read -> listing

On a disk a file may have several names and a directory may lead back to itself, so each directory
is entered once and each file comes with its inode. This module knows nothing of corpora.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A file, or what cannot be read in its place.

    Attributes:
        path: Its path.
        size_bytes, mtime_ns: Size, and time of the last change.
        inode: Device and number of the file there; None in a bucket.
        is_linked: Whether a symbolic link led there.
        is_directory: Whether it is a directory, which is one that cannot be listed.
        problem: Why it cannot be read, or None.
    """

    path: str
    size_bytes: int = 0
    mtime_ns: int = 0
    inode: tuple[int, int] | None = None
    is_linked: bool = False
    is_directory: bool = False
    problem: str | None = None

    @classmethod
    def of(cls, info: pyarrow.fs.FileInfo) -> "Place":
        """A file as pyarrow describes it."""
        return cls(path=info.path, size_bytes=info.size or 0, mtime_ns=info.mtime_ns or 0)


def list_places(filesystem: pyarrow.fs.FileSystem, base: str) -> list[Place]:
    """All files below a directory, in no order; none if it is not there."""
    if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        return list(_walk(base)) if Path(base).is_dir() else []
    selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
    found = filesystem.get_file_info(selector)
    return [Place.of(info) for info in found if info.type == pyarrow.fs.FileType.File]


def _walk(base: str) -> Iterator[Place]:
    """Directories that links lead to come last, so that files have names without links first."""
    directories: list[tuple[str, bool]] = [(base, False)]
    links: list[tuple[str, bool]] = []
    seen: set[tuple[int, int]] = set()
    while directories or links:
        path, is_linked = directories.pop() if directories else links.pop()
        try:
            found = Path(path).stat()
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(path) as entries:
                listed = list(entries)
        except OSError as error:
            problem = f"cannot be listed ({error.strerror})"
            yield Place(path=path, is_directory=True, problem=problem)
            continue
        for entry in listed:
            if (shown := _show(entry.path)) != entry.path:
                problem = "has a name that is not UTF-8; rename it"
                yield Place(path=shown, is_directory=entry.is_dir(), problem=problem)
                continue
            linked = is_linked or entry.is_symlink()
            place = _look(entry, linked)
            if place is None:
                (links if linked else directories).append((entry.path, linked))
            else:
                yield place


def _show(path: str) -> str:
    """A path as text; bytes of it that are not UTF-8 as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _look(entry: os.DirEntry[str], is_linked: bool) -> Place | None:
    """What an entry of a directory is; None for a directory."""
    try:
        found = entry.stat()
    except FileNotFoundError:
        target = Path(entry.path).readlink() if entry.is_symlink() else "nothing"
        return Place(path=entry.path, problem=f"is a broken link (to {target})")
    except OSError as error:
        return Place(path=entry.path, problem=f"cannot be read ({error.strerror})")
    if stat.S_ISDIR(found.st_mode):
        return None
    is_file = stat.S_ISREG(found.st_mode)
    return Place(
        path=entry.path,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        inode=(found.st_dev, found.st_ino),
        is_linked=is_linked,
        problem=None if is_file else "is no regular file",
    )
