"""Windows of a corpus, and the rows that are tokenized in them."""

import gzip

import numpy as np
import pytest

from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.cost.sampling import _plan_sample_rows, sample_corpus
from fastformers.errors import InputError
from fastformers.formats import text_lines
from fastformers.formats.readers import ReadOptions


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_windows_tile_every_format(name, tmp_path, rows, bundle, write_rows, take):
    path = write_rows(tmp_path / name, rows, row_group_size=400)
    sample = take(path, bundle, size=1.0, num_shards=70)
    assert len(sample.windows) == sample.num_windows == 70
    assert sum(window.num_rows for window in sample.windows) == len(rows)
    assert sum(window.size for window in sample.windows) == sample.total_size


def test_csv_records_are_found_behind_line_breaks(tmp_path, bundle, write_rows, take):
    rows = [{"id": "x,y", "text": "a cat\nsat, on\n\nthe mat" * (1 + n % 3)} for n in range(600)]
    path = write_rows(tmp_path / "a.csv", rows)
    sample = take(path, bundle, size=1.0, num_shards=40)
    found = sum(window.num_rows for window in sample.windows)
    assert found == pytest.approx(len(rows), abs=40)  # a window may begin with a torn record


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (0.01, "about 300 rows is too small for --sample 0.01: 3 rows, and an estimate needs 100"),
        (50, "50 rows, and an estimate needs 100; give --sample 1 to read all"),
        (0, "--sample 0: give a share up to 1"),
        (-1, "--sample -1: give a share"),
        (1.5, "--sample 1.5: give a share up to 1, or a whole number of rows"),
    ],
)
def test_a_sample_that_says_nothing_is_refused(
    tmp_path, rows, bundle, write_rows, take, size, what
):
    path = write_rows(tmp_path / "a.parquet", rows[:300])
    with pytest.raises(InputError, match=what):
        take(path, bundle, size=size)


def test_every_row_of_a_window_is_compared_and_a_share_is_tokenized(
    tmp_path, rows, bundle, write_rows, take
):
    sample = take(write_rows(tmp_path / "a.parquet", rows), bundle, size=0.1, num_shards=30)
    for window in sample.windows:
        assert window.num_rows == window.size == 100
        assert len(window.lengths_S) == len(window.is_first_S) == 10
        assert 0 < window.num_unique < window.num_rows - window.num_bad  # a tenth repeats
    assert sample.num_rows == 300


