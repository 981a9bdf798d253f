"""Which row groups are read together, by the bytes of the columns that are read."""

import io
import random

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
import pytest

from fastformers.formats import row_groups
from fastformers.formats.row_groups import (
    count_rows,
    find_groups,
    group_starts,
    iterate_rows,
    open_parquet,
    plan_runs,
)


@pytest.fixture(scope="module")
def metadata():
    """Five groups of two rows and one of a single one; `a` has few bytes, `ab` and `o.a` many."""
    rows = [{"a": row, "ab": "x" * 5000, "o": {"a": "y" * 9000, "b": row}} for row in range(11)]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        pa.Table.from_pylist(rows), sink, row_group_size=2, compression="zstd", use_dictionary=False
    )
    return pyarrow.parquet.ParquetFile(io.BytesIO(sink.getvalue())).metadata


@pytest.mark.parametrize(
    ("columns", "run_bytes", "runs"),
    [
        (["a"], 2**10, [(1, 6)]),  # about 50 bytes a group
        (["ab"], 2**10, [(n, n + 1) for n in range(1, 6)]),  # 10,000
        (["ab"], 15_000, [(1, 3), (3, 5), (5, 6)]),
        (["a", "o.b"], 2**10, [(1, 6)]),
        (["o"], 15_000, [(n, n + 1) for n in range(1, 5)] + [(5, 6)]),  # 18,000
        (["o"], 30_000, [(1, 3), (3, 5), (5, 6)]),
    ],
)
def test_small_groups_are_read_together(metadata, monkeypatch, columns, run_bytes, runs):
    monkeypatch.setattr(row_groups, "_RUN_BYTES", run_bytes)
    found = list(plan_runs(metadata, range(1, 6), columns))
    assert [(run.start, run.stop) for run in found] == runs
    assert sum(count_rows(metadata, run) for run in found) == 9


def test_a_span_of_rows_has_the_groups_that_hold_them(metadata):
    for start in range(11):
        for stop in range(start + 1, 12):
            groups, first = find_groups(metadata, start, stop)
            assert groups == list(range(start // 2, (stop - 1) // 2 + 1))
            assert first == 2 * (start // 2)


def test_groups_begin_one_behind_the_other(metadata):
    starts = group_starts(metadata)
    assert (len(starts), starts[0]) == (6, 4)
    assert starts == sorted(set(starts))


def test_of_a_large_group_a_mebibyte_is_fetched_at_a_time(tmp_path, monkeypatch):
    """And few rows are decoded at a time, so that no group has to fit into memory."""
    monkeypatch.setattr(row_groups, "_MAX_BUFFERED_BYTES", 2**20)
    path = tmp_path / "a.parquet"
    rng = random.Random(0)
    table = pa.table({"text": [rng.randbytes(2**12).hex() for _ in range(1000)]})  # 8 MiB
    pyarrow.parquet.write_table(  # the second group has one row
        table,
        path,
        row_group_size=999,
        compression="none",
        use_dictionary=False,
        write_batch_size=16,
    )
    sizes = []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            sizes.append(size)
            return super().read(size)

    monkeypatch.setattr(
        row_groups.FileBytes,
        "open",
        lambda file: pa.PythonFile(Counted(path.read_bytes()), mode="r"),
    )
    with open_parquet(pyarrow.fs.LocalFileSystem(), str(path)) as file:
        first = next(iterate_rows(file, [0], ["text"]))
    assert first.to_pydict() == table.slice(0, 4).to_pydict()
    assert max(sizes) < 2 * 2**20
