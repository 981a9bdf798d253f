"""Row groups are read a few rows at a time, whatever a few bytes decode to."""

import io
import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.errors import InputError
from fastformers.formats import parquet, row_groups
from fastformers.formats.readers import ReadOptions
from fastformers.formats.records import record_stream
from tests.fastformers.formats.files import open_file, read_all, read_chunks


def test_a_few_bytes_that_repeat_a_long_text_are_read_in_chunks(tmp_path):
    """The writer stores the text once, so nothing in the footer says how long the rows are."""
    path = tmp_path / "a.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), ["ab" * 2**19])
    pyarrow.parquet.write_table(
        pa.table({"text": texts}), path, compression="zstd", store_schema=False
    )
    assert path.stat().st_size < 1000
    chunks = read_chunks(open_file(path, ReadOptions()), path, part_bytes=2**24, chunk_bytes=2**24)
    rows = next(chunks)
    assert 0 < rows.num_rows <= 64
    assert rows.rest_start == rows.num_rows


@pytest.mark.parametrize("in_one_process", [True, False])
@pytest.mark.parametrize("group_size", [1, 7, 100])
def test_rows_are_the_same_in_chunks_and_parts_of_any_size(
    tmp_path, monkeypatch, group_size, in_one_process
):
    monkeypatch.setattr(record_stream, "_ROW_BYTES", 1)
    monkeypatch.setattr(record_stream, "_MAX_OPEN", 4 * in_one_process)
    monkeypatch.setattr(row_groups, "_BATCH_ROWS", 3)
    path = tmp_path / "a.parquet"
    texts = [f"text {row}" for row in range(40)]
    pyarrow.parquet.write_table(pa.table({"text": texts}), path, row_group_size=group_size)
    reader = open_file(path, ReadOptions())
    for part_bytes in (60, 2**24):
        for chunk_bytes in (1, 40, 2**24):
            cuts = {"part_bytes": part_bytes, "chunk_bytes": chunk_bytes}
            assert read_all(reader, path, **cuts) == texts
            assert read_all(reader, path, **cuts, limit=29) == texts[:29]


@pytest.mark.parametrize("group_size", [7, 40])
def test_a_span_has_its_rows_however_many_batches_they_come_in(tmp_path, monkeypatch, group_size):
    monkeypatch.setattr(row_groups, "_BATCH_ROWS", 3)
    path = tmp_path / "a.parquet"
    texts = [f"text {row}" for row in range(40)]
    pyarrow.parquet.write_table(pa.table({"text": texts}), path, row_group_size=group_size)
    reader = open_file(path, ReadOptions())
    edges = (0, 1, 2, 3, 6, 7, 8, 14, 20, 21, 35, 39, 40)  # of batches, of groups and beside them
    for start, stop in itertools.combinations(edges, 2):
        sampled = reader.sample_span(str(path), start, stop)
        assert (sampled.texts, sampled.size) == ((texts[start:stop],), stop - start)


@pytest.mark.parametrize("chunk_bytes", [1, 2**24])
def test_a_group_that_would_become_absurdly_large_is_damaged(tmp_path, monkeypatch, chunk_bytes):
    monkeypatch.setattr(row_groups, "_MAX_BUFFERED_BYTES", 2**18)
    monkeypatch.setattr(parquet, "_DAMAGED_ROWS", 2)  # of three
    path = tmp_path / "a.parquet"
    with pyarrow.parquet.ParquetWriter(
        path, pa.schema([("text", pa.string())]), compression="zstd", use_dictionary=False
    ) as writer:
        for texts in (["first"], ["b" * 2**20] * 3, ["last"]):
            writer.write_table(pa.table({"text": texts}))
    cuts = {"part_bytes": 2**24, "chunk_bytes": chunk_bytes}
    with pytest.raises(InputError, match=r"row group 1 cannot be read \(.* bytes would become"):
        read_all(open_file(path, ReadOptions()), path, **cuts)
    rows = read_all(open_file(path, ReadOptions(skip_unreadable=True)), path, **cuts)
    assert [rows[0], *rows[4:]] == ["first", "last"]
    assert all(row.startswith("unreadable row group: ") for row in rows[1:4])


def _valid_bytes(**how):
    sink = io.BytesIO()
    texts = [f"text {row % 5} " + "x" * row for row in range(30)]
    pyarrow.parquet.write_table(pa.table({"text": texts}), sink, row_group_size=8, **how)
    return sink.getvalue()


VALID = [
    _valid_bytes(),
    _valid_bytes(use_dictionary=False, compression="zstd"),
    _valid_bytes(compression="gzip", data_page_version="2.0"),
]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0, 1),
    st.booleans(),
)
def test_damaged_bytes_give_rows_or_one_line(content, changes, length, skip):
    damaged = bytearray(content)
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    if length < 0.1:
        del damaged[int(length * 10 * len(damaged)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        path.write_bytes(damaged)
        try:
            reader = open_file(path, ReadOptions(skip_unreadable=skip))
            rows = read_all(reader, path, part_bytes=2**24, chunk_bytes=2**24)
            # without checksums, damage may give other values, but not other rows
            assert len(read_all(reader, path, part_bytes=150, chunk_bytes=200)) == len(rows)
        except InputError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)


@pytest.mark.parametrize("damaged", [3, -1])
def test_a_footer_that_contradicts_itself_is_refused(tmp_path, damaged):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a"] * 12}), path, row_group_size=7)
    content = path.read_bytes()
    rows_of_first_group = b"\x16\x0e&\x08"  # 7, before the place of its first page
    assert content.count(rows_of_first_group) == 1
    zigzag = 2 * damaged if damaged >= 0 else -2 * damaged - 1
    path.write_bytes(content.replace(rows_of_first_group, bytes([0x16, zigzag, 0x26, 0x08])))
    with pytest.raises(InputError, match=rf"its footer says 12 rows, but {5 + damaged} in its row"):
        open_file(path, ReadOptions())
