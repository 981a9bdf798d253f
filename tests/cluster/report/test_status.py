"""Where a run stands, as numbers, as a line, and as a file."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from fastformers.cluster.records.quotes import Quote
from fastformers.cluster.report.status import FORMAT_VERSION, RunStatus, StatusTally
from fastformers.cluster.scheduling.progress import MachineKind, Progress
from fastformers.cluster.shards.claim_file import new_claim
from fastformers.errors import InputError
from fastformers.jobs.console.terminal.live_line import ProgressLine

CLAIM = replace(new_claim(0.0), run="r1", host="vm", pid=7, started_at=1_795_652_356.0)


def news(elapsed_s, *, rows=0, done=0, done_s=0.0, left_s=0.0, **changes):
    """What a driver reports."""
    progress = Progress(
        elapsed_s=elapsed_s,
        num_done=done,
        num_known=4,
        num_rows=rows,
        num_tokens=10 * rows,
        num_errors=0,
        num_retries=0,
        predicted_done_s=done_s,
        predicted_left_s=left_s,
        num_slices_left=0,
        machine_s={MachineKind(): 2 * elapsed_s},
        num_nodes=2,
        num_actors=16,
    )
    return replace(progress, **changes)


def tally(unit="scored"):
    return StatusTally(CLAIM, unit, lambda progress: sum(progress.machine_s.values()) / 100)


def test_the_share_is_that_of_the_predicted_seconds():
    so_far = tally()
    assert so_far.add(news(1)).share == 0  # nothing is known yet
    assert so_far.add(news(2, done_s=2.0, left_s=6.0)).share == 0.25
    assert so_far.add(news(3, done_s=8.0)).share == 1.0


def test_rates_are_of_the_last_minute_and_of_the_whole_run():
    so_far = tally()
    status = so_far.add(news(10, rows=3000))
    assert (status.rows_per_second, status.rows_per_second_now) == (300, 300)
    status = so_far.add(news(100, rows=4200))
    assert (status.rows_per_second, status.rows_per_second_now) == (42, 1200 / 90)
    for second in range(101, 200):
        status = so_far.add(news(second, rows=4200 + 5 * (second - 100)))
    assert status.rows_per_second_now == 5


def test_the_time_left_is_estimated_from_the_first_report_on():
    so_far = tally()
    assert so_far.begin().left_s is None
    assert so_far.add(news(20, left_s=100.0)).left_s is None
    assert so_far.add(news(30, done_s=25.0, left_s=75.0)).left_s == pytest.approx(30)


def test_what_actors_did_is_weighed_by_time_over_the_last_minute():
    so_far = tally()
    so_far.add(news(10, doing={"read": 16}))
    status = so_far.add(news(20, doing={"infer": 12, "read": 4}))
    assert status.doing == {"infer": 12, "read": 4}
    assert status.recent == {"infer": 120 / 320, "read": 200 / 320}
    status = so_far.add(news(75, doing={"infer": 16}))  # the first report is too old now
    assert status.recent == {"infer": (120 + 55 * 16) / (160 + 880), "read": 40 / 1040}


def test_the_line_says_all_of_it():
    so_far = tally()
    so_far.add(news(51, left_s=8.0, doing={"infer": 1}))
    status = so_far.add(
        news(
            61,
            rows=3300,
            done=1,
            done_s=2.0,
            left_s=6.0,
            num_slices_left=1,
            doing={"infer": 10, "read": 4, "store": 2},
            notices=("node a: storage does not answer since 40 s", "b", "c", "d"),
        )
    )
    assert status.usd == 1.22
    assert status.describe_whole() == (
        "scored: 25%, ETA 0:30, 54 rows/s, 1.2200 USD, 1/4 shards, 1 slice to read, 3,300 rows "
        "(54/s overall), 16 actors on 2 nodes (infer 72%, read 19%, store 9%); "
        "slow: 9% of the actors' time is waiting for the storage; "
        "node a: storage does not answer since 40 s; b; c"
    )


def quote(**changes):
    values = {
        "run": "r1",
        "at": "2026-11-26T00:20:17+00:00",
        "share": 0.12,
        "actors": 16,
        "usd": 0.1415,
        "usd_low": 0.1211,
        "usd_high": 0.1688,
        "hours": 0.1,
        "hours_low": 0.09,
        "hours_high": 0.12,
        "ends_at": "2026-11-26T00:23:22+00:00",
        "ends_at_low": "2026-11-26T00:23:07+00:00",
        "ends_at_high": "2026-11-26T00:23:47+00:00",
    }
    return Quote(**{**values, **changes})


def test_the_forecast_comes_first_with_its_intervals():
    so_far = StatusTally(CLAIM, "scored", lambda progress: 0.01234, lambda progress: quote())
    so_far.add(news(51, left_s=8.0))
    line = so_far.add(news(61, rows=3300, done=1, done_s=2.0, left_s=6.0)).describe_whole()
    assert line.startswith(
        "scored: 25%, ETA 3:05 (2:50-3:30), 0.14 USD (0.12-0.17), 54 rows/s, 0.0123 USD so far, "
    )


@pytest.mark.parametrize(
    ("usd", "hours", "shown"),
    [
        (0.1415, 0.05, "ETA 3:00 (2:24-3:54), 0.14 USD (0.11-0.18)"),
        (0.000801, 0.005, "ETA 0:18 (0:14-0:23), 0.00080 USD (0.00064-0.00104)"),
        (12_345.0, 340.0, "ETA 340.0 h (272.0-442.0), 12,345 USD (9,876-16,048)"),
        (99.99, 0.9, "ETA 0.9 h (0.7-1.2), 99.99 USD (79.99-129.99)"),
    ],
)
def test_a_forecast_is_whole_in_a_line_of_80_columns(usd, hours, shown):
    start = datetime(2026, 11, 26, tzinfo=UTC)
    low, middle, high = (
        (start + timedelta(hours=hours * factor)).isoformat() for factor in (0.8, 1.0, 1.3)
    )
    own = quote(
        at=start.isoformat(),
        ends_at=middle,
        ends_at_low=low,
        ends_at_high=high,
        usd=usd,
        usd_low=0.8 * usd,
        usd_high=1.3 * usd,
    )
    status = replace(tally().begin(), quote=own, share=1.0, rows_per_second_now=1e6)
    numbers = ["100%", f"ETA {status.time_left}", *status.numbers()]
    line = ProgressLine(what="prepared", share=0.999, numbers=numbers)
    console = Console(width=80, file=io.StringIO())
    console.print(line)
    [text, *rest] = console.file.getvalue().splitlines()
    assert shown in text
    assert len(text.rstrip()) <= 80
    assert rest == []


def test_a_status_of_the_version_before_has_no_forecast():
    status = tally().add(news(10, rows=3))
    content = {**status.to_json(), "format_version": 1}
    del content["quote"]
    assert RunStatus.from_json(content, path="out/status.json") == status


def test_without_actors_the_line_says_so_and_nothing_of_what_they_did():
    so_far = tally()
    so_far.add(news(10, doing={"tokenize": 16}))
    status = replace(so_far.add(news(80, doing={"tokenize": 16})), num_actors=0, num_nodes=0)
    assert status.explain_slow() is not None
    assert status.numbers()[-1] == "waiting for a node"
    assert status.remarks() == ["slow: 100% of the actors' time is tokenizing"]


def test_what_is_waited_for_is_said_until_the_first_shard_is_done():
    so_far = tally()
    assert so_far.begin().waits_for == "starting actors"
    status = so_far.add(news(5, left_s=8.0, doing={"read": 2}))
    assert replace(status, shards_known=0).waits_for == "reading the first slice"
    assert replace(status, shards_known=3).waits_for == "waiting for the first shards to be scored"
    assert replace(status, shards_known=3, share=0.1).waits_for is None


@pytest.mark.parametrize(
    ("recent", "slow"),
    [
        ({"infer": 0.81, "read": 0.19}, None),
        ({"infer": 0.8, "read": 0.2}, "slow: 20% of the actors' time is reading the corpus"),
        ({"infer": 0.7, "write": 0.3}, "slow: 30% of the actors' time is writing predictions"),
        ({"infer": 0.5, "wait": 0.5}, "slow: 50% of the actors' time is waiting for work"),
        ({"infer": 0.95, "store": 0.05}, "slow: 5% of the actors' time is waiting for the storage"),
        ({"infer": 0.51, "tokenize": 0.49}, None),
        ({"tokenize": 0.5, "infer": 0.5}, "slow: 50% of the actors' time is tokenizing"),
        ({"read": 0.3, "store": 0.1}, "slow: 10% of the actors' time is waiting for the storage"),
        ({}, None),
    ],
)
def test_what_is_slow_is_named_from_its_share_on(recent, slow):
    status = replace(tally().begin(), recent=recent, elapsed_s=60.0)
    assert status.explain_slow() == slow
    assert replace(status, elapsed_s=59.0).explain_slow() is None


def test_a_preparation_that_tokenizes_is_not_slow():
    status = tally("prepared").begin()
    status = replace(status, recent={"tokenize": 0.9, "read": 0.1}, elapsed_s=60.0)
    assert status.explain_slow() is None


def test_a_status_is_read_as_it_was_written():
    so_far = tally()
    status = so_far.add(news(10, rows=3, doing={"infer": 2}, notices=("a",)))
    content = json.loads(json.dumps(status.to_json()))
    assert content["format_version"] == FORMAT_VERSION
    assert (content["run"], content["host"], content["pid"]) == ("r1", "vm", 7)
    assert content["started_at"] == "2026-11-26T00:19:16+00:00"
    assert content["written_at"] == "2026-11-26T00:19:26+00:00"
    assert RunStatus.from_json(content, path="out/status.json") == status


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "is not a status that this version of fastformers reads"),
        ({"format_version": 99}, "is not a status that this version of fastformers reads"),
        ({"format_version": FORMAT_VERSION, "run": 3}, "damaged: host is missing"),
    ],
)
def test_what_is_no_status_is_refused_with_its_path(content, reason):
    with pytest.raises(InputError, match=f"^out/status.json: {reason}"):
        RunStatus.from_json(content, path="out/status.json")
