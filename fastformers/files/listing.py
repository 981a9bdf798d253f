"""Find the files of a corpus, in name order, with one listing.

    file, directory, glob or URI -> [listing] -> names, sizes, times -> slices

No data file is opened: a bucket answers a thousand names at a time, but one request for each file
would take hours where there are many. Hidden files (`_SUCCESS`, `.part.crc`) are none of the
corpus, as in Spark, nor is what this project wrote itself; what else is left out is told. This
module knows no format.
"""

import fnmatch
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import pyarrow.fs

from fastformers.errors import InputError
from fastformers.files.places import Place, list_places
from fastformers.files.table_formats import find_tables, list_current_files
from fastformers.formatting import format_count

_COMPRESSIONS = (".gz", ".bz2", ".zst")
# Records of what this project writes, and keys that each of them has.
_OWN_RECORDS = {
    "__run__/run.json": {"format_version", "identity"},
    "prepared.json": {"format_version", "identity"},
    "bundle.json": {"format_version", "digest"},
}
_RECORD_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file of the corpus, with the size and time that tell whether it has changed."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is at the place of a corpus.

    Attributes:
        files: Its files, in name order.
        unreadable: What should be a file of it and cannot be one, such as a broken link, with the
            reason.
        left_out: What else is there and no part of it, for people.
    """

    files: tuple[SourceFile, ...]
    unreadable: dict[str, str]
    left_out: tuple[str, ...] = ()


def list_files(
    filesystem: pyarrow.fs.FileSystem,
    path: str,
    uri: str,
    suffixes: Collection[str],
    *,
    output: str | None = None,
) -> Listing:
    """Files of a corpus, in name order.

    Args:
        filesystem: Filesystem of the corpus.
        path: A file, a directory or a glob on it; what exists is no glob.
        uri: The same as the user wrote it, for messages.
        suffixes: Ends of names that have a reader.
        output: Directory there that the run writes to.

    Raises:
        InputError: Nothing is there, or no file that has a reader; or it is a table whose files
            only its own log names, or was written by this project.
    """
    base, pattern = path, None
    places = list_places(filesystem, base)  # in a bucket, one request tells most directories
    if not places:
        [info] = filesystem.get_file_info([path])
        if info.type == pyarrow.fs.FileType.File:
            if suffix_of(path) not in suffixes:
                raise InputError(f"{uri}: expected {_either(suffixes)}")
            return Listing(files=(_to_source(Place.of(info)),), unreadable={})
        if info.type != pyarrow.fs.FileType.Directory:
            if not any(character in path for character in "*?["):
                raise InputError(f"{uri}: no such file or directory")
            base, pattern = _split_glob(filesystem, path)
            places = list_places(filesystem, base)
    own = _find_own(filesystem, places)
    _check_own(base, own, uri, output)
    if tables := find_tables(filesystem, base, places):
        if pattern is None and set(tables) == {base}:
            current = list_current_files(filesystem, base, uri, tables[base])
            return Listing(files=tuple(map(_to_source, current)), unreadable={})
        where, kind = next(iter(tables.items()))
        raise InputError(
            f"{uri}: {where} is a table of {kind}, and only its log says which of its files are "
            "current; give that directory alone"
        )
    places = [place for place in places if not _is_hidden(place.path[len(base) :])]
    if pattern is not None:
        places = [p for p in places if _matches(p.path[len(base) + 1 :].split("/"), pattern)]
    return _sort_out(places, own if output is None else [*own, output], suffixes, uri)


def _sort_out(
    places: list[Place], own: Collection[str], suffixes: Collection[str], uri: str
) -> Listing:
    """Tell the files of a corpus from what else is there.

    Args:
        places: What is there.
        own: Directories that this project wrote.
        suffixes: Ends of names that have a reader.
        uri: The corpus, for messages.

    Raises:
        InputError: No file is left.
    """
    foreign, places = _part(places, lambda p: any(p.path.startswith(f"{d}/") for d in own))
    others, places = _part(places, lambda p: not _may_be_data(p, suffixes))
    unreadable, places = _part(places, lambda p: p.problem is not None)
    repeated, places = _part_repeated(places)
    if not places and not unreadable:
        raise InputError(f"{uri}: no {_either(suffixes)} file there")
    written = [d for d in own if any(p.path.startswith(f"{d}/") for p in foreign)]
    return Listing(
        files=tuple(map(_to_source, places)),
        unreadable={place.path: place.problem or "" for place in unreadable},
        left_out=(
            *(
                f"{directory}: written by fastformers, not read"
                for directory in sorted(set(written))
            ),
            *_describe(others, "of another format, not read"),
            *_describe(repeated, "the same file by another name (a link), read once"),
        ),
    )


def suffix_of(path: str) -> str:
    """End of a file's name, in small letters and without that of a compression."""
    name = path.rpartition("/")[2].lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return f".{name.rpartition('.')[2]}"


