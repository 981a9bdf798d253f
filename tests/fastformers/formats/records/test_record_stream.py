"""Chunks of a file: bounded, and each byte decompressed once."""

import gzip
import io
import itertools
import resource
import subprocess
import sys

import pytest

from fastformers.errors import InputError
from fastformers.files import file_bytes
from fastformers.formats.readers import ReadOptions
from fastformers.formats.records import record_stream
from fastformers.formats.records.record_stream import (
    Lines,
    OpenStreams,
    RecordStream,
    until_damage,
)
from tests.fastformers.formats.files import open_file, read_all

NUM_ROWS = 20_000
ROW = {
    "csv": b"%06d the same text in all rows\n",
    "jsonl": b'{"text": "%06d the same text in all rows"}\n',
    "json": b'{"text": "%06d the same text in all rows"},\n',
}


def content_of(suffix, num_rows=NUM_ROWS):
    rows = b"".join(ROW[suffix] % number for number in range(num_rows))
    return {"csv": b"text\n" + rows, "jsonl": rows, "json": b"[" + rows.rstrip(b",\n") + b"]"}[
        suffix
    ]


@pytest.fixture
def decompressed(monkeypatch):
    """Sizes of what was decompressed."""
    sizes = []
    decompress = file_bytes.TextFile._decompress

    def counted(self, ahead_bytes):
        return io.BufferedReader(_CountedRaw(decompress(self, ahead_bytes), sizes))

    monkeypatch.setattr(file_bytes.TextFile, "_decompress", counted)
    return sizes


class _CountedRaw(io.RawIOBase):
    def __init__(self, raw, sizes):
        self._raw, self._sizes = raw, sizes

    def readable(self):
        return True

    def readinto(self, buffer):
        content = self._raw.read(len(buffer))
        buffer[: len(content)] = content
        self._sizes.append(len(content))
        return len(content)


