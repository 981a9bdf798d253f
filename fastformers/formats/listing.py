"""Find the files of a corpus, in name order, with one listing.

    file, directory, glob or URI -> [listing] -> names, sizes, times -> slices

No file is opened: a bucket answers a thousand names at a time, but one request for each file would
take hours where there are many. This module knows no format.
"""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow.fs

from fastformers.errors import InputError

_COMPRESSIONS = (".gz", ".bz2", ".zst")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file of the corpus, with the size and time that tell whether it has changed."""

    path: str
    size_bytes: int
    mtime_ns: int


def list_files(
    filesystem: pyarrow.fs.FileSystem, path: str, uri: str, suffixes: Collection[str]
) -> list[SourceFile]:
    """Files of a corpus, in name order; hidden files and those of other formats are left out.

    Args:
        filesystem: Filesystem of the corpus.
        path: A file, a directory or a glob on it.
        uri: The same as the user wrote it, for messages.
        suffixes: Ends of names that have a reader.

    Raises:
        InputError: Nothing is there, or no file that has a reader.
    """
    [info] = filesystem.get_file_info([path])
    if info.type == pyarrow.fs.FileType.File:
        if suffix_of(info.path) not in suffixes:
            raise InputError(f"{uri}: expected {_either(suffixes)}")
        found, base = [info], info.path
    elif info.type == pyarrow.fs.FileType.Directory:
        found, base = _list(filesystem, path), path
    elif any(character in path for character in "*?["):
        base = path[: min(path.find(c) for c in "*?[" if c in path)].rpartition("/")[0]
        pattern = path.split("/")
        found = [f for f in _list(filesystem, base) if _matches(f.path.split("/"), pattern)]
    else:
        raise InputError(f"{uri}: no such file or directory")
    files = [
        SourceFile(path=info.path, size_bytes=info.size, mtime_ns=info.mtime_ns or 0)
        for info in found
        if info.type == pyarrow.fs.FileType.File
        and not any(n.startswith((".", "_")) for n in info.path[len(base) :].split("/"))
        and suffix_of(info.path) in suffixes
    ]
    if not files:
        raise InputError(f"{uri}: no {_either(suffixes)} file there")
    return sorted(files, key=lambda file: file.path)


def suffix_of(path: str) -> str:
    """End of a file's name, in small letters and without that of a compression."""
    name = path.rpartition("/")[2].lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return f".{name.rpartition('.')[2]}"


def _list(filesystem: pyarrow.fs.FileSystem, base: str) -> list[pyarrow.fs.FileInfo]:
    selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
    return filesystem.get_file_info(selector)  # type: ignore[no-any-return]


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether a path fits a glob, name by name; `**` stands for any number of directories."""
    if not pattern or not names:
        return names == pattern or pattern == ["**"]
    if pattern[0] == "**":
        return _matches(names, pattern[1:]) or _matches(names[1:], pattern)
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _either(suffixes: Collection[str]) -> str:
    """All formats, for a message."""
    *others, last = suffixes
    return f"{', '.join(others)} or {last}"
