import io

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.errors import InputError
from tests.cluster.corpus.open_file import open_file
from tests.cluster.corpus.round_trip import check_round_trip, rows, sizes


@settings(deadline=None)
@given(rows, st.integers(1, 5), sizes)
def test_parquet_comes_back(read_corpus, rows, row_group_size, size):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink, row_group_size=row_group_size)
    check_round_trip(read_corpus, "a.parquet", sink.getvalue(), rows, size)


def test_a_damaged_row_group_is_named_or_its_rows_are_bad(tmp_path, read_corpus):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {row}" for row in range(6)], "id": list(range(6))})
    pyarrow.parquet.write_table(table, path, row_group_size=2, compression="zstd")
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"a\.parquet: row group 1 cannot be read"):
        read_corpus(open_file(path, keep=("id",)))
    read = read_corpus(open_file(path, keep=("id",), skip=True))
    assert read.texts == ["text 0", "text 1", "", "", "text 4", "text 5"]
    assert list(read.errors) == [2, 3]
    assert all("unreadable row group" in reason for reason in read.errors.values())
    assert read.kept == {"id": [0, 1, None, None, 4, 5]}


def test_kept_columns_of_any_parquet_type(tmp_path, read_slices, odd_columns):
    for number in range(2):
        table = odd_columns.append_column("text", [[f"row {n}" for n in range(len(odd_columns))]])
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=2)
    corpus = open_file(tmp_path, keep=tuple(odd_columns.column_names))
    kept = pa.concat_tables([rows.kept for rows in read_slices(corpus)])
    plain = {"kind": pa.string(), "nothing": pa.string()}  # a dictionary's; nothing is known
    expected = [plain.get(field.name, field.type) for field in odd_columns.schema]
    assert [field.type for field in kept.schema] == expected
    assert kept.to_pylist() == odd_columns.to_pylist() * 2
