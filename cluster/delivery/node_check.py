"""Whether a node can do the work of a run, asked before it is given any.

    bundle, engine, directories -> [node_check] in the driver -> NodeCheck
    NodeCheck -> [node_check] on a node -> nothing, or one line that says what is wrong there

A node is compared with the driver: the same code, the same versions of what decides a prediction,
room for a worker, directories that can be used, and the same logits for a few rows. This module
knows nothing of Ray. What it loads on a node (the engine and the model) stays in the memory of the
process that calls it, so a short-lived one should.
"""

import errno
import hashlib
import importlib
import importlib.metadata
import itertools
import os
import platform
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pyarrow.fs

import fastformers.cache
from fastformers.cache import CACHE_VARIABLE, cache_directory
from fastformers.cluster.delivery.bundle_delivery import PinnedBundle, find_bundle
from fastformers.cluster.delivery.canary import Canary, find_difference, make_canary
from fastformers.cluster.storage.ahead import side_by_side
from fastformers.cluster.storage.directory import TEMPORARY_SUFFIX, Directory
from fastformers.errors import BundleError, FastformersError, NodeUnfitError
from fastformers.inference.bundle import open_bundle
from fastformers.inference.cpu import kernel_text
from fastformers.inference.engines import ENGINES, REFERENCE_ENGINE

_GIB = 2**30
# Resident memory of an actor with a small model: 294 to 347 MiB (cluster/README.md, 2026-11-24).
_ACTOR_BYTES = 350 * 2**20
# The weights are mapped and shared, but the runtime packs a copy for its kernels.
_COPIES_OF_WEIGHTS = 2
_MISSING = "missing"
# Packages that only carry data between processes: another minor version reads the same values.
_MAJOR_DECIDES = {"numpy", "pyarrow"}


@dataclass(frozen=True, kw_only=True)
class NodeCheck:
    """What a node must have; made by the driver, and sent to each node.

    Attributes:
        versions: Versions in the driver, by package; the code of this project is one of them.
        bundle: Bundle of the run.
        readable: Directories that must be there.
        writable: Directories that a file is written to, for a moment.
        disk_bytes: Room that the bundle needs on the disk of the cache, where it is not there yet.
        memory_bytes: Memory that one actor needs, about.
        canary: Rows to compute, or None where the run scores nothing.
        auditor: Bundle that audits the run, or None.
        auditors_canary: Rows that it computes, or None.
        auditors_disk_bytes: Room that it needs there.
    """

    versions: dict[str, str]
    bundle: PinnedBundle
    readable: tuple[Directory, ...]
    writable: tuple[Directory, ...]
    disk_bytes: int
    memory_bytes: int
    canary: Canary | None
    auditor: PinnedBundle | None = None
    auditors_canary: Canary | None = None
    auditors_disk_bytes: int = 0


def make_node_check(
    pinned: PinnedBundle,
    *,
    auditor: PinnedBundle | None = None,
    engine: str | None,
    precision: str | None = None,
    computed_by: str | None = None,
    readable: tuple[Directory, ...] = (),
    writable: tuple[Directory, ...] = (),
) -> NodeCheck:
    """Ask of every node what the driver has; loads the model for a moment if the run scores.

    Args:
        pinned: Bundle of the run.
        auditor: Bundle that audits it, or None.
        engine: Name of the engine that scores there, or None if nodes only prepare.
        precision, computed_by: See `make_canary`; nodes whose engine the driver does not have may
            have another version of it.
        readable: Directories that workers read.
        writable: Directories that workers write to; they exist.

    Raises:
        BundleError: A bundle cannot score the rows of the canary.
    """
    bundle, bundle_bytes = pinned.open(), _measure_files(pinned)
    auditors_bytes = 0 if auditor is None else _measure_files(auditor)
    return NodeCheck(
        versions=read_versions(engine if computed_by is None else None),
        bundle=pinned,
        readable=readable,
        writable=writable,
        disk_bytes=bundle_bytes,
        memory_bytes=_ACTOR_BYTES
        + (0 if engine is None else _COPIES_OF_WEIGHTS * (bundle_bytes + auditors_bytes)),
        canary=None
        if engine is None
        else make_canary(bundle, engine, precision=precision, computed_by=computed_by),
        auditor=auditor,
        auditors_canary=None if auditor is None else make_canary(auditor.open(), REFERENCE_ENGINE),
        auditors_disk_bytes=auditors_bytes,
    )


