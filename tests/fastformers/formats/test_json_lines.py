"""Arrays, which are read in order, and lines, which are cut at any row."""

import json

import pytest

from fastformers.formats.readers import ReadOptions
from fastformers.formats.records import record_stream
from tests.fastformers.formats.files import open_file, read_all

TEXTS = ["one", "zwei, [drei]", 'vier "fünf"', "six"]
ROWS = [{"text": text} for text in TEXTS]


@pytest.mark.parametrize("in_one_process", [True, False])
@pytest.mark.parametrize("chunk_bytes", [1, 100, 2**24])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_in_chunks(tmp_path, monkeypatch, in_one_process, chunk_bytes, indent):
    monkeypatch.setattr(record_stream, "_MAX_OPEN", 4 * in_one_process)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS, indent=indent), encoding="utf-8")
    reader = open_file(path, ReadOptions())
    assert read_all(reader, path, part_bytes=2**24, chunk_bytes=chunk_bytes) == TEXTS


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("part_bytes", [1, 30, 2**24])
def test_parts_of_the_first_rows_lie_one_behind_the_other(tmp_path, part_bytes, limit):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row) + "\n" for row in ROWS]
    path.write_text(lines[0] + "\n" + "".join(lines[1:]))
    reader = open_file(path, ReadOptions())
    parts = list(reader.cut_rows(str(path), path.stat().st_size, part_bytes, limit))
    assert sum(part.num_rows for part in parts) == min(limit, 4)
    begin = 0
    for part in parts:
        assert part.start == begin
        begin += part.num_bytes
        assert part.stop in (begin, None)
    assert begin == len("".join(lines[:limit])) + (limit > 1)  # with the blank line
    assert all(part.num_bytes >= part_bytes for part in parts[:-1])
    assert len(parts) == 1 or part_bytes < 100
