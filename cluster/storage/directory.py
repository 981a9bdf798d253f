"""Files on a disk or in a bucket, written whole or not at all.

    shards, predictions, report -> [storage] -> local directory, s3://, gs://, abfs://

A file gets its final name only when it is complete: on a disk by writing under a temporary name
and renaming, in a bucket because an object appears when its upload ends. `pyarrow.fs` does the
rest. This module knows nothing of what the files hold.
"""

import errno
import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs

from cluster.storage.filesystems import resolve
from fastformers.errors import InputError, StorageError

TEMPORARY_SUFFIX = ".incomplete"


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory on some filesystem; pickles, so actors get the same one."""

    filesystem: pyarrow.fs.FileSystem
    path: str

    def __str__(self) -> str:
        return self.path

    def child(self, name: str) -> "Directory":
        """A directory inside this one."""
        return Directory(filesystem=self.filesystem, path=f"{self.path}/{name}")

    def list_files(self) -> list[str]:
        """Names of the files in it, sorted; empty if it does not exist."""
        return sorted(self.list_sizes())

    def list_sizes(self) -> dict[str, int]:
        """Bytes of each file in it, by its name; empty if it does not exist."""
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return {f.base_name: f.size for f in found if f.type == pyarrow.fs.FileType.File}

    def is_empty(self) -> bool:
        """Whether it holds nothing but temporary files of killed writers."""
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        with storage_errors(self.path):
            found = self.filesystem.get_file_info(selector)
        return all(info.base_name.endswith(TEMPORARY_SUFFIX) for info in found)

    def create(self) -> None:
        """Make it and its parents.

        Raises:
            StorageError: It cannot be made or written to.
        """
        with storage_errors(self.path):
            self.filesystem.create_dir(self.path, recursive=True)
            if isinstance(self.filesystem, pyarrow.fs.LocalFileSystem) and not os.access(
                self.path, os.W_OK
            ):
                raise PermissionError(errno.EACCES, "Permission denied", self.path)

    def delete_leftovers(self) -> None:
        """Remove temporary files of writers that were killed."""
        for name in self.list_files():
            if name.endswith(TEMPORARY_SUFFIX):
                self.filesystem.delete_file(f"{self.path}/{name}")

    def open_input(self, name: str) -> pa.NativeFile:
        """Open a file for reading at random places."""
        return self.filesystem.open_input_file(f"{self.path}/{name}")

    def read_json(self, name: str) -> Any:
        """Parse a JSON file; None if it does not exist.

        Raises:
            InputError: It is not JSON.
        """
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as file:
                return json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise InputError(
                f"{self.path}/{name}: is not JSON, so it is not ours; choose another directory"
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
        final = f"{self.path}/{name}"
        with storage_errors(final):
            if not isinstance(self.filesystem, pyarrow.fs.LocalFileSystem):
                buffer = io.BytesIO()  # closing a stream would commit what a failed block wrote
                yield buffer
                with self.filesystem.open_output_stream(final, compression=None) as file:
                    file.write(buffer.getbuffer())
                return
            temporary = Path(f"{self.path}/.{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
            try:
                with temporary.open("wb") as file:
                    yield file
                os.replace(temporary, final)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


def open_directory(uri: str) -> Directory:
    """A directory by local path or URI; it need not exist."""
    filesystem, path = resolve(uri)
    return Directory(filesystem=filesystem, path=path.rstrip("/") or "/")


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
