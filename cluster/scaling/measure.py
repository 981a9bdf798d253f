"""Score the same shards with more and more actors, in turns, and read off how fast that was.

    prepared shards -> [measure] -> runs -> points, laws, inputs of the simulation

All points take turns, every other turn backwards, so that a busy moment of the machine and what the
one before left in caches fall on all of them. The clock of a point is that of its receipts: work
counts from when the last actor began its first shard until the last shard was done. Nodes are taken
to agree on the time to a small part of that. This module knows nothing of Ray and prices.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from fastformers.cluster.execution.connect import OpenNodes
from fastformers.cluster.execution.core_split import join_all
from fastformers.cluster.execution.engine_alone import deal_shards
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.records.receipts_log import load_receipts, read_log
from fastformers.cluster.scaling.cluster_model import work_after
from fastformers.cluster.scheduling.nodes import running
from fastformers.cluster.settings import ActorSettings
from fastformers.cluster.shards.identity import PREPARED_FILE, write_record
from fastformers.cluster.shards.layout import TOKENS, Shard
from fastformers.cluster.shards.preparation import SliceReceipt, receipt_name
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.options import check_at_least, option

STRONG, WEAK = "strong", "weak"


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """How often everything is measured."""

    repeats: int = field(
        default=3, metadata=option("turns in which all points are measured", metavar="N")
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "repeats")


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many actors there is room for.

    Attributes:
        num_actors: Actors over all nodes.
        actors_per_node: Actors of the fullest node.
    """

    num_actors: int
    actors_per_node: int


@dataclass(frozen=True, kw_only=True)
class PointPlan:
    """A point to measure.

    Attributes:
        kind: `STRONG` or `WEAK`.
        actors: Number of actors over all nodes.
        nodes: Nodes that they are on.
        num_shares, of_shares: Shares of the shards that it scores, and in how many they are dealt.
    """

    kind: str
    actors: int
    nodes: int
    num_shares: int
    of_shares: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A node that worked: its type, as its cloud names it, and its cores."""

    instance_type: str | None
    num_cores: int


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One turn of a point.

    Attributes:
        machines: Nodes that worked.
        rate: Predicted seconds of work done a second, from when all actors were up.
        job_rate: The same over the whole job.
        work_end_s: Seconds from the job's start until its last shard was done.
        startups_s: Seconds from the job's start until each actor began its first shard.
        predicted_s, seconds: Seconds of each shard, predicted and as its actor measured them.
        num_lost: Attempts that were lost with their actor.
        actor_s: Seconds of all actors.
    """

    machines: tuple[Machine, ...]
    rate: float
    job_rate: float
    work_end_s: float
    startups_s: tuple[float, ...]
    predicted_s: tuple[float, ...]
    seconds: tuple[float, ...]
    num_lost: int
    actor_s: float

    @property
    def ratios(self) -> list[float]:
        """Measured seconds of each shard over predicted ones."""
        return [s / p for s, p in zip(self.seconds, self.predicted_s, strict=True)]


def find_room(
    open_nodes: OpenNodes, job: ScoreJob, actors: ActorSettings, *, cores_per_actor: int
) -> Room:
    """Start as many actors as there is room for, or as the user allows, and count them.

    Args:
        open_nodes: Function that opens nodes on the connected machines.
        job: Job that scores.
        actors: Settings of the user.
        cores_per_actor: Physical cores of each actor.
    """
    with running(open_nodes(job.worker_spec(), actors, cores_per_actor=cores_per_actor)) as nodes:
        counts = [len(node.slots) for node in join_all(nodes)]
    return Room(num_actors=sum(counts), actors_per_node=max(counts))


