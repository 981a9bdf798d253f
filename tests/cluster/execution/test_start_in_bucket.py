"""How many requests follow each other before a run in a bucket scores; each takes 100 ms."""

import io
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.cluster.shards.claim_file import CLAIM_FILE
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import StorageOptions

NUM_FILES, NUM_ROWS = 4, 40


def count_rounds(requests):
    """Most requests of which each began when the one before it had been answered."""
    rounds, ended = 0, 0.0
    for request in sorted(requests, key=lambda request: request.ended):
        if request.began >= ended:
            rounds, ended = rounds + 1, request.ended
    return rounds


@pytest.fixture
def take(s3_server):
    """Requests since the last call, but those of a file that is written beside the run."""

    def take_requests():
        taken = [r for r in s3_server.requests if "status.json" not in r.path]
        s3_server.forget()
        return taken

    return take_requests


@pytest.fixture
def open_job(s3_server, bundle):
    """Opens a job over four files of one slice and six shards, from bucket to bucket."""
    options = StorageOptions(s3_server.storage_options)
    corpus = open_directory(f"{s3_server.uri}/corpus", options)
    for number in range(NUM_FILES):
        content = io.BytesIO()
        texts = [f"a cat ran fast {number} {row}" for row in range(NUM_ROWS)]
        pyarrow.parquet.write_table(pa.table({"text": texts}), content)
        with corpus.write(f"{number}.parquet") as file:
            file.write(content.getvalue())
    s3_server.delay_s = 0.1
    s3_server.forget()
    settings = CorpusSettings(keep_columns=(), shard_seconds=0.005)
    return lambda: open_score_job(
        str(corpus),
        bundle.path,
        f"{s3_server.uri}/out",
        settings,
        max_batch_tokens=256,
        storage=options,
    )


def test_few_requests_follow_each_other_before_a_run_scores(open_job, take, told):
    job = open_job()
    opening = take()
    claiming = []

    @contextmanager
    def connect(address):
        claiming.extend(take())
        with connect_here(address) as open_nodes:
            yield open_nodes

    run_job(job, ActorSettings(), connect)
    later = take()
    corpus = next(n for n, request in enumerate(later) if "/corpus/" in request.path)
    scored = next(n for n, request in enumerate(later) if "/predictions/part" in request.path)
    holding, first = later[:corpus], later[corpus : scored + 1]

    # Those that are made side by side may begin late on a busy machine: there is room for that.
    # Records of both places, names, sizes, footers; and beside them a file comes and goes.
    assert count_rounds(opening) <= 8 + 1
    assert count_rounds(claiming) <= 3 + 1  # record and names, a claim of others, the own claim
    assert count_rounds(holding) <= 4  # the own claim, a record, the own record
    assert count_rounds(first) <= 7 + 2  # texts, shards, receipt, a shard, predictions
    assert len(told.shards) == sum("/tokens/" in r.path for r in first if r.method == "PUT") == 6

    # The machines are connected while the claim settles, and until then nothing else is written.
    assert [r.path.rpartition("/")[2] for r in claiming if r.method == "PUT"] == [CLAIM_FILE]
    assert CLAIM_FILE in claiming[-1].path
    assert CLAIM_FILE in holding[0].path
    # All shards are removed by one request, after one that lists them.
    ends = max(n for n, request in enumerate(later) if "/predictions/part" in request.path)
    removing = [r for r in later[ends + 1 :] if "tokens" in r.path or r.path.endswith("?delete")]
    assert [r.method for r in removing] == ["HEAD", "GET", "POST", "PUT"]
    assert job.shards.child("tokens").list_files() == []

    again = run_job(open_job(), ActorSettings(), lambda address: pytest.fail("it connects"))
    assert again.tally.earlier.num_rows == NUM_FILES * NUM_ROWS
