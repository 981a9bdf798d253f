"""Claim the directories of a job: make sure that this job is theirs, and that one run works there.

    job -> [claim] -> directories with a record of what the work is and of who does it -> run

A directory with other work in it, or with work of another version of fastformers, is refused before
anything is written, and so is one in which another run works. This module knows nothing of Ray or
of how work is done.

What is guaranteed: on a disk, of several runs that start at once exactly one goes on. In a bucket,
where `pyarrow.fs` cannot write a file only if it is absent (26.0, 2026-11), and on a filesystem
without hard links or locks, each writes its claim and reads it back after a second or more: the
last writer goes on. A writer that was slower takes the output from one that has begun, which stops
at its next heartbeat. So it does when it stood still (SIGSTOP, a suspended machine) for so long
that another run took over. One run stays, and since files are written whole and hold the same
whoever writes them, nothing is mixed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.shards.claim_file import (
    CLAIM_FILE,
    ClaimRecord,
    judge_process,
    new_claim,
    put_claim,
    put_claim_if_absent,
    read_claim,
    release_claim,
    replace_claim,
)
from fastformers.cluster.shards.identity import (
    PREPARED_FILE,
    RUN_FILE,
    check_free,
    read_record,
    write_record,
)
from fastformers.cluster.shards.layout import TOKENS
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import ChangedWorkError, ClaimedError
from fastformers.formatting import format_count

logger = logging.getLogger(__name__)


def _read_boot_clock() -> float:
    """Seconds since boot; they pass while the machine is suspended, where the system tells."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, kw_only=True)
class ClaimTimes:
    """How often a claim is refreshed and when it is given up, in seconds, and by which clocks.

    Attributes:
        heartbeat_s: Time from one heartbeat to the next.
        stale_s: A claim whose heartbeat was not seen to change for so long may be taken over.
        warn_s: After so much of this, the user learns what is waited for.
        settle_s: In a bucket, time from writing a claim until it is read back.
        poll_s: Time from one look at another's heartbeat to the next.
        answer_s: Longest wait for a look at the claim in the middle of the run, or for its release.
        clock: Monotonic clock.
        time_of_day: Seconds since 1970, for people; nothing is decided by it.
        sleep: Waits for some seconds.
    """

    heartbeat_s: float = 10.0
    stale_s: float = 30.0
    warn_s: float = 12.0
    settle_s: float = 1.0
    poll_s: float = 1.0
    answer_s: float = 2.0
    clock: Callable[[], float] = _read_boot_clock
    time_of_day: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def check_claim(job: ScoreJob) -> bool:
    """Whether the job's directory holds this very job already; False if it is free.

    Raises:
        InputError: The directory holds something else.
        ChangedWorkError: It holds the work of another run, or of another version.
    """
    record = check_free(job.place, _record_file(job), named=f"--output {job.place}")
    if record is not None:
        _check_same(job.place, record["identity"], job.identity)
    return record is not None


def check_unheld(
    job: ScoreJob,
    *,
    log: Callable[[str], None] = lambda line: None,
    times: ClaimTimes | None = None,
) -> None:
    """Refuse a job as `claimed` does where another run works in its directory; nothing is written.

    Args:
        job: The job.
        log: Function that shows a line to the user.
        times: Times other than the usual ones, for tests.

    Raises:
        ClaimedError: Another run works there.
    """
    Claim(job.home, times or ClaimTimes(), log, place=str(job.place)).find_left_claim()