def plan_points(room: Room) -> list[PointPlan]:
    """Points for 1, 2, 4, ... actors, for full nodes, and for all; strong ones first.

    Nodes are filled one after another. All actors on all shares are a point of both kinds, which is
    measured once, as a strong one.
    """
    most, per_node = room.num_actors, room.actors_per_node
    numbers = {2**power for power in range(most.bit_length())} | {most}
    numbers |= {per_node * 2**power for power in range(most.bit_length())}
    counts = sorted(number for number in numbers if number <= most)

    def plan(kind: str, actors: int, num_shares: int) -> PointPlan:
        nodes = -(-actors // per_node)
        return PointPlan(
            kind=kind, actors=actors, nodes=nodes, num_shares=num_shares, of_shares=most
        )

    strong = [plan(STRONG, number, most) for number in counts]
    return strong + [plan(WEAK, number, number) for number in counts if number < most]


def order_turns(points: Sequence[PointPlan], repeats: int) -> list[list[PointPlan]]:
    """The points of each turn, every other turn backwards."""
    return [list(points) if turn % 2 == 0 else list(points)[::-1] for turn in range(repeats)]


def measure_points(
    job: ScoreJob,
    shards: Sequence[Shard],
    points: Sequence[PointPlan],
    actors: ActorSettings,
    open_nodes: OpenNodes,
    *,
    repeats: int,
    scratch: Directory,
    log: Callable[[str], None],
) -> dict[PointPlan, list[MeasuredRun]]:
    """Run every point once in each turn; predictions are deleted after each.

    Args:
        job: Job that scores all prepared shards; its output is not used.
        shards: The prepared shards.
        points: What to measure.
        actors: Settings of the actors, but for their number.
        open_nodes: Function that opens nodes on the connected machines.
        repeats: Number of turns.
        scratch: Directory that holds shares of the shards and predictions for a while.
        log: Function that shows a line.

    Raises:
        InputError: There are fewer shards than actors.
        FastformersError: A run fails.
    """
    most = points[0].of_shares
    if len(shards) < most:
        raise InputError(
            f"--num-actors {most}: the corpus has only {len(shards)} shards; take more of it, or "
            "lower --shard-seconds"
        )
    jobs = {
        point: job
        if point.num_shares == most
        else replace(job, shards=_keep(job, shards_of(point, shards), scratch, point))
        for point in points
    }
    runs: dict[PointPlan, list[MeasuredRun]] = {point: [] for point in points}
    for number, turn in enumerate(order_turns(points, repeats), start=1):
        for point in turn:
            output = scratch.child(f"{point.kind}-{point.actors}-{number}")
            settings = replace(actors, num_actors=point.actors, num_nodes=point.nodes)
            run = replace(jobs[point], output=output)
            result = run_job(run, settings, lambda address: nullcontext(open_nodes))
            assert run.predictions is not None
            assert run.receipts_log is not None
            receipts = list(load_receipts(run.predictions, read_log(run.receipts_log)))
            runs[point].append(read_run(result, receipts))
            output.filesystem.delete_dir(output.path)
            rate = runs[point][-1].rate * rows_per_work(shards)
            log(
                f"turn {number} of {repeats}: {point.kind}, {format_count(point.actors, 'actor')} "
                f"on {format_count(point.nodes, 'node')}: {rate:,.1f} rows/s"
            )
    return runs


def shards_of(point: PointPlan, shards: Sequence[Shard]) -> list[Shard]:
    """Shards that a point scores."""
    shares = deal_shards(shards, point.of_shares)[: point.num_shares]
    return [shard for share in shares for shard in share]


def read_run(result: RunResult, receipts: Sequence[Receipt]) -> MeasuredRun:
    """What a run that scored, and the receipts of its shards, say of its point."""
    starts_S = np.array([receipt.started_at for receipt in receipts])
    ends_S = np.array([receipt.finished_at for receipt in receipts])
    work_S = np.array([receipt.predicted_s for receipt in receipts])
    first: dict[str, float] = {}
    for receipt in receipts:
        before = first.get(receipt.actor, receipt.started_at)
        first[receipt.actor] = min(before, receipt.started_at)
    up, end = max(first.values()), float(ends_S.max())
    return MeasuredRun(
        machines=tuple(
            Machine(instance_type=use.instance_type, num_cores=use.num_cores)
            for use in result.nodes
            if use.actor_cores
        ),
        rate=work_after(starts_S, ends_S, work_S, up) / (end - up),
        job_rate=float(work_S.sum()) / result.wall_s,
        work_end_s=end - result.started_at,
        startups_s=tuple(begun - result.started_at for begun in first.values()),
        predicted_s=tuple(receipt.predicted_s for receipt in receipts),
        seconds=tuple(sum(receipt.phase_s.values()) for receipt in receipts),
        num_lost=sum(receipt.attempt - 1 for receipt in receipts),
        actor_s=result.num_actors * result.wall_s,
    )


def rows_per_work(shards: Iterable[Shard]) -> float:
    """Rows of the whole corpus for each predicted second, by which work becomes rows."""
    known = list(shards)
    return sum(s.num_rows for s in known) / sum(s.predicted_s for s in known)


def median_of(runs: Sequence[MeasuredRun], value: Callable[[MeasuredRun], float]) -> float:
    """Median over the turns of a point."""
    return statistics.median(map(value, runs))


def _keep(
    job: ScoreJob, shards: Sequence[Shard], scratch: Directory, point: PointPlan
) -> Directory:
    """A preparation that has some of the shards, copied; each is a slice of its own."""
    kept = scratch.child(f"shares-{point.num_shares}")
    kept.child("slices").create()
    source, target = job.shards.child(TOKENS), kept.child(TOKENS)
    target.create()
    for shard in shards:
        name = shard.file_name
        target.filesystem.copy_file(f"{source.path}/{name}", f"{target.path}/{name}")
        index, number = map(int, shard.name.split("-"))
        receipt = SliceReceipt(
            index=index,
            first_shard=number,
            shards=(shard,),
            rest=None,
            phase_s={},
        )
        kept.child("slices").write_json(receipt_name(index, number), asdict(receipt))
    write_record(kept, PREPARED_FILE, job.identity, complete=True)
    return kept
