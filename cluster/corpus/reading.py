"""Read the pieces of a slice, several at once and in order.

    slice -> pieces -> [reading] -> rows of each piece -> shards

A small file takes a few requests and no computing, so that many are fetched while one is parsed.
No more than `READ_THREADS` pieces are held before they are taken, and no more text of them than one
large piece has in memory. A file that does not fit the corpus ends the run, or is left out with a
reason where the user allowed that. This module knows nothing of formats, tokens or shards.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from fastformers.cluster.corpus.slices import Piece
from fastformers.cluster.storage.ahead import map_ahead
from fastformers.formats.readers import FileReader, Rows, UnfitFileError, no_rows

# An actor may have two jobs in hand, and writes shards meanwhile, over the connections of one
# client (`filesystems.MAX_REQUESTS`).
READ_THREADS = 16
_MIN_AHEAD_BYTES = 2**20  # of text that is read ahead of a piece


@dataclass(frozen=True, kw_only=True)
class PieceRead:
    """What came out of a piece.

    Attributes:
        piece: The piece.
        rows: Its rows; none where the file was left out.
        skipped: Reason why the file was left out, or None.
        cpu_s: Seconds that a core took to read it; waiting for storage does not count.
        is_ahead: Whether it was read ahead, and so less of it than one read may hold.
    """

    piece: Piece
    rows: Rows
    skipped: str | None
    cpu_s: float
    is_ahead: bool

    @property
    def rest(self) -> Piece | None:
        """Part of the piece that is left to read, or None."""
        max_rows = self.piece.max_rows
        if max_rows is not None:
            max_rows -= self.rows.num_rows
        if self.rows.rest_start is None or max_rows == 0:
            return None
        return replace(
            self.piece,
            rest_start=self.rows.rest_start,
            max_rows=max_rows,
            first_row=self.piece.first_row + self.rows.num_rows,
        )


def read_pieces(
    reader: FileReader, pieces: Sequence[Piece], *, chunk_bytes: int
) -> Generator[PieceRead]:
    """Read pieces in their order, each in as many reads as it takes, and look ahead meanwhile.

    Where there are several, those that are read ahead take `chunk_bytes` together.

    Args:
        reader: Reader of the corpus.
        pieces: Pieces to read.
        chunk_bytes: Bytes of text after which a read stops and leaves a rest.

    Raises:
        InputError: A file cannot be read or does not fit, and is not to be left out.
    """
    ahead_bytes = max(chunk_bytes // READ_THREADS, min(chunk_bytes, _MIN_AHEAD_BYTES))
    if len(pieces) == 1:
        reads = (_read_piece(piece, reader, chunk_bytes, is_ahead=False) for piece in pieces)
    else:
        read_ahead = partial(_read_piece, reader=reader, chunk_bytes=ahead_bytes, is_ahead=True)
        reads = map_ahead(read_ahead, pieces, num_threads=READ_THREADS)
    with closing(reads):
        for read in reads:
            yield read
            rest = read.rest
            while rest is not None:
                follower = _read_piece(rest, reader, chunk_bytes, is_ahead=False)
                yield follower
                rest = follower.rest


def read_all(reader: FileReader, pieces: Sequence[Piece], *, chunk_bytes: int) -> Iterator[Rows]:
    """Rows of pieces in their order, in as many reads as that takes.

    Raises:
        InputError: A file cannot be read or does not fit, and is not to be left out.
    """
    return (read.rows for read in read_pieces(reader, pieces, chunk_bytes=chunk_bytes))


def _read_piece(piece: Piece, reader: FileReader, chunk_bytes: int, *, is_ahead: bool) -> PieceRead:
    start = time.thread_time()
    skipped = None
    try:
        rows = reader.read(
            piece.path,
            start=piece.start,
            stop=piece.stop,
            max_rows=piece.max_rows,
            chunk_bytes=chunk_bytes,
            rest_start=piece.rest_start,
            first_row=piece.first_row,
        )
    except UnfitFileError as error:
        if not reader.options.skip_unreadable:
            raise error.with_remedy(reader.options) from error
        rows, skipped = no_rows(reader), error.reason
    return PieceRead(
        piece=piece,
        rows=rows,
        skipped=skipped,
        cpu_s=time.thread_time() - start,
        is_ahead=is_ahead,
    )
