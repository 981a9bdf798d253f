"""The filesystem of a path: a disk, or a bucket by its URI.

    path or URI -> [filesystems] -> pyarrow filesystem, path in it

`pyarrow.fs` does the rest. This module knows nothing of what the files hold.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from fastformers.errors import InputError


def resolve(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Filesystem and path of a local path or a URI such as s3://bucket/key.

    Raises:
        InputError: The scheme is unknown or its filesystem cannot be reached.
    """
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InputError(f"{uri}: {error}".splitlines()[0]) from error
    return filesystem, path