@contextmanager
def claimed(
    job: ScoreJob,
    *,
    log: Callable[[str], None] = lambda line: None,
    times: ClaimTimes | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator["Claim"]:
    """Hold the directories of a job while the block runs.

    They are made, and what killed writers left there is removed, as soon as they are held.

    Args:
        job: Job to do.
        log: Function that shows a line to the user.
        times: Times other than the usual ones, for tests.
        meanwhile: Function that is called while a claim on an output that is new must not be read
            back yet, instead of waiting for so long. It writes nothing there.

    Raises:
        ClaimedError: Another run works there.
        InputError: The directory holds something else.
        ChangedWorkError: It holds the work of another run, or of another version.
        StorageError: It cannot be made or written to.
    """
    is_known = check_claim(job)
    claim = Claim(job.home, times or ClaimTimes(), log, place=str(job.place))
    try:
        claim.acquire((lambda: None) if is_known else meanwhile)
        claim.is_new = not is_known and not _is_known(job)  # one may have come and gone since
        _make_directories(job, is_new=claim.is_new)
        yield claim
    finally:
        claim.release()


class Claim:
    """A run's hold on a directory; a thread of it keeps the heartbeat.

    Attributes:
        is_new: Whether no earlier run has worked there.
    """

    def __init__(
        self, home: Directory, times: ClaimTimes, log: Callable[[str], None], *, place: str
    ) -> None:
        """Prepare to claim a directory; nothing is written yet.

        Args:
            home: Directory to claim.
            times: How often, and for how long.
            log: Function that shows a line to the user.
            place: The output as the user knows it, for messages.
        """
        self.is_new = True
        self._home = home
        self._place = place
        self._times = times
        self._log = log
        self._own = new_claim(times.time_of_day())
        self._taker: ClaimRecord | None = None
        self._beaten_at = 0.0
        self._has_waited = False
        self._is_ended = False
        self._hurry = threading.Event()
        self._looked = threading.Condition()
        self._is_written = False
        self._heart = threading.Thread(target=self._keep_beating, name="claim", daemon=True)

    @property
    def record(self) -> ClaimRecord:
        """The claim as it was last written."""
        return self._own

    def acquire(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Write the claim, as soon as no other run holds the directory, and start the heartbeat.

        Args:
            meanwhile: See `claimed`.

        Raises:
            ClaimedError: Another run works there.
        """
        is_put = False
        while not is_put:
            left = self.find_left_claim()
            self._is_written = True
            is_put = self._put(left, meanwhile)
        if left is not None:
            self._log(f"{self._place}: the run on {left} was killed; this one goes on from there")
        self._beaten_at = self._times.clock()
        self._heart.start()

    def check(self) -> None:
        """Make sure that the directory is still held; to be called now and then, it costs nothing.

        After this process stood still, it waits for a look at the claim, some seconds at most: a
        storage that does not answer holds up no run.

        Raises:
            ClaimedError: Another run has taken the directory over.
        """
        with self._looked:
            if self._taker is None and self._is_overdue() and not self._has_waited:
                self._has_waited = True
                self._hurry.set()
                self._looked.wait_for(
                    lambda: self._taker is not None or not self._is_overdue(), self._times.answer_s
                )
            if self._taker is not None:
                raise ClaimedError(
                    f"--output {self._place}: was taken over by a run on {self._taker} while this "
                    "one stood still, so this one stops"
                )

    def release(self) -> None:
        """Stop the heartbeat, and give the directory back.

        Where the storage fails, the thread tries again for as long as the process lives.
        """
        self._is_ended = True
        self._hurry.set()
        if self._heart.ident is None:
            if not self._is_written:
                return
            self._heart.start()  # interrupted while it was claimed
        self._heart.join(self._times.answer_s)

    def _is_overdue(self) -> bool:
        """Whether others may think that this run has ended."""
        return self._times.clock() - self._beaten_at > self._times.stale_s

    def find_left_claim(self) -> ClaimRecord | None:
        """The claim of a run that has ended, or None where there is no claim.

        Raises:
            ClaimedError: The run of the claim works.
        """
        times, seen, is_told = self._times, None, False
        while (now := read_claim(self._home)) is not None:
            liveness = judge_process(now)
            if liveness == "gone":
                return now
            if liveness == "alive" or (seen is not None and _beat_of(now) != _beat_of(seen)):
                raise self._refusal(now)
            if seen is None:
                seen, since = now, times.clock()
            waited_s = times.clock() - since
            if waited_s >= times.stale_s:
                return now
            if waited_s >= times.warn_s and not is_told:
                is_told = True
                left = format_count(round(times.stale_s - waited_s), "second")
                self._log(f"{self._place}: no heartbeat from {now}; taken over in {left}")
            times.sleep(times.poll_s)
        return None

    def _put(self, left: ClaimRecord | None, meanwhile: Callable[[], object]) -> bool:
        """Write the claim; False if another was faster."""
        if left is None:
            self._home.create()
            is_put = put_claim_if_absent(self._home, self._own)
        else:
            is_put = replace_claim(self._home, left, self._own)
        if is_put is not None:
            return is_put
        put_claim(self._home, self._own)
        settled = self._times.clock() + self._times.settle_s
        meanwhile()
        self._times.sleep(max(0.0, settled - self._times.clock()))
        holder = read_claim(self._home)
        return holder is not None and holder.run == self._own.run

    def _keep_beating(self) -> None:
        while True:
            self._hurry.wait(self._times.heartbeat_s)
            self._hurry.clear()
            try:
                if self._is_ended:
                    release_claim(self._home, self._own.run)
                    return
                self._beat()
            except Exception as error:  # whatever the storage raises, the run goes on
                logger.info("%s/%s: %s", self._home, CLAIM_FILE, error)
            if self._taker is not None:
                return

    def _beat(self) -> None:
        holder = read_claim(self._home)
        if holder is not None and holder.run != self._own.run:
            with self._looked:
                self._taker = holder
                self._looked.notify_all()
            return
        now = self._times.clock()
        self._own = replace(self._own, beat=self._own.beat + 1, beat_at=self._times.time_of_day())
        put_claim(self._home, self._own)
        with self._looked:
            self._beaten_at, self._has_waited = now, False
            self._looked.notify_all()

    def _refusal(self, holder: ClaimRecord) -> ClaimedError:
        return ClaimedError(
            f"--output {self._place}: a run works there, on {holder}; wait until it ends, stop it, "
            "or choose another directory"
        )


def _beat_of(claim: ClaimRecord) -> tuple[str, int]:
    return claim.run, claim.beat


def _make_directories(job: ScoreJob, *, is_new: bool) -> None:
    """Make the directories of a job that is held, and remove what killed writers left there."""
    if is_new or job.asked:
        complete = False if job.output is None else None
        write_record(job.home, _record_file(job), job.identity, complete=complete, asked=job.asked)
    written = [] if job.predictions is None else [job.predictions]
    if job.corpus is not None:  # else the shards are those of a `prepare`, which may still run
        job.shards.child("slices").create()
        written += [job.shards, job.shards.child(TOKENS)]
    for directory in written:
        directory.create()
        if not is_new:
            directory.delete_leftovers()


def _is_known(job: ScoreJob) -> bool:
    """Whether the record of the job's directory is of this very job; False if there is none.

    Raises:
        InputError: The record is not ours.
        ChangedWorkError: It is of other work, or of another version.
    """
    record = read_record(job.home, _record_file(job), named=f"--output {job.place}")
    if record is not None:
        _check_same(job.place, record["identity"], job.identity)
    return record is not None


def _record_file(job: ScoreJob) -> str:
    """Name of the job's record in its home."""
    return PREPARED_FILE if job.output is None else RUN_FILE


def _check_same(place: Directory, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise ChangedWorkError(
            f"--output {place}: holds the work of another run: {', '.join(changed)} changed since; "
            "choose another directory, or delete this one to start over"
        )
