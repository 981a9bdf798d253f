"""Two runs and one output: who goes on, and who stops; nothing is scored."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from fastformers.cluster.execution.claim import (
    Claim,
    ClaimTimes,
    check_claim,
    check_unheld,
    claimed,
)
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.claim_file import CLAIM_FILE, new_claim, put_claim, read_claim
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import parse_storage_options
from fastformers.errors import ChangedWorkError, ClaimedError, InputError
from tests.cluster.outputs import contents

HOLDER = Path(__file__).parent / "holder.py"
HOUR_S = 3600.0


class FakeClock:
    """A monotonic clock that moves when somebody sleeps; `events` happen on the way."""

    def __init__(self):
        self.now = 1000.0
        self.events = {}

    def read(self):
        return self.now

    def sleep(self, seconds):
        for moment in sorted(self.events):
            if moment <= self.now + seconds:
                self.events.pop(moment)()
        self.now += seconds


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def times(clock):
    return ClaimTimes(clock=clock.read, sleep=clock.sleep)


@pytest.fixture
def corpus(tmp_path, write_rows):
    return write_rows(tmp_path / "corpus.jsonl", [{"text": f"a cat {row}"} for row in range(9)])


@pytest.fixture
def job(corpus, bundle, tmp_path):
    return open_score_job(
        str(corpus),
        bundle.path,
        str(tmp_path / "out"),
        CorpusSettings(),
        max_batch_tokens=256,
    )


@pytest.fixture
def home(tmp_path):
    return open_directory(str(tmp_path / "out" / "__run__"))


def claim_of_elsewhere(**changes):
    """The claim of a process that this machine cannot see."""
    return replace(new_claim(0.0), host="far", machine="another", pid=7, **changes)


def hold(job, home, **changes):
    """A run of another machine holds the output now."""
    with claimed(job):
        pass
    claim = claim_of_elsewhere(**changes)
    put_claim(home, claim)
    return claim


@pytest.fixture
def no_promise(monkeypatch):
    """The disk is like a bucket: nothing is written only if it is absent, or unchanged."""
    for name in ("put_claim_if_absent", "replace_claim"):
        monkeypatch.setattr(f"fastformers.cluster.execution.claim.{name}", lambda *arguments: None)


def test_a_claim_is_there_while_the_block_runs_and_then_no_more(job, home):
    with claimed(job) as claim:
        assert read_claim(home) == claim.record
        with pytest.raises(ClaimedError, match="a run works there, on"):
            check_unheld(job)
        claim.check()
    assert read_claim(home) is None
    check_unheld(job)


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, OSError])
def test_a_claim_is_given_back_whatever_ends_the_run(job, home, error):
    with pytest.raises(error), claimed(job):
        raise error("now")
    assert read_claim(home) is None


def test_a_run_that_is_interrupted_while_it_claims_leaves_no_claim(job, home, times, no_promise):
    def interrupt(seconds):
        assert read_claim(home) is not None  # it waits to read its claim back
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), claimed(job, times=replace(times, sleep=interrupt)):
        raise AssertionError("it must not get here")
    assert read_claim(home) is None


@pytest.mark.parametrize(("took_s", "slept_s"), [(0.0, 1.0), (0.4, 0.6), (7.0, 0.0)])
def test_what_is_done_meanwhile_is_no_waiting(job, home, clock, times, no_promise, took_s, slept_s):
    seen, slept = [], []

    def meanwhile():
        seen.append(sorted(path.name for path in Path(home.path).iterdir()))
        clock.now += took_s

    times = replace(times, sleep=slept.append)
    with claimed(job, times=times, meanwhile=meanwhile) as claim:
        assert claim.is_new
    assert seen == [[CLAIM_FILE]]  # nothing else is written before the claim is read back
    assert slept == [pytest.approx(slept_s)]
    with claimed(job, times=times, meanwhile=meanwhile) as claim:
        assert not claim.is_new
    assert len(seen) == 1  # there may be nothing left to do


def test_where_a_claim_holds_at_once_nothing_is_done_meanwhile(job):
    with claimed(job, meanwhile=lambda: pytest.fail("it waits")) as claim:
        assert claim.is_new


@pytest.fixture
def comes_and_goes(monkeypatch):
    """Lets a run of a job end between the next one's first look at the record and its claim."""
    acquire = Claim.acquire

    def arm(job):
        def acquire_late(claim, *arguments):
            monkeypatch.setattr(Claim, "acquire", acquire)
            with claimed(job):
                pass
            acquire(claim, *arguments)

        monkeypatch.setattr(Claim, "acquire", acquire_late)

    return arm


def test_a_run_that_comes_and_goes_in_the_meantime_is_gone_on_from(job, comes_and_goes):
    comes_and_goes(job)
    with claimed(job) as claim:
        assert not claim.is_new


def test_other_work_that_comes_and_goes_in_the_meantime_is_not(job, home, comes_and_goes):
    comes_and_goes(replace(job, identity={**job.identity, "engine": "another"}))
    changed = pytest.raises(ChangedWorkError, match="of another run: engine changed since")
    with changed, claimed(job):
        pytest.fail("two runs write into one output")
    assert read_claim(home) is None


