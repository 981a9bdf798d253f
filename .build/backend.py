"""setuptools' backend, with a source distribution that is the checkout itself.

    checkout -> [backend] -> fastformers_batch-VERSION.tar.gz -> make test

`fastformers/cluster` and `fastformers/jobs` are links; setuptools would put copies in their places
and leave the tests out. Everything else is setuptools' own.
"""

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

# What is tracked; the names of what tools leave beside it do not begin so.
_TOP = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *(".build", ".ci", ".dockerignore", ".github", ".gitignore", ".pre-commit-config.yaml"),
    *("cluster", "fastformers", "jobs", "tests"),
)


def build_sdist(sdist_directory, config_settings=None):
    """Write the archive; returns its name. The same files give the same bytes."""
    with tempfile.TemporaryDirectory() as directory:
        info = Path(directory, build_meta.prepare_metadata_for_build_wheel(directory))
        metadata = (info / "METADATA").read_bytes()
    stem = info.name.removesuffix(".dist-info")
    path = Path(sdist_directory, f"{stem}.tar.gz")
    # Since 1980, which is where the dates of a wheel begin.
    time = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))
    with (
        gzip.GzipFile(path, "wb", mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        entry = tarfile.TarInfo(f"{stem}/PKG-INFO")
        entry.size, entry.mtime = len(metadata), time
        archive.addfile(entry, io.BytesIO(metadata))
        for name in _TOP:
            archive.add(name, f"{stem}/{name}", filter=lambda entry: _plain(entry, time))
    return path.name


def _plain(entry, time):
    """An entry without what differs between machines; None for what Python and tools left."""
    name = entry.name.rpartition("/")[2]
    if name == "__pycache__" or name.endswith((".pyc", ".egg-info")):
        return None
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = time, 0, 0, "", ""
    return entry
