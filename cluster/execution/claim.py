"""Claim the directories of a job: make them, or check that they hold this very job.

    job -> [claim] -> directories with a record of what the work is -> run

A directory with other work in it, or with work of another version of fastformers, is refused before
anything is written. This module knows nothing of Ray or of how work is done.
"""

from collections.abc import Mapping
from typing import Any

from cluster.execution.job import ScoreJob
from cluster.shards.identity import PREPARED_FILE, RUN_FILE, read_record, write_record
from cluster.storage.directory import Directory
from fastformers.errors import ChangedWorkError, InputError


def check_claim(job: ScoreJob) -> bool:
    """Whether the job's directory holds this very job already; False if it is free.

    Raises:
        InputError: The directory holds something else.
        ChangedWorkError: It holds the work of another run, or of another version.
    """
    home, file = _home(job)
    record = read_record(home, file, named=f"--output {home}")
    if record is not None:
        _check_same(home, record["identity"], job.identity)
        return True
    if not home.is_empty():
        raise InputError(
            f"--output {home}: is not empty and holds no run of ours; choose another directory"
        )
    return False


def claim_directories(job: ScoreJob) -> None:
    """Make the directories of a job, and remove what killed writers left there.

    Raises:
        InputError: The directory holds something else.
        ChangedWorkError: It holds the work of another run, or of another version.
        StorageError: It cannot be made or written to.
    """
    home, file = _home(job)
    is_claimed = check_claim(job)
    home.create()
    if not is_claimed:
        write_record(home, file, job.identity, complete=False if job.output is None else None)
    if job.corpus is not None:
        job.shards.child("slices").create()
    if job.predictions is not None:
        job.predictions.create()
        job.predictions.delete_leftovers()
    job.shards.delete_leftovers()


def _home(job: ScoreJob) -> tuple[Directory, str]:
    """The directory that a job claims, and the name of its record there."""
    return (job.shards, PREPARED_FILE) if job.output is None else (job.output, RUN_FILE)


def _check_same(home: Directory, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise ChangedWorkError(
            f"--output {home}: holds the work of another run: {', '.join(changed)} changed since; "
            "choose another directory, or delete this one to start over"
        )
