import pytest

from fastformers.cluster.storage import outages
from fastformers.cluster.storage.outages import OutageRecord


@pytest.fixture
def lines():
    return []


@pytest.fixture
def record(clock, lines):
    return OutageRecord(clock=clock, log=lines.append)


def test_nobody_waits_at_first(record):
    assert record.current() == outages.current() == []


def test_lines_come_after_some_seconds_then_every_half_minute_then_at_the_end(record, clock, lines):
    told_at = []
    for second in range(100):
        clock.now = float(second)
        record.wait("a", "s3://b", "s3://b/x", 0.0, "SlowDown")
        if len(lines) > len(told_at):
            told_at.append(second)
    assert told_at == [5, 35, 65, 95]
    assert lines[1] == "s3://b does not answer since 35 s (SlowDown); waiting for it"
    record.end("a", "s3://b", has_answered=True)
    assert lines[-1] == "s3://b answers again after 99 s"
    assert record.current() == []


def test_a_short_outage_is_not_told(record, clock, lines):
    record.wait("a", "s3://b", "s3://b/x", 0.0, "SlowDown")
    clock.now = 4.9
    record.wait("a", "s3://b", "s3://b/x", 0.0, "SlowDown")
    record.end("a", "s3://b", has_answered=True)
    assert lines == []


def test_many_that_wait_for_one_service_are_one_line(record, clock, lines):
    for second in range(8):
        clock.now = float(second)
        for key in range(64):
            record.wait(key, "s3://b", f"s3://b/{key}", 0.0, "SlowDown")
    assert len(lines) == 1
    record.end(7, "s3://b", has_answered=True)
    assert len(lines) == 2  # told when the first of them has its answer
    for key in range(64):
        record.end(key, "s3://b", has_answered=True)
    assert len(lines) == 2


def test_each_service_has_its_own_lines(record, clock, lines):
    clock.now = 6.0
    for service in ("s3://b", "s3://c"):
        record.wait(service, service, f"{service}/x", 0.0, "SlowDown")
    assert [line.split()[0] for line in lines] == ["s3://b", "s3://c"]


def test_the_longest_wait_is_shown_first(record, clock):
    record.wait("late", "s3://b", "s3://b/late", 50.0, "SlowDown")
    record.wait("early", "s3://b", "s3://b/early", 20.0, "InternalError")
    clock.now = 60.0
    first, second = record.current()
    assert (first.path, first.since_s, first.error) == ("s3://b/early", 40.0, "InternalError")
    assert second.since_s == 10.0
    assert str(first) == "storage does not answer since 40 s: s3://b/early (InternalError)"


def test_what_gave_up_is_forgotten_and_no_answer_is_told(record, clock, lines):
    clock.now = 6.0
    record.wait("a", "s3://b", "s3://b/x", 0.0, "SlowDown")
    record.end("a", "s3://b", has_answered=False)
    assert len(lines) == 1
    assert record.current() == []
    clock.now = 100.0
    record.wait("b", "s3://b", "s3://b/x", 94.0, "SlowDown")
    assert lines[-1] == "s3://b does not answer since 6 s (SlowDown); waiting for it"


def test_where_nobody_looks_nothing_is_told_but_it_is_known(record, clock, lines):
    clock.now = 100.0
    record.wait("a", "", "s3://b/x", 0.0, "SlowDown")
    assert len(record.current()) == 1
    record.end("a", "", has_answered=True)
    assert lines == []