def test_a_second_run_is_refused_at_once_and_touches_nothing(job, home, tmp_path, clock, times):
    with claimed(job) as first:
        leftover = tmp_path / "out" / "predictions" / ".part-00000.parquet.abc.incomplete"
        leftover.write_bytes(b"the first run writes this now")
        before = contents(tmp_path / "out")
        with (
            pytest.raises(ClaimedError, match="a run works there") as caught,
            claimed(job, times=times),
        ):
            raise AssertionError("it must not get here")
        assert str(first.record) in str(caught.value)
        assert str(caught.value).startswith(f"--output {tmp_path / 'out'}: ")
        assert contents(tmp_path / "out") == before
        assert clock.now == 1000.0  # the process is alive and on this machine: nothing to wait for
        first.check()


def test_preparing_claims_its_output_too(corpus, bundle, tmp_path, times):
    job = open_prepare_job(str(corpus), bundle.path, str(tmp_path / "shards"), CorpusSettings())
    with claimed(job), pytest.raises(ClaimedError), claimed(job, times=times):
        raise AssertionError("it must not get here")


def test_a_run_elsewhere_whose_heart_beats_is_left_alone(job, home, clock, times):
    holder = hold(job, home)
    clock.events[1009.0] = lambda: put_claim(home, replace(holder, beat=1))
    lines = []
    with pytest.raises(ClaimedError, match="far"), claimed(job, log=lines.append, times=times):
        raise AssertionError("it must not get here")
    assert lines == []
    assert 1009 <= clock.now < 1000 + times.warn_s
    assert read_claim(home) == replace(holder, beat=1)


def test_a_heartbeat_is_late_once_and_the_run_is_left_alone(job, home, clock, times):
    holder = hold(job, home)
    clock.events[1000 + times.stale_s - 1] = lambda: put_claim(home, replace(holder, beat=1))
    with pytest.raises(ClaimedError), claimed(job, times=times):
        raise AssertionError("it must not get here")


def test_an_output_whose_run_has_given_it_back_meanwhile_is_taken(job, home, clock, times):
    hold(job, home)
    clock.events[1005.0] = (Path(home.path) / CLAIM_FILE).unlink
    with claimed(job, times=times) as claim:
        assert read_claim(home) == claim.record
    assert clock.now < 1007


@pytest.mark.parametrize("shift_s", [0.0, -5 * HOUR_S, 5 * HOUR_S])
def test_a_frozen_heartbeat_is_taken_over_by_the_own_clock_alone(
    job, home, clock, times, shift_s, tmp_path
):
    holder = hold(job, home, beat_at=1e9)
    (tmp_path / "out" / "predictions" / ".part.abc.incomplete").write_bytes(b"half")
    lines = []
    times = replace(times, time_of_day=lambda: 1e9 + shift_s)
    with claimed(job, log=lines.append, times=times) as claim:
        assert times.stale_s <= clock.now - 1000 < times.stale_s + 2 * times.poll_s
        assert read_claim(home) == claim.record != holder
        assert not list((tmp_path / "out" / "predictions").iterdir())
    waits, takes = lines
    assert "no heartbeat from far (process 7)" in waits
    assert "the run on far (process 7)" in takes


def test_a_clock_that_jumps_while_it_waits_does_not_matter(job, home, clock, times):
    holder = hold(job, home)
    moments = iter([0.0, 1e9, -1e9] + 1000 * [5e8])
    clock.events[1010.0] = lambda: put_claim(home, replace(holder, beat=1, beat_at=-1e9))
    with (
        pytest.raises(ClaimedError),
        claimed(job, times=replace(times, time_of_day=lambda: next(moments))),
    ):
        raise AssertionError("it must not get here")


def test_a_killed_run_of_this_machine_is_taken_over_at_once(job, home, clock, times):
    gone = replace(new_claim(0.0), process_start=1)
    with claimed(job):
        pass
    put_claim(home, gone)
    check_unheld(job)
    assert read_claim(home) == gone
    lines = []
    with claimed(job, log=lines.append, times=times) as claim:
        assert read_claim(home) == claim.record
    assert clock.now == 1000
    assert lines == [f"{job.place}: the run on {gone} was killed; this one goes on from there"]


def test_an_output_that_holds_nothing_but_a_claim_is_free(job, home):
    home.create()
    put_claim(home, replace(new_claim(0.0), process_start=1))
    assert check_claim(job) is False
    with claimed(job):
        assert check_claim(job) is True


@pytest.mark.parametrize("is_left", [True, False])
def test_of_many_that_start_at_once_one_goes_on(job, home, is_left):
    with claimed(job):
        pass
    if is_left:
        put_claim(home, replace(new_claim(0.0), process_start=1))
    start, end = threading.Barrier(12), threading.Barrier(12)
    outcomes = []

    def take():
        start.wait()
        with ExitStack() as stack:
            try:
                stack.enter_context(claimed(job))
                outcomes.append("goes on")
            except ClaimedError:
                outcomes.append("stops")
            end.wait()

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["goes on"] + ["stops"] * 11
    assert read_claim(home) is None


