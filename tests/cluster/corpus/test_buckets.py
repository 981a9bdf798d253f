"""Corpora in a bucket: requests that planning and reading take, and requests that fail."""

import pytest

from fastformers.cluster.corpus.reading import read_all
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.storage.directory import open_directory
from fastformers.formats.file_set import SAMPLE_FILES
from fastformers.formats.readers import ReadOptions
from tests.cluster.corpus.test_planning import encode, texts_of

NUM_FILES = 60


@pytest.fixture(params=[".parquet", ".jsonl", ".csv"])
def suffix(request):
    return request.param


@pytest.fixture
def bucket(s3_server, monkeypatch, suffix):
    """A bucket of sixty files of two rows, in folders."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for number in range(NUM_FILES):
        rows = [{"text": f"{number} {row}", "id": number} for row in range(2)]
        with open_directory(f"{s3_server.uri}/corpus/{number // 10}").write(
            f"{number:02d}{suffix}"
        ) as file:
            file.write(encode(suffix, rows))
    s3_server.forget()
    return s3_server


def open_bucket(server, *, skip=False):
    return open_corpus(
        f"{server.uri}/corpus",
        text_columns=("text",),
        keep_columns=("id",),
        options=ReadOptions(skip_unreadable=skip),
    )


EVERY_TEXT = [f"{number} {row}" for number in range(NUM_FILES) for row in (0, 1)]


def test_a_small_file_takes_two_requests_and_a_listing_none_for_a_file(bucket):
    corpus = open_bucket(bucket)
    slices = corpus.plan_slices()
    assert bucket.count("GET", "list-type=2") <= 2
    assert bucket.count() <= 2 * SAMPLE_FILES + 3
    bucket.forget()
    assert texts_of(corpus, slices) == EVERY_TEXT
    assert bucket.count() == 2 * NUM_FILES


@pytest.mark.parametrize("seed", range(3))
def test_requests_that_fail_change_nothing_of_what_is_read(bucket, seed):
    """Not even where unreadable files may be left out."""
    bucket.fail(0.1, seed=seed)
    corpus = open_bucket(bucket, skip=True)
    assert corpus.skipped == {}
    reads = [
        rows
        for slice_ in corpus.plan_slices()
        for rows in read_all(corpus.reader, slice_.pieces, chunk_bytes=2**20)
    ]
    assert [text for rows in reads for text in rows.texts[0]] == EVERY_TEXT
    assert all(rows.errors == {} for rows in reads)
