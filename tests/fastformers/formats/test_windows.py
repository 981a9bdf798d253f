"""Windows tile a corpus, and any first of them are spread over it."""

import gzip
import json

import numpy as np
import pyarrow.fs
import pytest

from fastformers.errors import InputError
from fastformers.formats import windows
from fastformers.formats.file_set import open_files
from fastformers.formats.readers import ReadOptions
from fastformers.formats.windows import _spread, read_windows


@pytest.fixture
def read(monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1000)

    def read(path, *, seed=0):
        files = open_files(
            pyarrow.fs.LocalFileSystem(),
            str(path),
            str(path),
            text_columns=("text",),
            options=ReadOptions(can_skip=False),
        )
        return list(read_windows(files, seed=seed))

    return read


def rows_of(start, stop):
    return [{"text": f"text number {n}"} for n in range(start, stop)]


def texts_of(found):
    return [text for window in found for text in window.texts[0]]


@pytest.mark.parametrize("name", ["parquet", "jsonl", "csv", "csv.gz", "jsonl.gz"])
@pytest.mark.parametrize("seed", [0, 5])
def test_every_row_is_in_one_window(tmp_path, write_rows, read, name, seed):
    for part in range(3):
        rows = rows_of(200 * part, 200 * part + 200)
        write_rows(tmp_path / "c" / f"{part}.{name}", rows, row_group_size=64)
    found = read(tmp_path / "c", seed=seed)
    assert sorted(texts_of(found)) == sorted(row["text"] for row in rows_of(0, 600))
    assert len(found) > 6
    assert {window.path.rpartition("/")[2] for window in found[:5]} == {
        f"{part}.{name}" for part in range(3)
    }


@pytest.mark.parametrize("number", [1, 2, 3, 10, 97, 1000])
def test_any_first_windows_are_spread(number):
    order = list(_spread(number, seed=3))
    assert sorted(order) == list(range(number))
    first = np.sort(order[: max(1, number // 10)])
    if len(first) > 5:
        gaps = np.diff([*first, first[0] + number])
        assert gaps.max() < 3 * number / len(first)


def test_an_array_is_found_to_be_read_in_order_and_read_once(tmp_path, read):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows_of(0, 300), indent=1))
    found = read(path)
    assert texts_of(found) == [row["text"] for row in rows_of(0, 300)]
    assert [window.has_rest for window in found] == [True] * (len(found) - 1) + [False]


def test_the_rest_of_a_compressed_file_waits_for_the_other_files(tmp_path, write_rows, read):
    for part in range(2):
        rows = rows_of(200 * part, 200 * part + 200)
        write_rows(tmp_path / "c" / f"{part}.jsonl.gz", rows)
    names = [window.path[-10:-9] for window in read(tmp_path / "c")]
    assert names[:4] in (["0", "1", "0", "1"], ["1", "0", "1", "0"])


def test_a_file_that_is_cut_off_is_named(tmp_path, write_rows, read):
    whole = gzip.compress(b'{"text": "a cat"}\n' * 5000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: cannot be read"):
        read(tmp_path / "a.jsonl.gz")
