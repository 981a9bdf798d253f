"""A pyarrow filesystem that waits for its service, also in the middle of a file.

    readers -> pyarrow -> [patient] -> retries -> client of the service

Whatever reads through `pyarrow.fs` (Parquet, Arrow's CSV, decompression) gets it by taking this
filesystem. It is pickled by what it is named by. This module knows nothing of what the files hold.
"""

import io
import itertools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.fs

from fastformers.cluster.storage.retries import Service

T = TypeVar("T")

# Bytes that a stream reads at a time; a request takes as long as a few megabytes.
STREAM_BYTES = 4 * 2**20


class Bucket(Protocol):
    """What the filesystem asks of: `filesystems.Store`."""

    @property
    def service(self) -> Service:
        """The bucket as this process knows it."""
        ...

    @property
    def client(self) -> pyarrow.fs.FileSystem:
        """The client of this process."""
        ...

    def uri_of(self, path: str) -> str:
        """A path in it, as a user would write it."""
        ...


class PatientFile(io.RawIOBase):
    """A file of a bucket; each read is tried until it succeeds."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        """Open a file.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: As `Service.persist` raises it.
        """
        self._bucket, self._path = bucket, path
        self._position = 0
        self._file: Any = None  # closed, too, where it could not be opened
        self._file = self._persist(lambda: bucket.client.open_input_file(path))
        self._size = self._persist(self._file.size)

    def read_buffer(self, num_bytes: int = -1) -> pa.Buffer:
        """The next bytes, fewer at the end of the file; all of them if `num_bytes` is negative."""
        left = max(0, self._size - self._position)
        wanted = left if num_bytes is None or num_bytes < 0 else min(left, num_bytes)
        if not wanted:
            return pa.py_buffer(b"")
        start = self._position
        buffer = self._persist(lambda: self._read(wanted, start))
        self._position = start + buffer.size
        return buffer

    def read(self, num_bytes: int = -1) -> bytes:
        """As `read_buffer`, as bytes."""
        return self.read_buffer(num_bytes).to_pybytes()  # type: ignore[no-any-return]

    def readinto(self, target: Any) -> int:
        """As `read_buffer`, into a buffer; returns how many bytes there were."""
        buffer = self.read_buffer(len(target))
        memoryview(target).cast("B")[: buffer.size] = memoryview(buffer).cast("B")
        return int(buffer.size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte, counted from the start, from here, or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The byte that is read next."""
        return self._position

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read at random places: yes."""
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and not self.closed:
            self._file.close()
        super().close()

    def _read(self, num_bytes: int, start: int) -> pa.Buffer:
        self._file.seek(start)
        return self._file.read_buffer(num_bytes)

    def _persist(self, act: Callable[[], T]) -> T:
        return self._bucket.service.persist(self._bucket.uri_of(self._path), act)


class PatientHandler(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]
    """Answers pyarrow's calls, each tried until it succeeds."""

    def __init__(self, bucket: Bucket) -> None:
        """Make no request yet."""
        self.bucket = bucket

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatientHandler) and self.bucket == other.bucket

    def __hash__(self) -> int:
        return hash(self.bucket)

    def get_type_name(self) -> str:
        return "patient"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return self._persist(paths[0] if paths else "", lambda c: c.get_file_info(paths))

    def get_file_info_selector(
        self, selector: pyarrow.fs.FileSelector
    ) -> list[pyarrow.fs.FileInfo]:
        return self._persist(selector.base_dir, lambda c: c.get_file_info(selector))

    def open_input_file(self, path: str) -> pa.PythonFile:
        return pa.PythonFile(PatientFile(self.bucket, path), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        file = PatientFile(self.bucket, path)
        return pa.PythonFile(io.BufferedReader(file, STREAM_BYTES), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self.bucket.client.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self.bucket.client.open_append_stream(path, compression=None, metadata=metadata)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._persist(path, lambda c: c.create_dir(path, recursive=recursive))

    def delete_dir(self, path: str) -> None:
        self._remove(path, lambda c: c.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        self._persist(path, lambda c: c.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("nobody deletes all buckets")

    def delete_file(self, path: str) -> None:
        self._remove(path, lambda c: c.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError("a move in a bucket cannot be done twice; copy and delete")

    def copy_file(self, src: str, dest: str) -> None:
        self._persist(src, lambda c: c.copy_file(src, dest))

    def _remove(self, path: str, act: Callable[[pyarrow.fs.FileSystem], None]) -> None:
        """Remove something; it may be gone if the answer to an earlier attempt was lost."""
        attempts = itertools.count()

        def remove(client: pyarrow.fs.FileSystem) -> None:
            is_first = next(attempts) == 0
            try:
                act(client)
            except FileNotFoundError:
                if is_first:
                    raise

        self._persist(path, remove)

    def _persist(self, path: str, act: Callable[[pyarrow.fs.FileSystem], T]) -> T:
        bucket = self.bucket
        return bucket.service.persist(bucket.uri_of(path), lambda: act(bucket.client))
