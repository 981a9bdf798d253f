"""Cut the files of a corpus into slices to read, from their names and sizes alone.

    corpus -> listing -> [slices] -> slices -> rows -> shards

A slice is what one actor reads and tokenizes at a time, a few megabytes: byte ranges of Parquet or
JSON lines files; a CSV file is not cut, but read in chunks. Slices follow each other in corpus
order, so rows keep their place without a global numbering. Only a few files are opened here, so
that a misspelled column is noticed at once; the reader of their format (`fastformers/formats/`)
checks each file where it is read. This module knows nothing of tokens, shards or prices.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fastformers.cluster.storage.ahead import map_ahead
from fastformers.cluster.storage.filesystems import resolve
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.files.listing import SourceFile
from fastformers.formats.file_set import open_files
from fastformers.formats.readers import (
    KEEP_FLAG,
    READ_STRICTLY,
    FilePart,
    FileReader,
    ReadOptions,
    UnfitFileError,
)

# Bytes of text. Small slices keep few actors waiting for the first shards, large ones open fewer
# files; a slice becomes about three shards (`layout.SHARDS_PER_CORPUS`).
MIN_SLICE_BYTES, MAX_SLICE_BYTES, SLICES_PER_CORPUS = 2**20, 16 * 2**20, 64
# A GPU fills a batch of tens of thousands of tokens with rows of one length, which it finds in a
# slice: 512 lengths of 32k tokens are 16M tokens. With slices of 5 MiB (1M tokens) an H200 scored
# 16,400 rows/s of paragraphs with the 4 x 312 student, a seventh of what it can.
MAX_GPU_SLICE_BYTES, GPU_SLICES_PER_CORPUS = 64 * 2**20, 16
# Files of a slice, which are read 16 at a time (`reading.READ_THREADS`): at 20 ms a request a slice
# of 256 small files takes a second.
MIN_SLICE_FILES, MAX_SLICE_FILES = 16, 256
OPEN_THREADS = 64  # files that are opened at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A contiguous part of one file.

    Attributes:
        path: The file.
        start: First byte.
        stop: Byte after the last; None for the end of the file.
        max_rows: Rows to take at most, or None for all.
        rest_start: Place where an earlier read of it stopped, in the unit of its reader, or None.
        first_row: Number in the file of its first row, where the parts before it were counted.
    """

    path: str
    start: int
    stop: int | None
    max_rows: int | None = None
    rest_start: int | None = None
    first_row: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Pieces that one actor reads together.

    Attributes:
        index: Place among the slices of the corpus.
        pieces: Pieces in corpus order.
        first_shard: Number of the first shard cut from it; above 0 for the rest of a slice whose
            beginning was already read.
        shard_seconds: Core-seconds of a shard that is cut from it; None for those of the run.
    """

    index: int
    pieces: tuple[Piece, ...]
    first_shard: int = 0
    shard_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Files of one format on one filesystem, and how to read them.

    Attributes:
        files: Files in name order, whatever is in them.
        skipped: What cannot be read and the user allowed to leave out, with the reason: broken
            links, and some of the opened files; others may be found where they are read.
        left_out: What else is at the place of the corpus and no part of it, for people.
        reader: Reader of their format.
        for_gpus: Whether actors on GPUs score it, for which slices may be larger.
    """

    files: tuple[SourceFile, ...]
    skipped: dict[str, str]
    left_out: tuple[str, ...] = ()
    reader: FileReader
    for_gpus: bool = False

    @property
    def text_bytes(self) -> int:
        """Rough size of the text, from the sizes of the files; only sizes slices and shards."""
        return sum(file.size_bytes for file in self.files) * self.reader.expansion

    @property
    def slice_bytes(self) -> int:
        """Bytes of a slice; depends on the size of the corpus, never on who scores it."""
        most, number = MAX_SLICE_BYTES, SLICES_PER_CORPUS
        if self.for_gpus:
            most, number = MAX_GPU_SLICE_BYTES, GPU_SLICES_PER_CORPUS
        return min(max(self.text_bytes // number, MIN_SLICE_BYTES), most)

    @property
    def slice_files(self) -> int:
        """Files of a slice at most; depends on the number of files, never on who scores them."""
        share = len(self.files) // SLICES_PER_CORPUS
        return min(max(share, MIN_SLICE_FILES), MAX_SLICE_FILES)

    @property
    def digest(self) -> str:
        """Hash that changes when a file is added, removed, renamed or modified."""
        names = "\n".join(f"{f.path}\0{f.size_bytes}\0{f.mtime_ns}" for f in self.files)
        return hashlib.sha256(names.encode()).hexdigest()

    def plan_slices(self, *, limit: int | None = None) -> list[Slice]:
        """Cut the files into slices, in corpus order.

        Args:
            limit: Rows of the corpus to take, from its start; None for all. Only then are files
                opened, as many as hold these rows.

        Raises:
            InputError: A file whose rows are to be counted cannot be read.
        """
        slices: list[Slice] = []
        pieces: list[Piece] = []
        size_bytes, slice_bytes, slice_files = 0, self.slice_bytes, self.slice_files
        for piece, piece_bytes in self._pieces() if limit is None else self._first_pieces(limit):
            is_full = size_bytes + piece_bytes > slice_bytes or len(pieces) == slice_files
            if pieces and is_full:
                slices.append(Slice(index=len(slices), pieces=tuple(pieces)))
                pieces, size_bytes = [], 0
            pieces.append(piece)
            size_bytes += piece_bytes
        if pieces:
            slices.append(Slice(index=len(slices), pieces=tuple(pieces)))
        return slices

    def _pieces(self) -> Iterator[tuple[Piece, int]]:
        """Pieces of all files, with their sizes."""
        slice_bytes = self.slice_bytes
        for file in self.files:
            for part in self.reader.cut_file(file.path, file.size_bytes, slice_bytes):
                yield Piece(path=file.path, start=part.start, stop=part.stop), part.num_bytes

    def _first_pieces(self, limit: int) -> Iterator[tuple[Piece, int]]:
        """Pieces that hold the first rows, with their sizes."""
        left, slice_bytes = limit, self.slice_bytes
        for files in _growing_batches(self.files):
            cut = partial(self._cut_rows, part_bytes=slice_bytes, limit=left)
            cut_files = list(map_ahead(cut, files, num_threads=OPEN_THREADS))
            for file, parts in zip(files, cut_files, strict=True):
                first_row = 0
                for part in parts:
                    num_rows = min(left, part.num_rows)
                    piece = Piece(
                        path=file.path,
                        start=part.start,
                        stop=part.stop,
                        max_rows=num_rows,
                        first_row=first_row,
                    )
                    yield piece, part.num_bytes * num_rows // max(1, part.num_rows)
                    first_row += num_rows
                    left -= num_rows
                    if left == 0:
                        return

    def _cut_rows(self, file: SourceFile, *, part_bytes: int, limit: int) -> list[FilePart]:
        try:
            return list(self.reader.cut_rows(file.path, file.size_bytes, part_bytes, limit))
        except UnfitFileError as error:
            if not self.reader.options.skip_unreadable:
                raise error.with_remedy(self.reader.options) from error
            return [FilePart(start=0, stop=None, num_bytes=0)]  # whoever reads it records why


def open_corpus(
    uri: str,
    *,
    text_columns: tuple[str, ...],
    keep_columns: tuple[str, ...] = (),
    keep_flag: str = KEEP_FLAG,
    options: ReadOptions = READ_STRICTLY,
    storage: StorageOptions = NO_OPTIONS,
    output: str | None = None,
) -> Corpus:
    """Find the files of a corpus, and check in some of them that they hold the columns.

    Args:
        uri: A file, a directory, a glob, or a URI of one of them.
        text_columns: The one or two columns that are scored.
        keep_columns: Columns that are passed through.
        keep_flag: Flags that name them, for messages.
        options: How files are read.
        storage: How to reach a bucket.
        output: Directory on the same storage that the run writes to; it may be inside the corpus.

    Raises:
        InputError: As `open_files` does.
    """
    filesystem, path = resolve(uri, storage)
    opened = open_files(
        filesystem,
        path,
        uri,
        text_columns=text_columns,
        keep_columns=keep_columns,
        keep_flag=keep_flag,
        options=options,
        output=output,
        map_files=partial(map_ahead, num_threads=OPEN_THREADS),
    )
    return Corpus(
        files=opened.files,
        skipped=opened.skipped,
        left_out=opened.left_out,
        reader=opened.reader,
    )


def _growing_batches(files: Sequence[SourceFile]) -> Iterator[Sequence[SourceFile]]:
    """Files in order: one, then two, then four, up to as many as are opened at once."""
    start, size = 0, 1
    while start < len(files):
        yield files[start : start + size]
        start, size = start + size, min(2 * size, OPEN_THREADS)
