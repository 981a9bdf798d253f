"""Read pieces of JSON lines files, cut by bytes.

    slices -> [json_lines] -> rows, good and bad, in corpus order -> shards

The kept columns of a file take the types of the values in its first MiB. This module knows nothing
of tokens or shards.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.fs

from cluster.corpus.readers import FilePart, Rows, check_columns, check_texts, not_text
from cluster.corpus.text_lines import (
    SAMPLE_BYTES,
    UNFIT,
    convert_values,
    count_records,
    is_compressed,
    open_lines,
    sample_whole,
    unreadable_reason,
)
from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class JsonLinesReader:
    """Byte ranges of JSON lines files; a compressed file is one range."""

    filesystem: pyarrow.fs.FileSystem
    text_columns: tuple[str, ...]
    kept_schema: pa.Schema
    skip_unreadable: bool
    expansion: ClassVar[int] = 1
    sampled_in_rows: ClassVar[bool] = False

    @classmethod
    def open(
        cls,
        filesystem: pyarrow.fs.FileSystem,
        path: str,
        *,
        text_columns: tuple[str, ...],
        keep_columns: tuple[str, ...],
        skip_unreadable: bool,
    ) -> Self | None:
        with open_lines(filesystem, path, 0) as file:
            lines = [line for line in file.readlines(SAMPLE_BYTES) if line.strip()]
        records = [record for line in lines if isinstance(record := _parse_json(line), dict)]
        if not records:
            if lines:
                raise InputError(f"{path}: no line of its first MiB is a JSON object")
            return None
        names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
        check_columns(path, names, text_columns, keep_columns)
        for name in text_columns:
            kinds = {type(r[name]).__name__ for r in records if r.get(name) is not None}
            if kinds and "str" not in kinds:
                raise not_text(path, name, " or ".join(sorted(kinds)))
        fields = [
            (name, _infer_type(path, name, [r.get(name) for r in records])) for name in keep_columns
        ]
        return cls(
            filesystem=filesystem,
            text_columns=text_columns,
            kept_schema=pa.schema(fields),
            skip_unreadable=skip_unreadable,
        )

    def plan_file(self, path: str, part_bytes: int, limit: int | None) -> Iterator[FilePart]:
        [info] = self.filesystem.get_file_info([path])
        if limit is not None:
            with open_lines(self.filesystem, path, 0) as file:
                lines = itertools.islice(filter(bytes.strip, file), limit)
                num_rows = count_records(lines, path, skip=self.skip_unreadable)
            yield FilePart(
                start=0, stop=None, num_bytes=info.size, num_rows=num_rows, max_rows=limit
            )
        elif is_compressed(path):
            yield FilePart(start=0, stop=None, num_bytes=info.size)
        else:
            for start in range(0, info.size, part_bytes):
                stop = min(start + part_bytes, info.size)
                yield FilePart(start=start, stop=stop, num_bytes=stop - start)

    def read(
        self, path: str, *, start: int, stop: int | None, max_rows: int | None, chunk_bytes: int
    ) -> Rows:
        records: list[dict[str, Any]] = []
        errors: dict[int, str] = {}
        lines = itertools.islice(self._lines(path, start, stop), max_rows)
        try:
            for record in map(_parse_json, lines):
                if isinstance(record, str):
                    errors[len(records)] = record
                records.append(record if isinstance(record, dict) else {})
        except OSError as error:
            errors[len(records)] = unreadable_reason(path, error, skip=self.skip_unreadable)
            records.append({})
        kept = [
            convert_values([r.get(f.name) for r in records], f, errors) for f in self.kept_schema
        ]
        texts = [[r.get(name) for r in records] for name in self.text_columns]
        return Rows(
            texts=check_texts(texts, self.text_columns, errors),
            errors=errors,
            kept=pa.table(kept, schema=self.kept_schema),
        )

    def is_read_whole(self, path: str) -> bool:
        return is_compressed(path)

    def measure_file(self, path: str, size_bytes: int) -> int:
        return size_bytes

    def sample_span(self, path: str, start: int, stop: int) -> tuple[list[str], ...]:
        if is_compressed(path):
            [info] = self.filesystem.get_file_info([path])
            return sample_whole(self, path, info.size)
        chunk_bytes = stop - start
        return self.read(path, start=start, stop=stop, max_rows=None, chunk_bytes=chunk_bytes).texts

    def _lines(self, path: str, start: int, stop: int | None) -> Iterator[bytes]:
        """Lines that begin inside the byte range; the last may end beyond it."""
        with open_lines(self.filesystem, path, max(0, start - 1)) as file:
            position = max(0, start - 1)
            if start > 0:  # the line that holds the byte before belongs to the range before
                position += len(file.readline())
            for line in file:
                if stop is not None and position >= stop:
                    return
                position += len(line)
                if line.strip():
                    yield line


def _parse_json(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or the reason why there is none."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else f"not a JSON object but {type(value).__name__}"


def _infer_type(path: str, name: str, values: Sequence[Any]) -> pa.DataType:
    """Type of a kept column, from the values that Arrow can hold."""
    valid = []
    for value in values:
        with contextlib.suppress(*UNFIT):
            pa.array([value])
            valid.append(value)
    try:
        kind = pa.array(valid).type
    except UNFIT as error:
        raise InputError(f"{path}: --keep-columns: mixed types in {name!r}: {error}") from error
    return pa.string() if kind == pa.null() else kind  # nothing but nulls: most likely text
