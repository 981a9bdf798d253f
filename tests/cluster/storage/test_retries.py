import traceback

import pytest

from fastformers.cluster.storage.outages import OutageRecord
from fastformers.cluster.storage.retries import LIMIT_S, LONGEST_WAIT_S, Service, Waiting, describe
from fastformers.errors import StorageError

SLOW_DOWN = (
    "When uploading object with key 'a' in bucket 'b': AWS Error SLOW_DOWN during PutObject "
    "operation: Please reduce your request rate. (Request ID: 1A2B)"
)
HTTP_503 = (
    "When reading information for key 'a' in bucket 'b': AWS Error UNKNOWN (HTTP status 503) "
    "during HeadObject operation: No response body."
)
REFUSED = (
    "When reading information for key 'a' in bucket 'b': AWS Error NETWORK_CONNECTION during "
    "HeadObject operation: curlCode: 7, Could not connect to server; Details: Failed to connect"
)
RESET = (
    "When reading information for key 'a' in bucket 'b': AWS Error NETWORK_CONNECTION during "
    "HeadObject operation: curlCode: 52, Server returned nothing (no headers, no data)"
)
UNAVAILABLE = "google::cloud::Status(UNAVAILABLE: Retry policy exhausted)"
BUSY = "Get properties failed. Azure Error: [ServerBusy] 503 The server is busy."
PASSING = [SLOW_DOWN, HTTP_503, RESET, UNAVAILABLE, BUSY, "something that nobody has seen before"]


@pytest.fixture
def lines():
    return []


@pytest.fixture
def waits():
    return []


@pytest.fixture
def service(clock, lines, waits):
    """A service for which time passes when it is waited for."""

    def sleep(seconds):
        waits.append(seconds)
        clock.now += seconds

    return Service(
        name="s3://b",
        endpoint="http://host:9000",
        redact=lambda text: text.replace("hidden", "***"),
        tells=True,
        has_answered=False,
        waiting=Waiting(
            clock=clock,
            sleep=sleep,
            chance=lambda: 1.0,
            record=OutageRecord(clock=clock, log=lines.append),
        ),
    )


def failing(times, text):
    """Fails so many times, then gives 7."""
    errors = [OSError(text)] * times

    def act():
        if errors:
            raise errors.pop()
        return 7

    return act


@pytest.mark.parametrize("text", PASSING)
def test_what_may_pass_is_done_again_until_it_succeeds(service, waits, text):
    assert service.persist("s3://b/a", failing(20, text)) == 7
    assert len(waits) == 20
    assert service.waiting.record.current() == []


def test_waits_begin_below_a_second_and_grow_to_a_limit(service, waits):
    service.persist("s3://b/a", failing(12, SLOW_DOWN))
    assert waits[0] < 1
    assert waits[:4] == [waits[0] * 2**n for n in range(4)]
    assert waits[-1] == LONGEST_WAIT_S == max(waits)


def test_waits_are_random_down_to_nothing(service, waits):
    chances = iter([0.0, 0.5, 0.25])
    service.waiting = Waiting(
        clock=service.waiting.clock,
        sleep=service.waiting.sleep,
        chance=lambda: next(chances),
        record=service.waiting.record,
    )
    service.persist("s3://b/a", failing(3, SLOW_DOWN))
    assert waits == [0.0, 0.5, 0.5]


def test_an_outage_of_ten_minutes_is_waited_out_and_told(service, clock, lines):
    def act():
        if clock.now < 600:
            raise OSError(SLOW_DOWN)
        return 7

    assert service.persist("s3://b/a", act) == 7
    assert lines[0].startswith("s3://b does not answer since ")
    assert len(lines) == 16  # waits of 20 s, and a line when 30 s have passed
    assert lines[-1] == f"s3://b answers again after {clock.now:.0f} s"


def test_it_is_known_while_it_lasts(service, clock):
    seen = []

    def act():
        seen.append([str(outage) for outage in service.waiting.record.current()])
        if clock.now < 3:
            raise OSError(SLOW_DOWN)

    service.persist("s3://b/a", act)
    assert seen[0] == []
    assert seen[-1] == [
        f"storage does not answer since {clock.now:.0f} s: s3://b/a (AWS Error SLOW_DOWN during "
        "PutObject operation: Please reduce your request rate.)"
    ]


def test_it_gives_up_after_a_quarter_of_an_hour(service, clock):
    with pytest.raises(StorageError, match=r"s3://b/a: no answer for 15 minutes .*SLOW_DOWN"):
        service.persist("s3://b/a", failing(10_000, SLOW_DOWN))
    assert LIMIT_S < clock.now < LIMIT_S + LONGEST_WAIT_S + 1
    assert service.waiting.record.current() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "access denied"),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation: x", "access denied"),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation: x", "access denied"),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation: x", "access denied"),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation: x", "there is no bucket s3://b"),
        ("Bucket 'b' not found. To create buckets, enable the", "there is no bucket s3://b"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: x", "refused by http"),
        ("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: x", "refused by http"),
        ("google::cloud::Status(PERMISSION_DENIED: x)", "access denied"),
        ("Not a regular file: 'b'", "is a directory or a bucket, not a file"),
        ("google::cloud::Status(UNAUTHENTICATED: x)", "access denied"),
        ("x Azure Error: [AuthenticationFailed] 403", "access denied"),
        ("x Azure Error: [ContainerNotFound] 404", "there is no bucket s3://b"),
        (REFUSED, "http://host:9000 cannot be reached .Could not connect to server.; check the"),
        (REFUSED.replace("curlCode: 7", "curlCode: 6"), "http://host:9000 cannot be reached"),
    ],
)
def test_what_waiting_cannot_mend_is_refused_at_once_in_one_line(service, waits, text, said):
    with pytest.raises(StorageError, match=f"^s3://b/a: {said}") as caught:
        service.persist("s3://b/a", failing(1, text))
    assert waits == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_service_that_is_too_busy_is_waited_for(service, waits, status):
    text = f"AWS Error UNKNOWN (HTTP status {status}) during HeadObject operation: x"
    service.persist("s3://b/a", failing(1, text))
    assert len(waits) == 1


def test_no_connection_is_an_outage_once_the_service_has_answered(service, waits):
    service.persist("s3://b/a", failing(0, ""))
    assert service.persist("s3://b/a", failing(3, REFUSED)) == 7
    assert len(waits) == 3


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no"), NotADirectoryError(20, "no")])
def test_what_is_not_there_is_an_answer(service, waits, error):
    def act():
        raise error

    with pytest.raises(type(error)):
        service.persist("s3://b/a", act)
    assert waits == []
    assert service.persist("s3://b/a", failing(1, REFUSED)) == 7


def test_ctrl_c_ends_a_wait(service):
    def act():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        service.persist("s3://b/a", act)
    assert service.waiting.record.current() == []


@pytest.mark.parametrize(
    "text", ["AWS Error ACCESS_DENIED during x operation: key hidden", f"{SLOW_DOWN} hidden"]
)
def test_no_message_shows_a_secret(service, lines, text):
    with pytest.raises(StorageError) as caught:
        service.persist("s3://b/a", failing(10_000, text))
    assert "hidden" not in "".join(traceback.format_exception(caught.value))
    assert "***" in str(caught.value)
    assert "hidden" not in "".join(lines)


def test_a_reason_is_short():
    assert describe(SLOW_DOWN) == (
        "AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."
    )
    assert describe(RESET) == "Server returned nothing (no headers, no data)"
    assert len(describe("x\ny " * 1000)) == 200
