"""What the formats made of lines share: where a damaged file ends, and samples of compressed ones.

    bytes of a file -> [text_lines] -> json_lines, csv_files -> rows

Text may be compressed, cut off or wrong at any place. This module knows nothing of JSON or CSV.
"""

from collections.abc import Iterator
from typing import Any

from fastformers.errors import InputError
from fastformers.formats.readers import FileReader

# Bytes of a file that tell the types of its columns, and bytes that are read ahead at least.
SAMPLE_BYTES = 2**20
_MAX_WHOLE_BYTES = 256 * 2**20  # largest compressed file that is held in memory for a sample


def count_records(rows: Iterator[Any], path: str, *, skip: bool) -> int:
    """Number of rows that can be read, plus one for the place where a damaged file ends.

    Args:
        rows: Iterator that reads the rows; only their number matters.
        path: File that they come from, for the message.
        skip: Whether to count what can be read of a damaged file, instead of refusing it.

    Raises:
        InputError: The file is damaged and `skip` is False.
    """
    num_rows = 0
    try:
        for _ in rows:
            num_rows += 1
    except OSError as error:
        unreadable_reason(path, error, skip=skip)
        num_rows += 1
    return num_rows


def unreadable_reason(path: str, error: OSError, *, skip: bool) -> str:
    """Reason for the row from which on a file cannot be read, for example because it was cut off.

    Raises:
        InputError: `skip` is False: the user did not ask to read damaged files in part.
    """
    if skip:
        return f"the file cannot be read from here on: {error}"
    raise InputError(
        f"{path}: cannot be read to its end ({error}); repair it, or pass "
        "--skip-unreadable-files to score what can be read"
    ) from error


def sample_whole(reader: FileReader, path: str, size_bytes: int) -> tuple[list[str], ...]:
    """Texts of a compressed file, which can only be sampled as a whole.

    Raises:
        InputError: It is too large to be held in memory, or cannot be read.
    """
    if size_bytes > _MAX_WHOLE_BYTES:
        raise InputError(
            f"{path}: {size_bytes / 2**30:.1f} GiB of compressed text can only be read whole; "
            "split it, or store it as Parquet, to estimate its cost"
        )
    return reader.read(path, start=0, stop=None, max_rows=None, chunk_bytes=size_bytes).texts
