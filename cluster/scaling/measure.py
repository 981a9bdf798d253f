"""Score the same shards with more and more actors, in turns, and read off how fast that was.

    prepared shards -> [measure] -> runs -> points, laws, inputs of the simulation

All points take turns, every other turn backwards, so that a busy moment of the machine and what the
one before left in caches fall on all of them. The clock of a point is that of its receipts: work
counts from when the last actor began its first shard until the last shard was done. Nodes are taken
to agree on the time to a small part of that. This module knows nothing of Ray and prices.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from cluster.execution.connect import Connect
from cluster.execution.job import ScoreJob
from cluster.execution.result import RunResult
from cluster.execution.run import run_job
from cluster.scaling.cluster_model import work_after
from cluster.settings import ActorSettings
from cluster.shards.identity import PREPARED_FILE, write_record
from cluster.shards.layout import Shard
from cluster.shards.preparation import SliceReceipt, load_shards
from cluster.storage.directory import Directory
from fastformers.errors import InputError

STRONG, WEAK = "strong", "weak"


@dataclass(frozen=True, kw_only=True, order=True)
class PointPlan:
    """A point to measure.

    Attributes:
        kind: `STRONG` or `WEAK`.
        actors: Number of actors over all nodes.
        num_shares: Shares of the shards that it scores, out of as many as there are actors at most.
    """

    kind: str
    actors: int
    num_shares: int


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One turn of a point.

    Attributes:
        nodes: Machines that worked.
        work_s: Predicted seconds of its shards.
        rate: Predicted seconds of work done a second, from when all actors were up.
        job_rate: The same over the whole job.
        work_end_s: Seconds from the job's start until its last shard was done.
        startups_s: Seconds from the job's start until each actor began its first shard.
        ratios: Measured seconds of each shard over predicted ones.
        num_lost: Attempts that were lost with their actor.
        actor_s: Seconds of all actors.
    """

    nodes: int
    work_s: float
    rate: float
    job_rate: float
    work_end_s: float
    startups_s: tuple[float, ...]
    ratios: tuple[float, ...]
    num_lost: int
    actor_s: float


def plan_points(num_actors: int) -> list[PointPlan]:
    """Points for 1, 2, 4, ... actors and all of them; strong ones first.

    All actors on all shares are a point of both kinds, which is measured once, as a strong one.
    """
    numbers = [2**power for power in range(num_actors.bit_length()) if 2**power < num_actors]
    strong = [
        PointPlan(kind=STRONG, actors=number, num_shares=num_actors)
        for number in [*numbers, num_actors]
    ]
    return strong + [PointPlan(kind=WEAK, actors=k, num_shares=k) for k in numbers]


def order_turns(points: Sequence[PointPlan], repeats: int) -> list[list[PointPlan]]:
    """The points of each turn, every other turn backwards."""
    return [list(points) if turn % 2 == 0 else list(points)[::-1] for turn in range(repeats)]


def deal_shares(shards: Sequence[Shard], num_shares: int) -> list[list[Shard]]:
    """Deal shards into shares of about equal predicted cost, costliest first."""
    shares: list[list[Shard]] = [[] for _ in range(num_shares)]
    costs = [0.0] * num_shares
    for shard in sorted(shards, key=lambda shard: (-shard.predicted_s, shard.name)):
        least = costs.index(min(costs))
        shares[least].append(shard)
        costs[least] += shard.predicted_s
    return shares


def measure_points(
    job: ScoreJob,
    points: Sequence[PointPlan],
    actors: ActorSettings,
    connect: Connect,
    *,
    repeats: int,
    scratch: Directory,
    log: Callable[[str], None],
) -> dict[PointPlan, list[MeasuredRun]]:
    """Run every point once in each turn; predictions are deleted after each.

    Args:
        job: Job that scores all prepared shards; its output is not used.
        points: What to measure.
        actors: Settings of the actors, but for their number.
        connect: Function that connects to the machines.
        repeats: Number of turns.
        scratch: Directory that holds shares of the shards and predictions for a while.
        log: Function that shows a line.

    Raises:
        InputError: There are fewer shards than actors.
        FastformersError: A run fails.
    """
    shards = load_shards(job.shards)
    most = max(point.num_shares for point in points)
    if len(shards) < most:
        raise InputError(
            f"--num-actors {most}: the corpus has only {len(shards)} shards; take more of it, or "
            "lower --shard-seconds"
        )
    shares = deal_shares(shards, most)
    runs: dict[PointPlan, list[MeasuredRun]] = {point: [] for point in points}
    jobs = {
        point: job
        if point.num_shares == most
        else replace(job, shards=_keep_shares(job, shares[: point.num_shares], scratch))
        for point in points
    }
    for number, turn in enumerate(order_turns(points, repeats), start=1):
        for point in turn:
            output = scratch.child(f"{point.kind}-{point.actors}-{number}")
            settings = replace(actors, num_actors=point.actors)
            result = run_job(replace(jobs[point], output=output), settings, connect)
            runs[point].append(read_run(result))
            output.filesystem.delete_dir(output.path)
            rate = runs[point][-1].rate * rows_per_work(shards)
            log(
                f"turn {number} of {repeats}: {point.kind}, {point.actors} actors: "
                f"{rate:,.1f} rows/s"
            )
    return runs


def read_run(result: RunResult) -> MeasuredRun:
    """What a run that scored says of its point."""
    receipts = result.receipts
    starts_S = np.array([receipt.started_at for receipt in receipts])
    ends_S = np.array([receipt.finished_at for receipt in receipts])
    work_S = np.array([receipt.predicted_s for receipt in receipts])
    first: dict[str, float] = {}
    for receipt in receipts:
        before = first.get(receipt.actor, receipt.started_at)
        first[receipt.actor] = min(before, receipt.started_at)
    up, end = max(first.values()), float(ends_S.max())
    return MeasuredRun(
        nodes=result.num_machines,
        work_s=float(work_S.sum()),
        rate=work_after(starts_S, ends_S, work_S, up) / (end - up),
        job_rate=float(work_S.sum()) / result.wall_s,
        work_end_s=end - result.started_at,
        startups_s=tuple(begun - result.started_at for begun in first.values()),
        ratios=tuple(sum(r.phase_s.values()) / r.predicted_s for r in receipts),
        num_lost=result.num_retries,
        actor_s=result.num_actors * result.wall_s,
    )


def rows_per_work(shards: Iterable[Shard]) -> float:
    """Rows of the whole corpus for each predicted second, by which work becomes rows."""
    known = list(shards)
    return sum(s.num_rows for s in known) / sum(s.predicted_s for s in known)


def median_of(runs: Sequence[MeasuredRun], value: Callable[[MeasuredRun], float]) -> float:
    """Median over the turns of a point."""
    return statistics.median(map(value, runs))


def _keep_shares(job: ScoreJob, shares: Sequence[Sequence[Shard]], scratch: Directory) -> Directory:
    """A preparation that has some shares of the shards, copied."""
    kept = scratch.child(f"share-{len(shares)}")
    kept.child("slices").create()
    shards = sorted((shard for share in shares for shard in share), key=lambda shard: shard.name)
    for shard in shards:
        source = f"{job.shards.path}/{shard.file_name}"
        kept.filesystem.copy_file(source, f"{kept.path}/{shard.file_name}")
    receipt = SliceReceipt(shards=tuple(shards), rest=None, first_bad=None, phase_s={})
    kept.child("slices").write_json("000000-00000.json", asdict(receipt))
    write_record(kept, PREPARED_FILE, job.identity, complete=True)
    return kept