def test_in_a_bucket_a_claim_is_read_back_after_a_while(job, home, clock, times, no_promise):
    with claimed(job, times=times) as claim:
        assert read_claim(home) == claim.record
        assert clock.now == 1000 + times.settle_s
    assert read_claim(home) is None


def test_in_a_bucket_the_last_writer_goes_on(job, home, clock, times, no_promise):
    other = claim_of_elsewhere()
    clock.events[1000.5] = lambda: put_claim(home, other)
    clock.events[1005.0] = lambda: put_claim(home, replace(other, beat=1))
    with pytest.raises(ClaimedError, match="far"), claimed(job, times=times):
        raise AssertionError("it must not get here")
    assert read_claim(home) == replace(other, beat=1)
    assert not (Path(home.path) / "run.json").exists()


def test_in_a_bucket_a_frozen_heartbeat_is_taken_over_too(job, home, clock, times, no_promise):
    hold(job, home)
    with claimed(job, times=times) as claim:
        assert read_claim(home) == claim.record


def test_a_run_that_stood_still_finds_its_output_taken_and_stops(job, home, clock, times):
    with claimed(job, times=times) as claim:
        other = claim_of_elsewhere()
        put_claim(home, other)
        claim.check()  # not yet: others wait for `stale_s` before they take over
        clock.now += times.stale_s + 1
        with pytest.raises(ClaimedError, match=r"taken over by a run on far .* stood still"):
            claim.check()
    assert read_claim(home) == other


def test_a_run_that_stood_still_and_was_not_taken_over_goes_on(job, home, clock, times):
    with claimed(job, times=times) as claim:
        for _ in range(3):
            beat = read_claim(home).beat
            clock.now += times.stale_s + 1
            claim.check()
            assert read_claim(home).beat == beat + 1


def test_a_claim_that_somebody_deleted_is_written_again(job, home, clock, times):
    with claimed(job, times=times) as claim:
        (Path(home.path) / CLAIM_FILE).unlink()
        clock.now += times.stale_s + 1
        claim.check()
        assert read_claim(home) == claim.record


def test_a_storage_that_fails_ends_no_run(job, home, clock, times, monkeypatch):
    times = replace(times, answer_s=0.01, heartbeat_s=0.01)
    looks = threading.Semaphore(0)

    def fail(directory):
        looks.release()
        raise OSError("SlowDown")

    with claimed(job, times=times) as claim:
        with monkeypatch.context() as patch:
            patch.setattr("fastformers.cluster.execution.claim.read_claim", fail)
            for _ in range(5):
                looks.acquire()
            clock.now += 10 * times.stale_s
            waits = []
            patch.setattr(claim._looked, "wait_for", lambda *arguments: waits.append(arguments))
            for _ in range(3):
                claim.check()
            assert len(waits) == 1  # a run is not held up each time
        beat = claim.record.beat
        deadline = threading.Event()
        while claim.record.beat == beat:
            deadline.wait(0.01)
    assert read_claim(home) is None


def test_two_runs_and_a_bucket(corpus, bundle, s3_server, clock, times):
    storage = parse_storage_options(json.dumps(s3_server.storage_options))
    job = open_score_job(
        str(corpus),
        bundle.path,
        f"{s3_server.uri}/out",
        CorpusSettings(),
        max_batch_tokens=256,
        storage=storage,
    )
    with claimed(job, times=times) as first:
        s3_server.forget()
        refused = pytest.raises(ClaimedError, match=f"^--output {s3_server.uri}/out: a run works")
        with refused, claimed(job, times=times):
            raise AssertionError("it must not get here")
        assert {request.method for request in s3_server.requests} <= {"GET", "HEAD"}
        clock.now += times.stale_s + 1
        first.check()
        put_claim(job.home, claim_of_elsewhere())
    with claimed(job, times=times) as second:  # after `stale_s` without a heartbeat
        assert read_claim(job.home) == second.record
    assert read_claim(job.home) is None


def start_holder(corpus, bundle, output):
    return subprocess.Popen(
        [sys.executable, HOLDER, corpus, bundle.path, output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_was_suspended_stops_when_it_wakes_up(corpus, bundle, tmp_path, home):
    first = start_holder(corpus, bundle, tmp_path / "out")
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGSTOP)
    second = start_holder(corpus, bundle, tmp_path / "out")
    assert second.stdout.readline() == "held\n"
    first.send_signal(signal.SIGCONT)
    out, error = first.communicate(timeout=60)
    assert first.returncode == 2
    assert error.startswith(f"--output {tmp_path / 'out'}: was taken over by a run on ")
    assert f"(process {second.pid})" in error
    assert out == "stopped after 0 writes\n"
    assert read_claim(home).pid == second.pid
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert read_claim(home) is None
