"""The bundle of a run, on every host that needs it: known by its digest, never by a path.

    --bundle -> [bundle_delivery] -> cache of the driver's host -> packed bytes, or the bucket
             -> [bundle_delivery] -> cache of a node -> worker

Every host keeps bundles in `bundles/DIGEST` of its cache directory. The digest is that of the whole
manifest, so a directory can only ever hold one bundle: it is made under another name, verified by
the SHA-256 of every file, and then renamed. From then on a run uses that copy alone. What was not
used for 30 days is removed when another bundle comes in, unless a living process holds it.

This module knows nothing of Ray, or of how packed bytes travel.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from fastformers.cache import CACHE_VARIABLE, cache_directory
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import BundleError, FastformersError
from fastformers.files.hub import parse_hub_uri
from fastformers.inference.bundle import Bundle, open_bundle, parse_manifest
from fastformers.inference.manifest import MANIFEST_FILE, missing_manifest

logger = logging.getLogger(__name__)

_UNUSED_S = 30 * 24 * 3600.0
_COPY_BYTES = 8 * 2**20
_DRIVERS_COPY = "the driver's copy of the bundle"
# Descriptors of the directories in the cache that this process uses; each is locked until it ends.
_held: dict[Path, int] = {}


@dataclass(frozen=True, kw_only=True)
class PinnedBundle:
    """A bundle that cannot change any more.

    Attributes:
        digest: The bundle's `manifest_digest`.
        path: Directory of the copy on the host that pinned it.
        source: Path or URI that the user gave.
        bucket: The same as a directory, if it is in a bucket, where every node can read it.
    """

    digest: str
    path: Path
    source: str
    bucket: Directory | None

    def open(self) -> Bundle:
        """The bundle, verified; it calls itself by its source.

        Raises:
            BundleError: The copy is missing, damaged, or of another bundle.
        """
        bundle = replace(open_bundle(self.path), source=self.source)
        if bundle.manifest_digest != self.digest:
            raise BundleError(
                f"the bundle at {self.path} is not the run's (digest "
                f"{bundle.manifest_digest[:12]}, the run's is {self.digest[:12]})"
            )
        return bundle

    def deliver(self, fetch: Callable[[], bytes] | None) -> Self:
        """The same bundle on the host of this process, where `path` is its copy there.

        Raises:
            BundleError: See `deliver_bundle`.
        """
        return replace(self, path=deliver_bundle(self.digest, fetch=fetch, bucket=self.bucket))

    def pack(self) -> bytes:
        """All files of the bundle as one piece, for nodes that cannot read its source.

        A line of JSON has names and sizes, then the contents follow in that order.

        Raises:
            BundleError: The copy is missing or damaged.
        """
        names = [MANIFEST_FILE, *self.open().files]
        contents = [(self.path / name).read_bytes() for name in names]
        sizes = {name: len(content) for name, content in zip(names, contents, strict=True)}
        return b"".join([json.dumps(sizes).encode(), b"\n", *contents])


def pin_bundle(source: str | Path, storage: StorageOptions = NO_OPTIONS) -> PinnedBundle:
    """Verify a bundle and keep a copy of it: what happens at its path later changes nothing.

    Args:
        source: Directory of the bundle, or its URI in a bucket or on the hub (hf://org/name).
        storage: How the bucket is reached.

    Raises:
        BundleError: There is no bundle, it is damaged, or the copy cannot be written.
        InputError: The URI cannot be used.
        StorageError: The hub cannot be reached, and its cache has no such bundle.
    """
    named, source = str(source), str(source)
    if parse_hub_uri(source) is not None:
        fetched = open_bundle(source)
        named, source = str(fetched), str(fetched.path)
    directory = open_directory(source, storage)
    if directory.is_local:
        bundle = open_bundle(directory.path, source=named)
    else:
        bundle = parse_manifest(_read_manifest(directory, named), named)
    digest = bundle.manifest_digest
    path = find_bundle(digest) or _store(digest, partial(_copy, directory, named), named)
    return PinnedBundle(
        digest=digest, path=path, source=named, bucket=None if directory.is_local else directory
    )


def deliver_bundle(
    digest: str, *, fetch: Callable[[], bytes] | None, bucket: Directory | None
) -> Path:
    """The directory of a bundle on this host, brought here if need be.

    While the calling process lives, no other one removes the directory.

    Args:
        digest: Digest of the bundle.
        fetch: Function that returns what `PinnedBundle.pack` made; None if there is no such way.
        bucket: Directory that held the bundle when it was pinned, which is asked if `fetch` fails:
            it may be away, or hold another bundle by now.

    Raises:
        BundleError: It cannot be had, is another one, or cannot be written.
    """
    path = find_bundle(digest)
    if path is not None:
        return path
    ways: list[tuple[Callable[[Path], None], str]] = []
    if fetch is not None:
        ways.append((lambda target: _unpack(_call(fetch), target), _DRIVERS_COPY))
    if bucket is not None:
        ways.append((partial(_copy, bucket, str(bucket)), str(bucket)))
    problems: list[str] = []
    for fill, named in ways:
        try:
            return _store(digest, fill, named)
        except FastformersError as error:
            problems.append(str(error))
    raise BundleError("; ".join(dict.fromkeys(problems)) or f"bundle {digest} is not on this host")


def _call(fetch: Callable[[], bytes]) -> bytes:
    try:
        return fetch()
    except Exception as error:  # of whatever carries bytes here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{_DRIVERS_COPY} cannot be had: {reason}") from error


def find_bundle(digest: str) -> Path | None:
    """The directory of a bundle in the cache, held and verified; None if it is not there."""
    entry = cache_directory("bundles") / digest
    if not _hold(entry):
        return None
    try:
        is_right = open_bundle(entry).manifest_digest == digest
    except (BundleError, OSError):
        is_right = False
    if is_right:
        with contextlib.suppress(OSError):  # of another user's cache
            os.utime(entry)
        return entry
    logger.warning("%s: damaged; it is made again", entry)
    _put_away(entry)
    return None


def _store(digest: str, fill: Callable[[Path], None], named: str) -> Path:
    """Make the directory of a bundle in the cache, whole or not at all.

    Args:
        digest: Digest that the bundle must have.
        fill: Function that writes the bundle's files into a directory.
        named: What errors call the place that the files come from.

    Raises:
        BundleError: The files are not those of the bundle, or cannot be written.
    """
    cache = cache_directory("bundles")
    entry = cache / digest
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_unused(cache)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=cache) as scratch:
            staging = Path(scratch) / digest
            staging.mkdir()
            fill(staging)
            found = open_bundle(staging, source=named).manifest_digest
            if found != digest:
                raise BundleError(
                    f"{named}: holds another bundle (digest {found[:12]}) than the run's "
                    f"({digest[:12]}); it was replaced after the run began"
                )
            with contextlib.suppress(FileExistsError):
                _rename(staging, entry)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "disk full; free space, or"
        else:
            problem = f"cannot be written ({error.strerror or error});"
        raise BundleError(
            f"{cache}: {problem} set {CACHE_VARIABLE} to a directory with room for bundles"
        ) from error
    if not _hold(entry):
        raise BundleError(f"{entry}: was removed as soon as it was made; run again")
    return entry


def _rename(staging: Path, entry: Path) -> None:
    """Give a directory its name.

    Raises:
        FileExistsError: Another process was first, with the same bundle.
    """
    try:
        os.replace(staging, entry)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(error.errno, error.strerror, str(entry)) from error
        raise


def _hold(entry: Path) -> bool:
    """Keep a directory from being removed for as long as this process lives; False if it is gone.

    A process that removes one locks it alone first. Where a filesystem has no locks, nothing is
    removed either.
    """
    while True:
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # not there, or not for this user
            return False
        held = _held.get(entry)
        if held is not None and os.path.samestat(os.fstat(held), os.fstat(descriptor)):
            os.close(descriptor)
            return True
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):  # while this process waited for the lock
            if os.path.samestat(os.fstat(descriptor), entry.stat()):
                _held[entry] = descriptor
                if held is not None:
                    os.close(held)
                return True
        os.close(descriptor)


def _remove_unused(cache: Path) -> None:
    """Remove what no process holds and none used for 30 days, what killed ones left included."""
    for entry in cache.iterdir():
        with contextlib.suppress(OSError):  # held, another user's, or gone already
            if time.time() - entry.stat().st_mtime <= _UNUSED_S:
                continue
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _put_away(entry)
            finally:
                os.close(descriptor)


def _put_away(entry: Path) -> None:
    """Remove a directory; those who opened or mapped its files keep them."""
    with (
        contextlib.suppress(OSError),
        tempfile.TemporaryDirectory(
            prefix=".removed-", dir=entry.parent, ignore_cleanup_errors=True
        ) as scratch,
    ):
        os.replace(entry, Path(scratch) / entry.name)


def _copy(directory: Directory, named: str, target: Path) -> None:
    """Copy a bundle's files, and no others, out of a directory or bucket.

    Raises:
        BundleError: A file is missing or cannot be read.
    """
    manifest = _read_manifest(directory, named)
    (target / MANIFEST_FILE).write_bytes(manifest)

    def copy(name: str) -> None:
        with (target / name).open("wb") as written:
            _read_into(directory, name, named, written.write)

    for _ in directory.map_files(parse_manifest(manifest, named).files, copy):
        pass


def _read_manifest(directory: Directory, named: str) -> bytes:
    parts: list[bytes] = []
    _read_into(directory, MANIFEST_FILE, named, parts.append)
    return b"".join(parts)


def _read_into(
    directory: Directory, name: str, named: str, take: Callable[[bytes], object]
) -> None:
    """Read a file in pieces; only what reading raises becomes an error of the bundle's source."""
    try:
        file = directory.open_input(name)
    except FileNotFoundError as error:
        if name == MANIFEST_FILE:
            raise BundleError(missing_manifest(named)) from error
        raise BundleError(f"{named}: {name} is missing; copy the bundle again") from error
    except OSError as error:
        raise _unreadable(named, name, error) from error
    with file:
        while True:
            try:
                content = file.read(_COPY_BYTES)
            except OSError as error:
                raise _unreadable(named, name, error) from error
            if not content:
                return
            take(content)


def _unreadable(named: str, name: str, error: OSError) -> BundleError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BundleError(f"{named}/{name}: cannot be read: {reason}")


def _unpack(packed: bytes, target: Path) -> None:
    """Write the files that `PinnedBundle.pack` packed: those of its manifest, and no others.

    Raises:
        BundleError: The bytes are not those of a packed bundle.
    """
    named = _DRIVERS_COPY
    view = memoryview(packed)
    header = re.match(rb"[^\n]*\n", packed)
    try:
        if header is None:
            raise ValueError("no list of files")
        sizes = {name: int(size) for name, size in json.loads(header.group()).items()}
        start = header.end()
        manifest = bytes(view[start : start + sizes[MANIFEST_FILE]])
        names = [MANIFEST_FILE, *parse_manifest(manifest, named).files]
        is_whole = start + sum(sizes.values()) == len(view)
        if list(sizes) != names or not is_whole:
            raise ValueError("other files, or other sizes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{named}: damaged on its way here ({error})") from error
    for name, size in sizes.items():
        (target / name).write_bytes(view[start : start + size])
        start += size
