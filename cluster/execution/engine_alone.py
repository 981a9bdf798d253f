"""Measure the engine alone: the rate that a job would reach if only its model took time.

    prepared shards + workers -> [engine_alone] -> rows per second

The same workers on the same cores run the same batches as the job did, already tokenized and in
memory, and nothing else. What the job loses against that is reading, tokenizing, writing,
scheduling and idle cores. This module knows nothing of Ray or prices.
"""

from collections.abc import Callable, Sequence

from fastformers.cluster.execution.connect import Connect
from fastformers.cluster.execution.core_split import join_all, measure_at_once, open_asked_nodes
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.records.slice_table import load_shards
from fastformers.cluster.scheduling.nodes import all_slots, running
from fastformers.cluster.scheduling.work import TimeEngine
from fastformers.cluster.settings import ActorSettings
from fastformers.cluster.shards.layout import Shard


def measure_engine_alone(
    job: ScoreJob, actors: ActorSettings, connect: Connect, log: Callable[[str], None]
) -> float:
    """Measure the rows per second of all engines, each on its share of the shards, all at once.

    Args:
        job: Job whose shards are prepared.
        actors: Settings of the workers.
        connect: Function that connects to the machines.
        log: Function that shows a line to the user.
    """
    shards = load_shards(job.shards)
    with connect(actors.address) as open_nodes:
        nodes = open_asked_nodes(open_nodes, job.worker_spec(), actors, log)
        with running(nodes):
            joined = join_all(nodes)
            shares = deal_shards(shards, len(all_slots(joined)))
            jobs = [TimeEngine(shards=tuple(share)) for share in shares]
            seconds = measure_at_once(nodes, joined, jobs)
    rows = [sum(shard.num_rows for shard in share) for share in shares]
    return sum(r / s for r, s in zip(rows, seconds, strict=True))


def deal_shards(shards: Sequence[Shard], num_shares: int) -> list[list[Shard]]:
    """Deal shares of about equal predicted cost: each shard goes to the share with the least."""
    shares: list[list[Shard]] = [[] for _ in range(num_shares)]
    for shard in sorted(shards, key=lambda shard: -shard.predicted_s):
        min(shares, key=lambda share: sum(s.predicted_s for s in share)).append(shard)
    return shares