@pytest.mark.parametrize("suffix", ROW)
def test_a_compressed_file_is_decompressed_once_however_many_chunks_it_has(
    tmp_path, decompressed, suffix
):
    content = content_of(suffix)
    path = tmp_path / f"a.{suffix}.gz"
    path.write_bytes(gzip.compress(content, compresslevel=1))
    reader = open_file(path, ReadOptions())
    decompressed.clear()
    rows = read_all(reader, path, part_bytes=2**24, chunk_bytes=len(content) // 50)
    assert rows == [f"{number:06d} the same text in all rows" for number in range(NUM_ROWS)]
    assert sum(decompressed) < 4 * len(content)  # 25 times, if each chunk began at the start


@pytest.mark.parametrize("suffix", ROW)
def test_as_much_is_read_of_a_damaged_file_by_another_process(tmp_path, monkeypatch, suffix):
    """Which begins to decompress it anew for each chunk."""
    content = gzip.compress(content_of(suffix, 4 * NUM_ROWS), compresslevel=1)
    path = tmp_path / f"a.{suffix}.gz"
    path.write_bytes(content[: len(content) * 2 // 3])  # whole in its first MiB
    reader = open_file(path, ReadOptions(skip_unreadable=True))
    cuts = {"part_bytes": 2**24, "chunk_bytes": 50_000}
    expected = read_all(reader, path, **cuts)
    assert len(expected) > 10_000
    assert "cannot be read from here on" in expected[-1]
    monkeypatch.setattr(record_stream, "_MAX_OPEN", 0)
    assert read_all(reader, path, **cuts) == expected


def test_a_chunk_is_bounded_by_bytes_and_by_rows():
    stream = RecordStream(zip(itertools.count(), itertools.repeat(1000), range(10)))
    assert stream.take(max_records=None, chunk_bytes=2500) == [0, 1, 2]
    assert stream.rest == 3
    assert stream.take(max_records=2, chunk_bytes=10**6) == [3, 4]
    assert stream.rest is None  # whoever wants no more does not look
    assert stream.take(max_records=None, chunk_bytes=10**6) == [5, 6, 7, 8, 9]
    tiny = RecordStream(zip(itertools.count(), itertools.repeat(1), range(10**6)))
    assert len(tiny.take(max_records=None, chunk_bytes=64_000)) == 1000


def test_the_four_streams_that_were_kept_last_stay_open_for_their_reader():
    streams = OpenStreams()
    for number in range(6):
        streams.keep(number, "reader", RecordStream(iter([])))
    found = [streams.take(number, "reader") is not None for number in range(6)]
    assert found == [False, False, True, True, True, True]
    streams.keep(0, "reader", RecordStream(iter([])))
    assert streams.take(0, "another reader") is None


def test_damage_is_a_row_behind_those_before_it_or_ends_the_read():
    def records():
        yield 0, 7, "one"
        yield 10, 5, "two"
        raise OSError("cut off")

    found = list(until_damage(records(), "a.csv", ReadOptions(skip_unreadable=True)))
    assert found[:2] == [(0, 7, "one"), (10, 5, "two")]
    assert found[2:] == [(15, 0, "the file cannot be read from here on: cut off")]
    with pytest.raises(InputError, match=r"a\.csv: cannot be read to its end \(cut off\); repair"):
        list(until_damage(records(), "a.csv", ReadOptions()))


@pytest.mark.parametrize("size", [1, 5, 6, 7, 100])
def test_a_line_is_cut_at_its_bound_and_the_next_one_begins_behind_it(size):
    content = b"123456\n\n12\n1234567"
    lines = Lines(io.BufferedReader(io.BytesIO(content)), 0, max_bytes=size)
    found = [(line, lines.position, lines.is_cut(line)) for line in lines]
    assert [end for _, end, _ in found] == [7, 8, 11, 18]
    assert [is_cut for _, _, is_cut in found] == [size < 6, False, size < 2, size < 7]
    assert all(len(line) <= size + 1 for line, _, _ in found)


def test_what_is_too_long_is_passed_over_in_few_steps():
    sizes = []

    class Counted(io.BufferedReader):
        def readline(self, size=-1):
            sizes.append(size)
            return super().readline(size)

    file = Counted(io.BytesIO(b"x" * 2**20 + b"\nend"))
    assert list(Lines(file, 0, max_bytes=5)) == [b"x" * 6, b"end"]
    assert len(sizes) < 25
    assert max(sizes) <= 2**16


BOMBS = {
    "a.csv.gz": (b'text\none\n"', b"a" * 2**20, b'"\ntwo\n'),
    "a.jsonl.gz": (b'{"text": "one"}\n{"text": "', b"a" * 2**20, b'"}\n{"text": "two"}\n'),
    "a.json.gz": (b'[{"text": "one"},{"text": "', b"a" * 2**20, b'"},{"text": "two"}]'),
}
# Rows of a file, those that are too long, and how much memory reading it took at most, in KiB.
_READ = """
import pathlib, resource, sys
from fastformers.formats.readers import ReadOptions
from tests.fastformers.formats.files import open_file, read_chunks
path = pathlib.Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
num_rows = num_long = 0
for rows in read_chunks(
    open_file(path, ReadOptions()), path, part_bytes=2**24, chunk_bytes=2**24
):
    num_rows += rows.num_rows
    num_long += sum("--max-row-bytes" in reason for reason in rows.errors.values())
print(num_rows, num_long, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def read_apart(path):
    """What reading a file in a process of its own takes."""
    found = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], check=True, capture_output=True, text=True
    )
    return map(int, found.stdout.split())


@pytest.mark.parametrize("name", BOMBS)
def test_a_row_of_200_mib_is_one_bad_row_and_takes_no_memory(tmp_path, name):
    first, middle, last = BOMBS[name]
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(first)
        for _ in range(200):
            file.write(middle)
        file.write(last)
    num_rows, num_long, peak_kib = read_apart(tmp_path / name)
    assert (num_rows, num_long) == (3, 1)
    assert peak_kib < 100 * 2**10


@pytest.mark.slow
def test_two_gib_of_text_take_twice_the_time_of_one_and_little_memory(tmp_path):
    block = b"".join(b'{"text": "%d %s"}\n' % (n, b"some words " * 300) for n in range(300))
    seconds = []
    for num_blocks in (1000, 2000):
        path = tmp_path / f"{num_blocks}.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(num_blocks):
                file.write(block)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        num_rows, num_long, peak_kib = read_apart(path)
        seconds.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
        assert (num_rows, num_long) == (300 * num_blocks, 0)
        assert peak_kib < 400 * 2**10
    assert seconds[1] < 2.6 * seconds[0]


def test_what_is_no_json_is_shown_by_its_start(tmp_path):
    path = tmp_path / "a.jsonl"
    long = "\x1b[2J" + "é" * 100  # 4 bytes and 200
    path.write_text('{"text": "a"}\n' + f"{long}\n<html>\n", encoding="utf-8")
    _, first, second = read_all(
        open_file(path, ReadOptions()), path, part_bytes=2**24, chunk_bytes=2**24
    )
    assert first.endswith(f", in '\\x1b[2J{'é' * 18}'")
    assert second == "not JSON: Expecting value: line 1 column 1 (char 0), in '<html>'"