def _to_source(place: Place) -> SourceFile:
    return SourceFile(path=place.path, size_bytes=place.size_bytes, mtime_ns=place.mtime_ns)


def _split_glob(filesystem: pyarrow.fs.FileSystem, path: str) -> tuple[str, list[str]]:
    """The directory that a glob begins in, and the names after it; what exists is no pattern."""
    names = path.split("/")
    number = next(n for n, name in enumerate(names) if any(c in name for c in "*?["))
    while True:
        base = "/".join(names[: number + 1])
        [info] = filesystem.get_file_info([base])
        if info.type != pyarrow.fs.FileType.Directory:
            return "/".join(names[:number]), names[number:]
        number += 1


def _find_own(filesystem: pyarrow.fs.FileSystem, places: Iterable[Place]) -> list[str]:
    """Directories that this project wrote: those with a record of ours."""
    own = []
    for place in places:
        record = next((name for name in _OWN_RECORDS if place.path.endswith(f"/{name}")), None)
        if record is None or place.problem is not None:
            continue
        if _has_keys(filesystem, place.path, _OWN_RECORDS[record]):
            own.append(place.path.removesuffix(f"/{record}"))
    return own


def _check_own(base: str, own: Collection[str], uri: str, output: str | None) -> None:
    """Refuse a corpus that is what a run has written or will write."""
    if base == output:
        raise InputError(
            f"--output {output}: is the directory of the corpus; choose another, which may be "
            "inside it"
        )
    if base in own:
        raise InputError(
            f"{uri}: was written by fastformers and is no corpus; to score its predictions, give "
            "their directory"
        )


def _has_keys(filesystem: pyarrow.fs.FileSystem, path: str, keys: set[str]) -> bool:
    try:
        with filesystem.open_input_file(path) as file:
            record = json.loads(file.read(_RECORD_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and keys <= record.keys()


def _is_hidden(path: str) -> bool:
    """Whether Spark would pass over a path below the corpus; `_part=1` is a partition."""
    return any(n.startswith(".") or (n.startswith("_") and "=" not in n) for n in path.split("/"))


def _may_be_data(place: Place, suffixes: Collection[str]) -> bool:
    """Whether a place is a file of the corpus, or a directory or broken link that could be one."""
    name = place.path.rpartition("/")[2]
    could_be = place.is_directory or (place.problem is not None and "." not in name)
    return could_be or suffix_of(place.path) in suffixes


def _part(
    places: Iterable[Place], is_first: Callable[[Place], bool]
) -> tuple[list[Place], list[Place]]:
    """Places for which something is true, and the others."""
    parts: tuple[list[Place], list[Place]] = [], []
    for place in places:
        parts[not is_first(place)].append(place)
    return parts


def _part_repeated(places: Iterable[Place]) -> tuple[list[Place], list[Place]]:
    """Further names of files, and each file once, under a name that is no link if it has one."""
    seen: set[tuple[int, int]] = set()
    repeated: list[Place] = []
    once: list[Place] = []
    for place in sorted(places, key=lambda place: (place.is_linked, place.path)):
        is_new = place.inode is None or place.inode not in seen
        (once if is_new else repeated).append(place)
        if place.inode is not None:
            seen.add(place.inode)
    return repeated, sorted(once, key=lambda place: place.path)


def _describe(places: list[Place], what: str) -> list[str]:
    if not places:
        return []
    others = f" and {format_count(len(places) - 1, 'other')}" if len(places) > 1 else ""
    return [f"{min(place.path for place in places)}{others}: {what}"]


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
