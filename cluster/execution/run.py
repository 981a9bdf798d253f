"""A whole run: from a job to predictions on disk and what it took.

    job -> [run] -> nodes, driver -> predictions on disk, RunResult -> report

This is what `fastformers prepare` and `fastformers score` call. It refuses to mix the work with
other work in the same directory, and starts from what is already there. The nodes that work are
handed in, those of a Ray cluster or this process; this module knows nothing of Ray or prices.
"""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache

from fastformers.cluster.devices.crew import Crew
from fastformers.cluster.execution.claim import Claim, claimed
from fastformers.cluster.execution.connect import Connect
from fastformers.cluster.execution.core_split import open_asked_nodes
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.journal import RunJournal
from fastformers.cluster.execution.result import EarlierWork, RunResult
from fastformers.cluster.records.dead_letters import DEAD_LETTERS_FILE, write_dead_letters
from fastformers.cluster.scheduling.driver import Driver
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.scheduling.nodes import running
from fastformers.cluster.scheduling.progress import Before, DriverResult, Progress
from fastformers.cluster.settings import ActorSettings
from fastformers.cluster.shards.identity import PREPARED_FILE, write_record
from fastformers.cluster.shards.layout import TOKENS

_TELL_EVERY_S = 5.0


def run_job(
    job: ScoreJob,
    actors: ActorSettings,
    connect: Connect,
    *,
    on_claim: Callable[[Claim], None] = lambda claim: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_result: Callable[[RunResult], None] = lambda result: None,
    log: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Do a job, starting from what is on disk.

    Args:
        job: Job to do.
        actors: Settings of the workers.
        connect: Function that connects to the machines, to a Ray cluster or to this process.
            It is not called where nothing is left to do, and before all else where the output is
            new and its storage lets a claim wait.
        on_claim: Function that is called when the output is claimed.
        on_progress: Function that is called about once a second.
        on_result: Function that is told every few seconds what was done so far, and once more
            where an error ends the run.
        log: Function that shows a line to the user.
        clock: Monotonic clock, in seconds.

    Raises:
        FastformersError: See `fastformers.errors`.
    """
    start = clock()
    with ExitStack() as machines:
        open_nodes = cache(lambda: machines.enter_context(connect(actors.address)))
        with (
            claimed(job, log=log, meanwhile=open_nodes) as claim,
            RunJournal(job) as journal,
            _told(on_result, journal, start=start, clock=clock) as tell_if_due,
            machines,
        ):
            on_claim(claim)
            earlier = journal.load_earlier(is_new=claim.is_new)

            def show(progress: Progress) -> None:
                claim.check()
                on_progress(progress)
                journal.flush_if_due()
                tell_if_due(driver.uses)

            work = DriverResult(setup_s=0.0, work_end_s=0.0)
            if not earlier.is_all:
                nodes = open_asked_nodes(open_nodes(), job.worker_spec(), actors, log)
                before = _before(earlier)
                driver = Driver(
                    nodes,
                    slices=earlier.cut.take_slices(),
                    shards=earlier.cut.take_shards(),
                    scores=job.output is not None,
                    journal=journal,
                    clock=clock,
                    start=start,
                    done=earlier.done,
                    before=before,
                    crew=Crew(
                        [scoring.device for scoring in job.scorings],
                        compares=len({scoring.precision for scoring in job.scorings}) > 1,
                        gpu_shard_s=job.gpu_shard_s,
                    ),
                    on_progress=show,
                    log=log,
                )
                with running(nodes):
                    work = driver.run()
            return conclude(job, journal, work, start=start, clock=clock)


def _before(earlier: EarlierWork) -> Before:
    """What forecasts count from, where earlier sessions have worked."""
    predicted_s = earlier.receipts.predicted_s
    left_s = sum(shard.predicted_s for shard in earlier.cut.shards)
    return Before(
        predicted_s=predicted_s,
        num_cut=max(0, earlier.num_slices - len(earlier.cut.slices)),
        cut_s=predicted_s + left_s,
    )


@contextmanager
def _told(
    on_result: Callable[[RunResult], None],
    journal: RunJournal,
    *,
    start: float,
    clock: Callable[[], float],
) -> Iterator[Callable[[Callable[[], list[NodeUse]]], None]]:
    """Tell what was done so far: where an error ends the block, and whenever it is time.

    What it yields takes a function that says which nodes work, and takes up to a hundredth of the
    time for itself, however many actors there are.
    """
    due = start + _TELL_EVERY_S

    def tell(nodes: Sequence[NodeUse]) -> None:
        now = clock() - start
        on_result(_result(journal, [*journal.nodes, *nodes], now, work_end_s=now, is_cut=True))

    def tell_if_due(working: Callable[[], list[NodeUse]]) -> None:
        nonlocal due
        began = clock()
        if began >= due:
            tell(working())
            due = clock() + max(_TELL_EVERY_S, 100 * (clock() - began))

    try:
        yield tell_if_due
    except BaseException:
        tell(())
        raise


def conclude(
    job: ScoreJob,
    journal: RunJournal,
    work: DriverResult,
    *,
    start: float,
    clock: Callable[[], float],
) -> RunResult:
    """Finish the directories, and say what was done and how long it took.

    Args:
        job: Job that was done.
        journal: What happened.
        work: What the driver says of it; zeros where nothing was left to do.
        start: Clock reading at the start of the run.
        clock: Monotonic clock, in seconds.

    Raises:
        ScoringError: More rows are without a prediction than the job allows.
    """
    dead_letters = _finish_directories(job, journal)
    result = _result(
        journal,
        journal.nodes,
        clock() - start,
        setup_s=work.setup_s,
        work_end_s=work.work_end_s,
    )
    skipped = job.corpus.skipped if job.corpus is not None else {}
    return replace(
        result,
        dead_letters=dead_letters,
        dead_letter_reasons=dict(journal.bad_rows.counts.most_common()),
        skipped_files={**skipped, **journal.tally.skipped_files},
    )


def _result(
    journal: RunJournal,
    nodes: Sequence[NodeUse],
    wall_s: float,
    *,
    setup_s: float = 0.0,
    work_end_s: float = 0.0,
    is_cut: bool = False,
) -> RunResult:
    """What the journal tells; which rows are dead letters is not known before the end."""
    return RunResult(
        tally=journal.tally,
        nodes=_nodes_paid_for(nodes, wall_s),
        dead_letters=0,
        dead_letter_reasons={},
        skipped_files={},
        started_at=time.time() - wall_s,
        wall_s=wall_s,
        setup_s=setup_s,
        work_end_s=work_end_s,
        is_cut=is_cut,
    )


def _nodes_paid_for(nodes: Sequence[NodeUse], wall_s: float) -> tuple[NodeUse, ...]:
    """The nodes as they joined, those that stayed until the end of the run; or this machine."""
    if not nodes:
        here = NodeUse(
            node="",
            name=platform.node(),
            instance_type=None,
            joined_s=0.0,
            left_s=wall_s,
            num_cores=0,  # priced as this machine
            num_idle_cores=0,
            actor_cores={},
            self_check="",
        )
        return (here,)
    stayed = [use if use.reason is not None else replace(use, left_s=wall_s) for use in nodes]
    return tuple(sorted(stayed, key=lambda use: (use.joined_s, use.node)))


def _finish_directories(job: ScoreJob, journal: RunJournal) -> int:
    """Write the last files, and tidy up; returns how many rows have no prediction.

    Raises:
        ScoringError: There are more than the job allows.
    """
    if job.predictions is None:
        journal.check_bad_rows(are_all=True)
        write_record(job.shards, PREPARED_FILE, job.identity, complete=True, asked=job.asked)
        return 0
    num_letters = write_dead_letters(
        job.home,
        job.predictions,
        job.shards,
        journal.cut.table,
        with_errors=journal.with_errors,
    )
    journal.check_bad_rows(are_all=True, listed_in=f"{job.home}/{DEAD_LETTERS_FILE}")
    if job.corpus is not None:  # else the shards were prepared to be kept
        job.shards.child(TOKENS).delete_contents()  # the record of slices stays
    return num_letters
