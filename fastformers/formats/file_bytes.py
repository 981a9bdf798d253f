"""Bytes of a file of the corpus: a small file in one request, a large one range by range.

    filesystem -> [file_bytes] -> bytes -> readers

A request to a bucket takes some 20 ms whatever it asks for, and a format reads a file at several
places: its header or footer, its types, its rows. A file that fits into a few MiB is therefore
fetched once and parsed in memory. This module knows no format.
"""

import io

import pyarrow as pa
import pyarrow.fs

# Largest file that is fetched whole; on a fast network it takes as long as three more requests.
WHOLE_FILE_BYTES = 8 * 2**20
# Compressed bytes that are read ahead, and text that is decompressed at a time: where a file is cut
# off, that much is lost before the cut.
_COMPRESSED_AHEAD_BYTES, _DECOMPRESSED_BYTES = 4 * 2**20, 2**16
_COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}


class FileBytes:
    """A file that may be opened several times, and is fetched once if it is small."""

    def __init__(self, filesystem: pyarrow.fs.FileSystem, path: str) -> None:
        """Ask for the file's size, and fetch it if it is small.

        Raises:
            OSError: The file is not there, or may not be read.
        """
        self._filesystem = filesystem
        self.path = path
        self._unused: pa.NativeFile | None = None
        self._whole: pa.Buffer | None = None
        file = filesystem.open_input_file(path)
        self.size_bytes: int = file.size()
        if self.size_bytes > WHOLE_FILE_BYTES:
            self._unused = file
        else:
            with file:
                self._whole = file.read_buffer(self.size_bytes)

    def open(self) -> pa.NativeFile:
        """Open the file at its start, for reading at random places."""
        if self._whole is not None:
            return pa.BufferReader(self._whole)
        file, self._unused = self._unused, None
        return file or self._filesystem.open_input_file(self.path)

    def open_text(self, start: int, ahead_bytes: int) -> io.BufferedReader:
        """Open the file to read its lines from a byte on.

        A compressed file is decompressed, and its bytes are counted decompressed.

        Args:
            start: Byte to start at.
            ahead_bytes: Bytes of a file that is not compressed to read ahead at a time.
        """
        compression = _COMPRESSIONS.get(self.path.lower().rpartition(".")[2])
        file = self.open()
        if compression is None:
            file.seek(start)
            return io.BufferedReader(file, ahead_bytes)
        ahead = pa.BufferedInputStream(file, _COMPRESSED_AHEAD_BYTES)
        text = pa.CompressedInputStream(ahead, compression)
        text.read(start)
        return io.BufferedReader(text, _DECOMPRESSED_BYTES)


def is_compressed(path: str) -> bool:
    """Whether a file can only be read from its beginning."""
    return path.lower().rpartition(".")[2] in _COMPRESSIONS
