"""Files on a disk or in a bucket, written whole or not at all.

    shards, predictions, report -> [storage] -> local directory, s3://, gs://, abfs://

A file gets its final name only when it is complete: on a disk by writing under a temporary name
and renaming, in a bucket because an object appears when its upload ends. A bucket that does not
answer is waited for (`retries`); a disk is not. This module knows nothing of what the files hold.
"""

import errno
import io
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from fastformers.atomic_file import check_writable
from fastformers.cluster.storage.ahead import map_ahead
from fastformers.cluster.storage.filesystems import MAX_REQUESTS, Store, connect
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError, StorageError

T = TypeVar("T")

TEMPORARY_SUFFIX = ".incomplete"


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file as a listing shows it."""

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory on some filesystem; pickles by its name, so actors get the same one."""

    store: Store
    path: str

    def __str__(self) -> str:
        return self.store.uri_of(self.path)

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """The filesystem; it waits for a bucket that does not answer."""
        return self.store.filesystem

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's disks."""
        return self.store.is_local

    def child(self, name: str) -> "Directory":
        """A directory inside this one."""
        return Directory(store=self.store, path=f"{self.path}/{name}")

    def list_files(self) -> list[str]:
        """Names of the files in it, sorted; empty if it does not exist."""
        return [entry.name for entry in self.list_entries()]

    def list_sizes(self) -> dict[str, int]:
        """Bytes of each file in it, by its name; empty if it does not exist."""
        return {entry.name: entry.size_bytes for entry in self.list_entries()}

    def list_entries(self) -> list[FileEntry]:
        """The files in it, by name, in one listing; empty if it does not exist."""
        found = (
            FileEntry(name=info.base_name, size_bytes=info.size, mtime_ns=info.mtime_ns or 0)
            for info in self._list()
            if info.type == pyarrow.fs.FileType.File
        )
        return sorted(found, key=lambda entry: entry.name)

    def list_directories(self) -> list[str]:
        """Names of the directories in it, sorted; empty if it does not exist."""
        kind = pyarrow.fs.FileType.Directory
        return sorted(entry.base_name for entry in self._list() if entry.type == kind)

    def is_empty(self, *, but: Collection[str] = ()) -> bool:
        """Whether it holds nothing but the files `but`, and temporary files of killed writers."""
        with storage_errors(str(self)):
            names = [info.base_name for info in self._list() if info.base_name not in but]
        return all(name.endswith(TEMPORARY_SUFFIX) for name in names)

    def create(self) -> None:
        """Make it and its parents, on a disk: in a bucket, files have names and no directories.

        Raises:
            StorageError: It cannot be made or written to.
        """
        if not self.is_local:
            return
        with storage_errors(str(self)):
            self.filesystem.create_dir(self.path, recursive=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(errno.EACCES, "Permission denied", self.path)

    def check_writable(self) -> None:
        """Make sure that files can be written to it; it need not exist, and is not made.

        A disk is asked; a bucket cannot be, so an object is put there and removed.

        Raises:
            StorageError: It cannot be written to.
        """
        with storage_errors(str(self)):
            if self.is_local:
                check_writable(Path(self.path) / "file")
                return
            name = f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
            with self.write(name) as file:
                file.write(b"a run may be written here")
            self.delete_file(name)

    def delete_file(self, name: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        path = self._place(name)
        try:
            self._persist(path, lambda client: client.delete_file(path))
        except FileNotFoundError:
            return

    def delete_contents(self) -> None:
        """Remove all that is in it; in a bucket, a thousand files with a request."""
        with storage_errors(str(self)):
            self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True)

    def delete_files(self, names: Iterable[str]) -> None:
        """Remove files, many at once in a bucket."""
        for _ in self.map_files(names, self.delete_file):
            pass

    def delete_leftovers(self) -> None:
        """Remove temporary files of writers that were killed."""
        self.delete_files(name for name in self.list_files() if name.endswith(TEMPORARY_SUFFIX))

    def open_input(self, name: str) -> pa.NativeFile:
        """Open a file for reading at random places.

        Raises:
            FileNotFoundError: It is not there.
        """
        return self.filesystem.open_input_file(self._place(name))

    def read_bytes(self, name: str) -> bytes:
        """A whole file: in a bucket, a request for its size and one for all of it.

        Raises:
            FileNotFoundError: It is not there.
        """
        return self._fetch(name).to_pybytes()  # type: ignore[no-any-return]

    def read_table(self, name: str, *, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file; in a bucket it is fetched whole, as `read_bytes` does.

        Raises:
            FileNotFoundError: It is not there.
            ArrowInvalid: It is no Parquet file.
        """
        opened = self.open_input(name) if self.is_local else pa.BufferReader(self._fetch(name))
        with opened as file:
            return pyarrow.parquet.read_table(
                file, columns=None if columns is None else list(columns), use_threads=False
            )

    def map_files(
        self,
        names: Iterable[str],
        act: Callable[[str], T],
        *,
        num_threads: int = MAX_REQUESTS,
    ) -> Iterator[T]:
        """Do something with each of many files, and give the results in the order of the names.

        In a bucket, `num_threads` files are in work at a time, and twice as many results wait to
        be taken; on a disk, one after the other. What `act` raises is raised here, in its turn.
        """
        if self.is_local:
            yield from map(act, names)
            return
        yield from map_ahead(act, names, num_threads=num_threads, num_ahead=2 * num_threads)

    def read_json(self, name: str) -> Any:
        """Parse a JSON file; None if it does not exist.

        Raises:
            InputError: It is not JSON.
        """
        try:
            return json.loads(self.read_bytes(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise InputError(
                f"{self}/{name}: is not JSON, so it is not ours; choose another directory"
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        with self.write(name) as file:
            file.write(json.dumps(value, indent=1).encode())

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file that gets its name when the block ends well, and is removed if it does not.

        Raises:
            StorageError: The disk is full, or the place cannot be written to.
        """
        if not self.is_local:
            buffer = io.BytesIO()  # an upload that fails is begun again
            yield buffer
            self._upload(self._place(name), buffer.getvalue())
            return
        with storage_errors(f"{self}/{name}"):
            temporary = Path(f"{self.path}/.{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
            try:
                with temporary.open("wb") as file:
                    yield file
                os.replace(temporary, f"{self.path}/{name}")
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def _fetch(self, name: str) -> pa.Buffer:
        path = self._place(name)

        def read(client: pyarrow.fs.FileSystem) -> pa.Buffer:
            with client.open_input_file(path) as file:
                return file.read_buffer(file.size())

        return self._persist(path, read)

    def _upload(self, path: str, content: bytes) -> None:
        def put(client: pyarrow.fs.FileSystem) -> None:
            with client.open_output_stream(path, compression=None) as file:
                file.write(content)

        self._persist(path, put)

    def _list(self) -> list[pyarrow.fs.FileInfo]:
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        return self.filesystem.get_file_info(selector)  # type: ignore[no-any-return]

    def _place(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _persist(self, path: str, act: Callable[[pyarrow.fs.FileSystem], T]) -> T:
        """Do something with the client of the filesystem, until its service answers."""
        store = self.store
        if store.is_local:
            return act(store.filesystem)
        return store.service.persist(store.uri_of(path), lambda: act(store.client))


def open_directory(uri: str, options: StorageOptions = NO_OPTIONS) -> Directory:
    """A directory by local path or URI; it need not exist, and nothing is asked for yet.

    Raises:
        InputError: The URI cannot be used.
    """
    store, path = connect(uri, options)
    return Directory(store=store, path=path.rstrip("/") or "/")


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line that names the file.

    Raises:
        StorageError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(f"{path}: disk full; free space and run the same command") from error
        reason = error.strerror or str(error).splitlines()[0]
        raise StorageError(f"{path}: cannot be written: {reason}") from error