def check_node(
    request: NodeCheck,
    *,
    fetch: Callable[[], bytes] | None,
    fetch_auditor: Callable[[], bytes] | None = None,
) -> PinnedBundle:
    """Check a node before it works: host, bundles, canaries.

    Args:
        request: What the driver asks for.
        fetch, fetch_auditor: See `deliver_bundle`.

    Returns:
        The bundle of the run on this host.

    Raises:
        NodeUnfitError: The node cannot do the work; one line says everything that is wrong.
    """
    check_host(request)
    try:
        bundle = request.bundle.deliver(fetch)
        auditor = request.auditor and request.auditor.deliver(fetch_auditor)
    except BundleError as error:
        raise NodeUnfitError(str(error)) from error
    if request.canary is not None:
        check_canary(bundle.path, request.canary)
    if auditor is not None and request.auditors_canary is not None:
        check_canary(auditor.path, request.auditors_canary)
    return bundle


def check_host(request: NodeCheck) -> None:
    """Check versions, memory, disk and directories, which takes no time worth mentioning.

    Raises:
        NodeUnfitError: Something is missing; one line says everything that is.
    """
    problems = [*_compare_versions(request.versions)]
    free_bytes = measure_free_memory()
    if free_bytes < request.memory_bytes:
        problems.append(
            f"has {free_bytes / _GIB:.1f} GiB of memory free, an actor needs about "
            f"{request.memory_bytes / _GIB:.1f}"
        )
    missing_bytes = 0 if find_bundle(request.bundle.digest) else request.disk_bytes
    if request.auditor is not None and not find_bundle(request.auditor.digest):
        missing_bytes += request.auditors_disk_bytes
    if missing_bytes:
        problems += _check_disk(missing_bytes)
    looks = [partial(_check_readable, directory) for directory in request.readable]
    looks += [partial(_check_writable, directory) for directory in request.writable]
    problems += itertools.chain(*side_by_side(*looks))
    if problems:
        raise NodeUnfitError("; ".join(problems))


def check_canary(bundle_path: Path, canary: Canary) -> None:
    """Tokenize and score the rows of a canary here, and compare; loads the model.

    Raises:
        NodeUnfitError: The engine cannot load the bundle, or token ids or logits are others.
    """
    try:
        difference = find_difference(open_bundle(bundle_path), canary)
    except FastformersError as error:
        raise NodeUnfitError(str(error)) from error
    if difference is not None:
        raise NodeUnfitError(
            f"computes {difference}; the driver's versions are the same, so look for bad "
            "memory or another CPU"
        )


def _measure_files(pinned: PinnedBundle) -> int:
    return sum(file.stat().st_size for file in pinned.path.iterdir())


def read_versions(engine: str | None) -> dict[str, str]:
    """Versions of what decides a prediction on this host, or carries it, by package.

    A package is asked for its own version, because distributions of several names bring the same
    one (onnxruntime, onnxruntime-gpu). This project is known by its source: a wheel that was built
    from other files may have the same version.
    """
    packages = ["numpy", "pyarrow", "tokenizers"]
    if engine is not None:
        packages.append(ENGINES[engine].package)
    versions = {name: _import_version(name) for name in packages}
    try:
        versions["ray"] = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        versions["ray"] = _MISSING
    versions["Python"] = ".".join(platform.python_version_tuple()[:2])
    versions["fastformers' source"] = digest_source()[:12]
    return versions


