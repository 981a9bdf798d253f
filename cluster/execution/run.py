"""A whole run: from a job to predictions on disk and what it took.

    job -> [run] -> pool, driver -> predictions on disk, RunResult -> report

This is what `fastformers prepare` and `fastformers score` call. It refuses to mix the work with
other work in the same directory, and starts from what is already there. The pool that works is
handed in, Ray's actors or this process; this module knows nothing of Ray or prices.
"""

import time
from collections.abc import Callable
from functools import partial

from cluster.execution.claim import claim_directories
from cluster.execution.connect import Connect
from cluster.execution.core_split import plan_workers
from cluster.execution.job import EarlierWork, ScoreJob
from cluster.execution.result import RunResult
from cluster.scheduling.driver import Driver, DriverResult
from cluster.scheduling.pool import running
from cluster.scheduling.progress import Progress
from cluster.settings import ActorSettings
from cluster.shards.dead_letters import DEAD_LETTERS_FILE, write_dead_letters
from cluster.shards.identity import PREPARED_FILE, write_record
from cluster.shards.layout import Shard
from cluster.shards.predictions import read_receipt
from cluster.shards.preparation import SliceReceipt, load_progress, load_shards
from cluster.shards.receipts import Receipt
from cluster.storage.directory import Directory
from fastformers.errors import ScoringError


def run_job(
    job: ScoreJob,
    actors: ActorSettings,
    connect: Connect,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    log: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Do a job, starting from what is on disk.

    Args:
        job: Job to do.
        actors: Settings of the workers.
        connect: Function that connects to the machines: `ray_pool.connect` or `local.connect_here`.
            It is not called where nothing is left to do.
        on_progress: Function that is called about once a second.
        log: Function that shows a line to the user.
        clock: Monotonic clock, in seconds.

    Raises:
        FastformersError: See `fastformers.errors`.
    """
    start = clock()
    claim_directories(job)
    earlier = find_earlier_work(job)
    scores = job.output is not None
    if not earlier.slices and (
        not scores or all(s.name in earlier.resumed for s in earlier.shards)
    ):
        return _conclude(job, earlier, DriverResult(shards=earlier.shards), start, clock)
    with connect(actors.address) as plan_pool:
        pool = plan_workers(plan_pool, job.worker_spec(), actors, log)
        for line in pool.self_check:
            log(line)
        driver = Driver(
            pool,
            slices=earlier.slices,
            shards=earlier.shards,
            scores=scores,
            clock=clock,
            start=start,
            done=frozenset(earlier.resumed),
            timeout_s=actors.timeout_s,
            fail_on_bad_row=job.fail_on_bad_row,
            on_progress=on_progress,
        )
        with running(pool):
            result = driver.run()
        return _conclude(job, earlier, result, start, clock)


def find_earlier_work(job: ScoreJob) -> EarlierWork:
    """Find what earlier runs of a job left on disk; nothing is changed there.

    Raises:
        InputError: The shards are of a preparation that was interrupted.
    """
    resumed = _read_receipts(job.predictions)
    if job.corpus is None:
        return EarlierWork(resumed=resumed, shards=load_shards(job.shards), slices=[], num_slices=0)
    slices = job.corpus.plan_slices(limit=job.settings.limit)
    slice_receipts, left = load_progress(job.shards, slices, resumed)
    return EarlierWork(
        resumed=resumed,
        shards=[shard for receipt in slice_receipts for shard in receipt.shards],
        slices=left,
        num_slices=len(slices),
    )


def _read_receipts(predictions: Directory | None) -> dict[str, Receipt]:
    """Receipts of the predictions that are on disk and whole, by shard."""
    if predictions is None:
        return {}
    names = predictions.list_files()
    receipts = predictions.map_files(names, partial(read_receipt, predictions))
    return {receipt.shard: receipt for receipt in receipts if receipt is not None}


def _conclude(
    job: ScoreJob,
    earlier: EarlierWork,
    result: DriverResult,
    start: float,
    clock: Callable[[], float],
) -> RunResult:
    """Finish the directories, and say what was done and how long it took."""
    shards = sorted(result.shards, key=lambda shard: shard.name)
    dead_letters = _finish_directories(job, shards, [*earlier.resumed.values(), *result.receipts])
    wall_s = clock() - start
    return RunResult(
        shards=shards,
        receipts=result.receipts,
        resumed=list(earlier.resumed.values()),
        slice_phase_s=_add_phases(result.slice_receipts),
        dead_letters=dead_letters,
        skipped_files=job.corpus.skipped if job.corpus is not None else {},
        self_check=list(result.self_check),
        num_actors=len(result.slots),
        num_machines=max(1, len({slot.host for slot in result.slots})),
        num_retries=result.num_retries,
        attempts=result.attempts,
        actor_cores=result.actor_cores,
        num_idle_cores=result.num_idle_cores,
        started_at=time.time() - wall_s,
        wall_s=wall_s,
        setup_s=result.setup_s,
        work_end_s=result.work_end_s,
    )


def _finish_directories(job: ScoreJob, shards: list[Shard], receipts: list[Receipt]) -> int:
    """Write the last files, and tidy up; returns how many rows have no prediction.

    Args:
        job: Job that was done.
        shards: All shards of the corpus, in corpus order.
        receipts: Receipts of all of them.

    Raises:
        ScoringError: There are such rows, and the job wants none.
    """
    if job.output is None:
        write_record(job.shards, PREPARED_FILE, job.identity, complete=True)
        return 0
    num_letters = write_dead_letters(job.output, shards, receipts)
    if num_letters and job.fail_on_bad_row:
        raise ScoringError(
            f"{job.output}/{DEAD_LETTERS_FILE}: lists {num_letters} rows that could not "
            "be scored; repair them, or use --on-bad-row dead-letter"
        )
    if job.corpus is not None:  # else the shards were prepared to be kept
        _delete_shards(job.shards, shards)
    return num_letters


def _delete_shards(directory: Directory, shards: list[Shard]) -> None:
    """Remove the token ids that only this run needed; its record of slices stays."""
    left = set(directory.list_files())
    directory.delete_files(s.file_name for s in shards if s.file_name in left)


def _add_phases(receipts: list[SliceReceipt]) -> dict[str, float]:
    """Seconds of preparing, by phase."""
    phase_s: dict[str, float] = {}
    for receipt in receipts:
        for phase, seconds in receipt.phase_s.items():
            phase_s[phase] = phase_s.get(phase, 0.0) + seconds
    return phase_s
