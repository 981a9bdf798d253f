"""Which row groups are read together, by the bytes of the columns that are read."""

import io

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.formats import row_groups
from fastformers.formats.row_groups import count_rows, find_groups, group_starts, plan_runs


@pytest.fixture(scope="module")
def metadata():
    """Five groups of two rows and one of a single one; `a` has few bytes, `ab` and `o.a` many."""
    rows = [{"a": row, "ab": "x" * 5000, "o": {"a": "y" * 9000, "b": row}} for row in range(11)]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(
        pa.Table.from_pylist(rows), sink, row_group_size=2, compression="none", use_dictionary=False
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
