"""The server of the tests fails as it is told; else what it proves would prove nothing."""

import contextlib
import time

import pyarrow.fs
import pytest


@pytest.fixture
def s3(s3_server):
    """A client that does not retry."""
    return pyarrow.fs.S3FileSystem(
        access_key="a",
        secret_key="b",
        region="us-east-1",
        scheme="http",
        endpoint_override=s3_server.endpoint.removeprefix("http://"),
        allow_delayed_open=True,
        background_writes=False,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )


def put(s3, path, content):
    with s3.open_output_stream(path) as file:
        file.write(content)


def get(s3, path):
    with s3.open_input_file(path) as file:
        return file.read()


def test_it_keeps_what_it_is_given_and_counts(s3_server, s3):
    key = f"{s3_server.bucket}/a/b.bin"
    put(s3, key, b"x" * 100_000)
    assert get(s3, key) == b"x" * 100_000
    assert [r.method for r in s3_server.requests] == ["PUT", "HEAD", "GET"]
    assert s3_server.count("PUT", "a/b.bin") == 1
    s3_server.forget()
    assert s3_server.count() == 0


@pytest.mark.parametrize("fault", ["slow_down", "error", "reset", "cut"])
def test_each_fault_is_an_error_for_a_client_that_does_not_retry(s3_server, s3, fault):
    key = f"{s3_server.bucket}/a.bin"
    put(s3, key, b"x" * 100_000)
    s3_server.only = ("GET",)
    s3_server.fail(1.0, faults=(fault,))
    with pytest.raises(OSError, match="AWS Error"):
        get(s3, key)
    assert [r.fault for r in s3_server.requests][-1] == fault
    s3_server.fail(0.0)
    assert get(s3, key) == b"x" * 100_000


def test_a_share_of_the_requests_fails_the_same_ones_for_the_same_seed(s3_server, s3):
    seen = []
    for seed in (1, 1, 2):
        s3_server.forget()
        s3_server.fail(0.3, seed=seed, faults=("slow_down",))
        for _ in range(100):
            with contextlib.suppress(OSError):
                s3.get_file_info(f"{s3_server.bucket}/none")
        seen.append([request.fault for request in s3_server.requests])
    assert seen[0] == seen[1] != seen[2]
    assert 15 < sum(fault is not None for fault in seen[0]) < 100


def test_denied(s3_server, s3):
    s3_server.is_denied = True
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        get(s3, f"{s3_server.bucket}/a")


def test_late(s3_server, s3):
    s3_server.delay_s = 0.2
    start = time.monotonic()
    s3.get_file_info(s3_server.bucket)
    assert time.monotonic() - start >= 0.2
