"""Open one file, and read it in parts and chunks of any size."""

import pyarrow as pa
import pyarrow.fs

from fastformers.formats.file_set import open_files


def open_file(path, options):
    """Reader of a file whose texts are in the column "text"."""
    return open_files(
        pyarrow.fs.LocalFileSystem(), str(path), str(path), text_columns=("text",), options=options
    ).reader


def read_chunks(reader, path, *, part_bytes, chunk_bytes, limit=None):
    """Rows of each chunk; the first `limit` rows as `--limit` cuts them."""
    size_bytes = path.stat().st_size
    if limit is None:
        parts = reader.cut_file(str(path), size_bytes, part_bytes)
    else:
        parts = reader.cut_rows(str(path), size_bytes, part_bytes, limit)
    for part in parts:
        left = None if limit is None else min(part.num_rows, limit)
        rest_start = None
        while left != 0:
            rows = reader.read(
                str(path),
                start=part.start,
                stop=part.stop,
                max_rows=left,
                chunk_bytes=chunk_bytes,
                rest_start=rest_start,
            )
            yield rows
            rest_start = rows.rest_start
            if limit is not None:
                left, limit = left - rows.num_rows, limit - rows.num_rows
            if rest_start is None:
                break


def read_all(reader, path, **cuts):
    """Text, or reason why there is none, of each row."""
    found = []
    for rows in read_chunks(reader, path, **cuts):
        assert set(rows.errors) <= set(range(rows.num_rows))
        found += [rows.errors.get(row, text) for row, text in enumerate(rows.texts[0])]
    return found


def binary_as_text(values):
    """Strings that Arrow did not check."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())
