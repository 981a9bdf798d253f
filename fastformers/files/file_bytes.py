"""Bytes of a file of the corpus: a small file in one request, a large one range by range.

    filesystem -> [file_bytes] -> bytes, or text in UTF-8 -> readers

A request to a bucket takes some 20 ms whatever it asks for, and a format reads a file at several
places: its header or footer, its types, its rows. A file that fits into a few MiB is therefore
fetched once and parsed in memory. Compressed text, and text in an encoding whose line breaks are
not those of ASCII, is decoded on the way, a little at a time. This module knows no format.
"""

import codecs
import io
from typing import Any

import pyarrow as pa
import pyarrow.fs

from fastformers.files.file_kind import (
    HEAD_BYTES,
    UTF_8,
    find_compression,
    find_text_encoding,
    is_parquet,
    keeps_ascii,
    refuse_foreign,
)

# Largest file that is fetched whole; on a fast network it takes as long as three more requests.
WHOLE_FILE_BYTES = 8 * 2**20
# Bytes that are read with the beginning of a file, which tells what it is and has its types.
_HEAD_AHEAD_BYTES = 2**20
# Compressed bytes that are read ahead, and text that is decompressed at a time: where a file is cut
# off, that much is lost before the cut.
_COMPRESSED_AHEAD_BYTES, _DECODED_BYTES = 4 * 2**20, 2**16
_PASSED_BYTES = 16 * _DECODED_BYTES  # of decoded text that is passed over at a time
_COMPRESSED_SUFFIXES = ("gz", "bz2", "zst")


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

    def check_parquet(self) -> None:
        """Refuse a file that is plainly something else than Parquet.

        Raises:
            ValueError: It is not Parquet; says what it is.
        """
        with self.open() as file:
            head = file.read(HEAD_BYTES)
        refuse_foreign(head)
        if (compression := find_compression(head)) is not None:
            raise ValueError(f"it is {compression}-compressed, not Parquet; decompress it")
        if head and not is_parquet(head):
            raise ValueError("it is not Parquet; let its name say what it is")


class TextFile:
    """A file of text, whatever it is compressed with.

    Attributes:
        path: The file.
        size_bytes: Its size as stored.
        encoding: Encoding of the lines that `open` gives.
        in_order: Whether it can only be read from its start, because its bytes are decompressed or
            decoded on the way; places in it are then those of the decoded bytes.
    """

    def __init__(
        self, filesystem: pyarrow.fs.FileSystem, path: str, *, encoding: str | None
    ) -> None:
        """Look at the beginning of a file.

        Args:
            filesystem: Where it is.
            path: Its path there.
            encoding: Encoding that the user names, or None to recognize it.

        Raises:
            OSError: It is not there, or cannot be read.
            ValueError: It is no text; says what it is.
        """
        self._bytes = FileBytes(filesystem, path)
        self.path, self.size_bytes = path, self._bytes.size_bytes
        self._stored = self._bytes.open()
        self._first: io.BufferedReader | None = io.BufferedReader(self._stored, _HEAD_AHEAD_BYTES)
        head = self._first.peek(HEAD_BYTES)[:HEAD_BYTES]
        self._compression = find_compression(head)
        if self._compression is not None:
            self._stored = self._first.detach()
            self._first = self._decompress(_COMPRESSED_AHEAD_BYTES)
            head = self._first.peek(HEAD_BYTES)[:HEAD_BYTES]
        self._stored_as = find_text_encoding(head, encoding)
        is_decoded = not keeps_ascii(self._stored_as)
        self.encoding = UTF_8 if is_decoded else self._stored_as
        self.in_order = is_decoded or self._compression is not None

    def open(self, start: int, ahead_bytes: int) -> io.BufferedReader:
        """Open the file at a byte; what lies before it in a file read in order is passed over.

        Args:
            start: Byte to start at, decoded.
            ahead_bytes: Bytes of the file to read at once.
        """
        text, self._first = self._first, None
        if text is None or (start > 0 and not self.in_order):
            self._stored = self._bytes.open()
            if self._compression is not None:
                text = self._decompress(min(ahead_bytes, _COMPRESSED_AHEAD_BYTES))
            else:
                self._stored.seek(0 if self.in_order else start)
                text = io.BufferedReader(self._stored, ahead_bytes)
        if self.encoding != self._stored_as:
            text = io.BufferedReader(_Utf8(text, self._stored_as), _DECODED_BYTES)
        # By whole buffers, so that no more is lost before damage than if all were read at once.
        while self.in_order and start > 0 and (passed := text.read(min(start, _PASSED_BYTES))):
            start -= len(passed)
        return text

    @property
    def consumed_bytes(self) -> int:
        """Bytes of the file, as stored, that were read since it was opened last."""
        return int(self._stored.tell())

    def _decompress(self, ahead_bytes: int) -> io.BufferedReader:
        self._stored.seek(0)
        ahead = pa.BufferedInputStream(self._stored, ahead_bytes)
        return io.BufferedReader(pa.CompressedInputStream(ahead, self._compression), _DECODED_BYTES)


class _Utf8(io.RawIOBase):
    """Text of another encoding as UTF-8; what has no meaning there becomes invalid UTF-8."""

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        is_last = False
        while not self._left and not is_last:
            encoded = self._file.read1(_DECODED_BYTES)
            is_last = not encoded
            try:
                text = self._decoder.decode(encoded, final=is_last)
            except UnicodeDecodeError as error:
                raise OSError(f"not {self._encoding}: {error.reason}") from error
            self._left = text.encode("utf-8", "surrogatepass")
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def is_compressed(path: str) -> bool:
    """Whether a file's name says that it can only be read from its beginning."""
    return path.lower().rpartition(".")[2] in _COMPRESSED_SUFFIXES
