"""Find the files of a corpus, in name order, and cut them into slices to read.

    corpus -> [slices] -> slices -> rows -> shards

A slice is what one actor reads and tokenizes at a time, a few megabytes: some row groups of Parquet
files or a byte range of a JSON lines file; a CSV file is not cut, but read in chunks. Slices follow
each other in corpus order, so rows keep their place without a global numbering. The reader of their
format reads them (`readers.py`). This module knows nothing of tokens, shards or prices.
"""

import fnmatch
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs

from cluster.corpus.csv_files import CsvReader
from cluster.corpus.json_lines import JsonLinesReader
from cluster.corpus.parquet import ParquetReader
from cluster.corpus.readers import FileReader
from cluster.storage.filesystems import resolve
from cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError

# Bytes of text. Small slices keep few actors waiting for the first shards, large ones open fewer
# files; a slice becomes about three shards (`layout.SHARDS_PER_CORPUS`).
MIN_SLICE_BYTES, MAX_SLICE_BYTES, SLICES_PER_CORPUS = 2**20, 16 * 2**20, 64
# Every format, by the end of a file's name; a new one is a module and a line here.
FORMATS: dict[str, type[FileReader]] = {
    ".parquet": ParquetReader,
    ".jsonl": JsonLinesReader,
    ".ndjson": JsonLinesReader,
    ".json": JsonLinesReader,
    ".csv": CsvReader,
}
_COMPRESSIONS = (".gz", ".bz2", ".zst")


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of the corpus, with the size and time that tell whether it has changed."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A contiguous part of one file.

    Attributes:
        path: The file.
        start: First row group (Parquet) or byte.
        stop: Row group or byte after the last; None for the end of the file.
        max_rows: Rows to take at most, or None for all.
    """

    path: str
    start: int
    stop: int | None
    max_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Pieces that one actor reads together.

    Attributes:
        index: Place among the slices of the corpus.
        pieces: Pieces in corpus order.
        first_shard: Number of the first shard cut from it; above 0 for the rest of a CSV file
            whose beginning was already read.
    """

    index: int
    pieces: tuple[Piece, ...]
    first_shard: int = 0


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Files of one format on one filesystem, and how to read them.

    Attributes:
        files: Files in name order.
        skipped: Unreadable files that the user allowed to leave out, with the reason.
        reader: Reader of their format.
    """

    files: tuple[SourceFile, ...]
    skipped: dict[str, str]
    reader: FileReader

    @property
    def text_bytes(self) -> int:
        """Rough size of the text, from the sizes of the files; only sizes slices and shards."""
        return sum(file.size_bytes for file in self.files) * self.reader.expansion

    @property
    def slice_bytes(self) -> int:
        """Bytes of a slice; depends on the size of the corpus, never on who scores it."""
        share = self.text_bytes // SLICES_PER_CORPUS
        return min(max(share, MIN_SLICE_BYTES), MAX_SLICE_BYTES)

    @property
    def digest(self) -> str:
        """Hash that changes when a file is added, removed, renamed or modified."""
        names = "\n".join(f"{f.path}\0{f.size_bytes}\0{f.mtime_ns}" for f in self.files)
        return hashlib.sha256(names.encode()).hexdigest()

    def plan_slices(self, *, limit: int | None = None) -> list[Slice]:
        """Cut the files into slices, in corpus order.

        Args:
            limit: Rows of the corpus to take, from its start; None for all.
        """
        slices: list[Slice] = []
        pieces: list[Piece] = []
        size_bytes, slice_bytes = 0, self.slice_bytes
        for piece, piece_bytes in self._pieces(slice_bytes, limit):
            if pieces and size_bytes + piece_bytes > slice_bytes:
                slices.append(Slice(index=len(slices), pieces=tuple(pieces)))
                pieces, size_bytes = [], 0
            pieces.append(piece)
            size_bytes += piece_bytes
        if pieces:
            slices.append(Slice(index=len(slices), pieces=tuple(pieces)))
        return slices

    def _pieces(self, slice_bytes: int, limit: int | None) -> Iterator[tuple[Piece, int]]:
        left = limit
        for file in self.files:
            for part in self.reader.plan_file(file.path, slice_bytes, left):
                yield (
                    Piece(path=file.path, start=part.start, stop=part.stop, max_rows=part.max_rows),
                    part.num_bytes,
                )
                if left is not None:
                    left -= part.num_rows or 0
            if left is not None and left <= 0:
                return


def open_corpus(
    uri: str,
    *,
    text_columns: tuple[str, ...],
    keep_columns: tuple[str, ...],
    skip_unreadable: bool,
    storage: StorageOptions = NO_OPTIONS,
) -> Corpus:
    """Find the files of a corpus and check that they hold the columns.

    Args:
        uri: A file, a directory, a glob, or a URI of one of them.
        text_columns: The one or two columns that are scored.
        keep_columns: Columns that are passed through.
        skip_unreadable: Whether to leave out files that cannot be opened, instead of refusing.
        storage: How to reach a bucket.

    Raises:
        InputError: Nothing is there, formats are mixed, a file cannot be opened, a column is
            missing, or a text column does not hold text.
    """
    filesystem, path = resolve(uri, storage)
    files = _find_files(filesystem, path, uri)
    suffixes = {_suffix(file.path) for file in files}
    if len({FORMATS[suffix] for suffix in suffixes}) > 1:
        raise InputError(f"{uri}: mixes {', '.join(sorted(suffixes))}; score one format at a time")
    reader_type = FORMATS[suffixes.pop()]
    skipped: dict[str, str] = {}
    reader: FileReader | None = None
    readable: list[SourceFile] = []
    for file in files:
        try:
            candidate = reader_type.open(
                filesystem,
                file.path,
                text_columns=text_columns,
                keep_columns=keep_columns,
                skip_unreadable=skip_unreadable,
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            if not skip_unreadable:
                raise InputError(
                    f"{file.path}: cannot be read ({reason}); repair or remove it, or pass "
                    "--skip-unreadable-files to score the others"
                ) from error
            skipped[file.path] = reason
            continue
        if candidate is None:  # an empty file holds no rows and no columns
            continue
        if reader is not None and candidate.kept_schema != reader.kept_schema:
            raise InputError(
                f"{file.path}: kept columns are {_brief(candidate.kept_schema)}, but "
                f"{_brief(reader.kept_schema)} in {readable[0].path}; keep columns of one type"
            )
        reader = reader or candidate
        readable.append(file)
    if reader is None:
        left_out = f"; {len(skipped)} unreadable files were skipped" if skipped else ""
        raise InputError(f"{uri}: the corpus is empty{left_out}")
    return Corpus(files=tuple(readable), skipped=skipped, reader=reader)


def _find_files(filesystem: pyarrow.fs.FileSystem, path: str, uri: str) -> list[SourceFile]:
    [info] = filesystem.get_file_info([path])
    if info.type == pyarrow.fs.FileType.File:
        if _suffix(info.path) not in FORMATS:
            raise InputError(f"{uri}: expected {_formats()}")
        found, base = [info], info.path
    elif info.type == pyarrow.fs.FileType.Directory:
        found, base = _list(filesystem, path), path
    elif any(character in path for character in "*?["):
        base = path[: min(path.find(c) for c in "*?[" if c in path)].rpartition("/")[0]
        pattern = path.split("/")
        found = [f for f in _list(filesystem, base) if _matches(f.path.split("/"), pattern)]
    else:
        raise InputError(f"{uri}: no such file or directory")
    files = [
        SourceFile(path=info.path, size_bytes=info.size, mtime_ns=info.mtime_ns or 0)
        for info in sorted(found, key=lambda info: info.path)
        if info.type == pyarrow.fs.FileType.File
        and not any(n.startswith((".", "_")) for n in info.path[len(base) :].split("/"))
        and _suffix(info.path) in FORMATS
    ]
    if not files:
        raise InputError(f"{uri}: no {_formats()} file there")
    return files


def _list(filesystem: pyarrow.fs.FileSystem, base: str) -> list[pyarrow.fs.FileInfo]:
    selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
    return filesystem.get_file_info(selector)  # type: ignore[no-any-return]


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether a path fits a glob, name by name; `**` stands for any number of directories."""
    if not pattern or not names:
        return names == pattern or pattern == ["**"]
    if pattern[0] == "**":
        return _matches(names, pattern[1:]) or _matches(names[1:], pattern)
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _formats() -> str:
    """All formats, for a message."""
    *others, last = FORMATS
    return f"{', '.join(others)} or {last}"


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return f".{name.rpartition('.')[2]}"


def _brief(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