def digest_source() -> str:
    """SHA-256 of this project's own Python files, as they are installed here."""
    digest = hashlib.sha256()
    root = fastformers.__path__[0]
    # In a checkout two of the packages are links, which `rglob` leaves out.
    found = os.walk(root, followlinks=True)
    paths = [Path(folder, name) for folder, _, names in found for name in names]
    for path in sorted(path.relative_to(root).as_posix() for path in paths):
        if path.endswith(".py"):
            content = Path(root, path).read_bytes()
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def measure_free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: of the host's, and of its container's limit."""
    free_bytes = [psutil.virtual_memory().available]
    cgroups = root / "sys/fs/cgroup"
    own = [cgroups]
    for line in kernel_text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            own += [cgroups / part for part in _parents(line.removeprefix("0::"))]
    for group in own:
        limit, used = (kernel_text(group / f"memory.{of}").strip() for of in ("max", "current"))
        if limit.isdigit() and used.isdigit():
            # The kernel drops cached files before it refuses memory.
            stat = dict(line.split() for line in kernel_text(group / "memory.stat").splitlines())
            free_bytes.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return max(0, min(free_bytes))


def _parents(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]


def _import_version(name: str) -> str:
    try:
        return str(importlib.import_module(name).__version__)
    except ImportError:
        return _MISSING


def _compare_versions(expected: dict[str, str]) -> list[str]:
    engines = [name for name, entry in ENGINES.items() if entry.package in expected]
    here = read_versions(engines[0] if engines else None)
    differing = [
        f"{name} {here.get(name, _MISSING)} here, {version} in the driver"
        for name, version in expected.items()
        if not _is_same(name, here.get(name, _MISSING), version)
    ]
    if not differing:
        return []
    return [", ".join(differing) + " (install the same wheels on all nodes)"]


def _is_same(name: str, here: str, expected: str) -> bool:
    if name in _MAJOR_DECIDES:
        return here.partition(".")[0] == expected.partition(".")[0]
    return here == expected


def _check_disk(needed_bytes: int) -> list[str]:
    place = cache_directory("bundles")
    try:
        existing = next(path for path in (place, *place.parents) if path.exists())
        free_bytes = shutil.disk_usage(existing).free
    except OSError as error:
        return [f"cannot use {place} ({_reason(error)}); set {CACHE_VARIABLE} to another directory"]
    if free_bytes >= needed_bytes:
        return []
    return [
        f"has {free_bytes / 2**20:,.0f} MiB free at {place}, the bundle needs "
        f"{needed_bytes / 2**20:,.0f}"
    ]


def _check_readable(directory: Directory) -> list[str]:
    """Look whether it is there; to list it would take minutes where it is large and far away."""

    def look(filesystem: pyarrow.fs.FileSystem) -> None:
        if filesystem.get_file_info(directory.path).type == pyarrow.fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, "not found", directory.path)
        if directory.is_local and not os.access(directory.path, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no access", directory.path)

    return _try(f"cannot read {directory}", directory, look)


def _check_writable(directory: Directory) -> list[str]:
    path = f"{directory.path}/.node-check-{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"

    def write(filesystem: pyarrow.fs.FileSystem) -> None:
        with filesystem.open_output_stream(path) as file:
            file.write(b"\0")
        filesystem.delete_file(path)

    return _try(f"cannot write to {directory}", directory, write)


def _try(
    problem: str, directory: Directory, act: Callable[[pyarrow.fs.FileSystem], None]
) -> list[str]:
    """What is wrong, if anything is; a bucket that is away for everybody is no fault of the node.

    Workers wait for such a bucket and say so.
    """
    store = directory.store
    try:
        if store.is_local:
            act(store.filesystem)
        else:
            store.service.attempt(str(directory), lambda: act(store.client))
    except (FastformersError, OSError) as error:
        return [f"{problem}: {_reason(error)}"]
    return []


def _reason(error: FastformersError | OSError) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # its own text names the path once more
    return (str(error) or type(error).__name__).splitlines()[0]