def test_windows_are_drawn_from_all_over_the_corpus(tmp_path, bundle, write_rows, take):
    """Rows grow by a word from one of the 32 equal parts of the corpus to the next."""
    rows = [{"text": "cat " * (1 + row // 200)} for row in range(6400)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=800)
    sample = take(path, bundle, size=100, num_shards=64)
    assert (sample.num_windows, sample.total_size) == (64, 6400)
    assert [window.num_rows for window in sample.windows] == [100] * 32
    lengths = [window.lengths_S.tolist() for window in sample.windows]
    assert lengths == [[part + 3] * 3 for part in range(32)]  # 100 rows of 3,200 read


def test_more_windows_are_read_where_32_hold_too_few_rows(tmp_path, rows, bundle, write_rows, take):
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=800)
    half = take(path, bundle, size=0.5)
    assert (len(half.windows), half.num_windows, half.num_rows) == (50, 100, 1500)
    assert len(take(path, bundle, size=0.501).windows) == 51


@pytest.mark.parametrize(
    ("num_rows", "sampled"), [(3_000, 3_000), (6_000, 5_000), (600_000, 6_000)]
)
def test_a_hundredth_is_tokenized_but_not_too_few(num_rows, sampled):
    assert _plan_sample_rows(None, num_rows, "a.csv") == sampled


def test_a_sample_has_bounds():
    assert _plan_sample_rows(None, 10_000_000, "a.csv") == 50_000
    assert _plan_sample_rows(1, 300, "a.csv") == 300  # all of them, not one row
    assert _plan_sample_rows(1000, 300, "a.csv") == 300
    assert _plan_sample_rows(100, 300, "a.csv") == 100
    assert _plan_sample_rows(2, 2, "a.csv") == 2


def test_the_first_of_equal_texts_is_told_from_its_repeats_and_a_bad_row_has_no_length(
    tmp_path, bundle, write_rows, take
):
    texts = ["a cat", "a dog ran", "", "a cat", "a cat"]
    path = write_rows(tmp_path / "a.parquet", [{"text": text} for text in texts])
    (window,) = take(path, bundle, size=1.0, num_shards=1).windows
    assert (window.num_rows, window.num_bad, window.num_unique) == (5, 1, 2)
    assert window.lengths_S.tolist() == [4, 5, 0, 4, 4]
    assert window.is_first_S.tolist() == [True, True, False, False, False]


def test_a_pair_that_lacks_one_text_is_bad(tmp_path, pair_bundle, write_rows):
    pairs = [("a cat", "a dog"), ("a cat", ""), ("", "a dog"), ("", ""), ("a cat", "a cat")]
    rows = [{"text": text, "body": body} for text, body in pairs]
    path = write_rows(tmp_path / "a.parquet", rows)
    (window,) = sample_corpus(
        open_corpus(str(path), text_columns=("text", "body")),
        pair_bundle.load_tokenizer(),
        max_length=pair_bundle.max_length,
        num_shards=1,
        size=1.0,
        seed=0,
    ).windows
    assert (window.num_rows, window.num_bad, window.num_unique) == (5, 3, 2)
    assert window.lengths_S.tolist() == [7, 0, 0, 0, 7]


def test_the_seed_decides_the_sample(tmp_path, rows, bundle, write_rows, take):
    path = write_rows(tmp_path / "a.parquet", rows)

    def lengths(seed):
        windows = take(path, bundle, size=0.1, seed=seed).windows
        return np.concatenate([window.lengths_S for window in windows]).tolist()

    assert lengths(1) == lengths(1)
    assert lengths(1) != lengths(2)


@pytest.fixture
def many_files(tmp_path, rows, write_rows):
    """Forty files, one of which, not opened to plan, has no text."""

    def write(suffix):
        for number in range(40):
            part = rows[50 * number : 50 * number + 50]
            part = [{"body": "x"}] * 50 if number == 3 else part
            write_rows(tmp_path / f"{number:02d}{suffix}", part)
        return tmp_path

    return write


def take_many(path, bundle, *, skip):
    corpus = open_corpus(
        str(path),
        text_columns=("text",),
        keep_columns=(),
        options=ReadOptions(skip_unreadable=skip),
    )
    return sample_corpus(
        corpus,
        bundle.load_tokenizer(),
        max_length=bundle.max_length,
        num_shards=80,
        size=1.0,
        seed=0,
    )


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_file_that_does_not_fit_is_named_or_counts_as_empty(many_files, bundle, suffix):
    path = many_files(suffix)
    with pytest.raises(InputError, match=rf"03\{suffix}: no column 'text' .*--skip-unreadable"):
        take_many(path, bundle, skip=False)
    sample = take_many(path, bundle, skip=True)
    assert sum(window.num_rows for window in sample.windows) == 39 * 50
    assert sum(window.size for window in sample.windows) == sample.total_size


def test_a_file_that_is_no_parquet_has_no_rows_to_sample(many_files, bundle):
    path = many_files(".parquet")
    (path / "03.parquet").write_bytes(b"not Parquet")
    with pytest.raises(InputError, match=r"03\.parquet: cannot be read .*--skip-unreadable-files"):
        take_many(path, bundle, skip=False)
    assert take_many(path, bundle, skip=True).total_size == 39 * 50


def test_files_that_are_sampled_at_their_beginnings_are_said_to_be(
    tmp_path, bundle, take, caplog, monkeypatch
):
    monkeypatch.setattr(text_lines, "MAX_SAMPLE_BYTES", 2**14)
    lines = b"".join(b'{"text": "a cat %d sat"}\n' % row for row in range(6000))
    (tmp_path / "long.jsonl.gz").write_bytes(gzip.compress(lines))
    take(tmp_path / "long.jsonl.gz", bundle, size=200)
    assert len(caplog.messages) == 1
    assert "long.jsonl.gz: read in order, so only about the first 16 MiB" in caplog.text
    caplog.clear()
    (tmp_path / "short.jsonl.gz").write_bytes(gzip.compress(lines[:5000]))
    assert take(tmp_path / "short.jsonl.gz", bundle, size=200).num_windows == 1
    (tmp_path / "open.jsonl").write_bytes(lines)
    take(tmp_path / "open.jsonl", bundle, size=200)
    rows = b"text\n" + b"".join(b"a cat %d sat\n" % row for row in range(6000))
    assert caplog.messages == []
    (tmp_path / "long.csv.gz").write_bytes(gzip.compress(rows))
    take(tmp_path / "long.csv.gz", bundle, size=200)
    assert "long.csv.gz: read in order" in caplog.text
