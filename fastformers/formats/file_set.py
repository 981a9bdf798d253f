"""Find the files of a corpus or of labeled examples, and check some of them before any is read.

    path -> listing -> [file_set] -> files and their reader -> slices, examples

Only a few files are opened, so that a misspelled column is noticed at once; the reader checks each
file where it is read. This module knows no format.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.fs

from fastformers.errors import InputError
from fastformers.files.listing import SourceFile, list_files, suffix_of
from fastformers.formats.kept_columns import ALL_COLUMNS, plan_schema
from fastformers.formats.readers import (
    KEEP_FLAG,
    READ_STRICTLY,
    FileReader,
    ReadOptions,
    UnfitFileError,
    UnreadableFileError,
    no_column,
)
from fastformers.formats.recognize import FORMATS
from fastformers.formatting import format_count

logger = logging.getLogger(__name__)

# Files that are opened at first, from all over the corpus, and that are opened at a time after
# them, where those are empty.
SAMPLE_FILES, BATCH_FILES = 16, 64

_Opened = FileReader | UnfitFileError | None


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """Files of one format on one filesystem, and how to read them.

    Attributes:
        files: Files in name order, whatever is in them.
        skipped: What cannot be read and the user allowed to leave out, with the reason: broken
            links, and some of the opened files; others may be found where they are read.
        left_out: What else is at the place of the files and none of them, for people.
        reader: Reader of their format.
    """

    files: tuple[SourceFile, ...]
    skipped: dict[str, str]
    left_out: tuple[str, ...] = ()
    reader: FileReader


def formats_at(filesystem: pyarrow.fs.FileSystem, path: str, uri: str) -> set[type[FileReader]]:
    """Readers of the formats that files have, by their names; nothing is opened.

    Args:
        filesystem: Where they are.
        path: A file, a directory or a glob there.
        uri: The same as the user wrote it, for messages.

    Raises:
        InputError: Nothing is there.
    """
    files = list_files(filesystem, path, uri, FORMATS).files
    return {FORMATS[suffix_of(file.path)] for file in files}


def open_files(
    filesystem: pyarrow.fs.FileSystem,
    path: str,
    uri: str,
    *,
    text_columns: tuple[str, ...],
    keep_columns: tuple[str, ...] = (),
    options: ReadOptions = READ_STRICTLY,
    keep_flag: str = KEEP_FLAG,
    output: str | None = None,
    map_files: Callable[
        [Callable[[SourceFile], _Opened], Iterable[SourceFile]], Iterable[_Opened]
    ] = map,
) -> FileSet:
    """Find files, and check in some of them that they hold the columns.

    Args:
        filesystem: Where they are.
        path: A file, a directory or a glob there.
        uri: The same as the user wrote it, for messages.
        text_columns: Columns that hold text.
        keep_columns: Names of columns that hold anything, see `kept_columns.choose_names`.
        options: How files are read.
        keep_flag: The flag that names the kept columns, for messages.
        output: Directory there that is written to, and whose files are none of these.
        map_files: `map`, or one that opens several files at once.

    Raises:
        InputError: Nothing is there, formats are mixed, or one of the files that are opened cannot
            be read, lacks a column, or has a text column that does not hold text.
    """
    listing = list_files(filesystem, path, uri, FORMATS, output=output)
    files = listing.files
    skipped = dict(listing.unreadable)
    _check_errors([UnreadableFileError(*item) for item in skipped.items()], True, options)
    suffixes = {suffix_of(file.path) for file in files}
    if not suffixes:
        raise InputError(f"{uri}: {options.when_empty}{_describe_skipped(skipped)}")
    if len({FORMATS[suffix] for suffix in suffixes}) > 1:
        raise InputError(f"{uri}: mixes {', '.join(sorted(suffixes))}; give one format at a time")
    reader_type = FORMATS[suffixes.pop()]

    def open_file(file: SourceFile) -> _Opened:
        try:
            return reader_type.open(
                filesystem,
                file.path,
                text_columns=text_columns,
                keep_columns=keep_columns,
                options=options,
            )
        except UnfitFileError as error:
            return error

    for chosen in _samples(files):
        opened = list(map_files(open_file, chosen))
        errors = [found for found in opened if isinstance(found, UnfitFileError)]
        candidates = [r for r in opened if r is not None and not isinstance(r, UnfitFileError)]
        _check_errors(errors, bool(candidates), options)
        skipped.update((error.path, error.reason) for error in errors)
        if candidates:
            reader = _plan_kept(candidates, keep_columns, files, keep_flag)
            found = FileSet(files=files, skipped=skipped, left_out=listing.left_out, reader=reader)
            _tell(found)
            return found
    raise InputError(f"{uri}: {options.when_empty}{_describe_skipped(skipped)}")


def _tell(found: FileSet) -> None:
    """Say what is not read, and what was guessed."""
    for line in found.left_out:
        logger.warning("%s", line)
    for path, reason in found.skipped.items():
        logger.warning("%s: %s; skipped", path, reason)
    for guess in found.reader.guesses:
        logger.warning("%s", guess)


def _describe_skipped(skipped: Mapping[str, str]) -> str:
    return f"; {format_count(len(skipped), 'unreadable file')} skipped" if skipped else ""


def _check_errors(errors: Sequence[UnfitFileError], has_others: bool, options: ReadOptions) -> None:
    """Refuse files that were opened to plan.

    Args:
        errors: What is wrong with them.
        has_others: Whether another file holds what is wanted; else a column may be misspelled.
        options: Whether the user allowed to leave out files.

    Raises:
        InputError: A file is at fault, or the names of the columns are.
    """
    misspelled = [error for error in errors if not isinstance(error, UnreadableFileError)]
    if misspelled and not has_others:
        raise misspelled[0]
    if errors and not options.skip_unreadable:
        raise errors[0].with_remedy(options) from errors[0]


def _plan_kept(
    readers: Sequence[FileReader],
    keep_columns: Sequence[str],
    files: Sequence[SourceFile],
    flag: str,
) -> FileReader:
    """The first reader, for kept columns whose types hold what all of the files hold.

    Raises:
        UnfitFileError: No file has one of the columns.
    """
    schema, missing = plan_schema(
        keep_columns,
        [reader.kept_schema for reader in readers],
        (file.path for file in files),
        flag=flag,
    )
    first = readers[0]
    if missing:
        raise no_column(first.first_path, first.columns, missing[0], flag=flag)
    return first.keep(schema, keeps_all=ALL_COLUMNS in keep_columns)


def _samples(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """Files from all over the corpus, then all the others, which are needed if those are empty."""
    num_samples = min(len(files), SAMPLE_FILES)
    places = [number * len(files) // num_samples for number in range(num_samples)]
    yield [files[place] for place in places]
    chosen = set(places)
    others = [file for place, file in enumerate(files) if place not in chosen]
    for start in range(0, len(others), BATCH_FILES):
        yield others[start : start + BATCH_FILES]
