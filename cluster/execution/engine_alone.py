"""The engine alone: what a whole job would reach if only the kernel took time.

    prepared shards + actors -> [engine_alone] -> rows a second

The same actors on the same cores run the same batches as the job did, already tokenized and in
memory, and nothing else. What the job loses against that is reading, tokenizing, writing,
scheduling and idle cores.
"""

from collections.abc import Sequence

import ray

from cluster.execution.ray_pool import connect, plan_pool
from cluster.execution.run import ScoreRun
from cluster.settings import ActorSettings
from cluster.shards.layout import Shard
from cluster.shards.preparation import load_shards


def measure_engine_alone(score_run: ScoreRun, actors: ActorSettings) -> float:
    """Rows per second of all actors' engines, each on its share of the shards, all at once.

    Args:
        score_run: Its shards are prepared.
        actors: Who works.
    """
    shards = load_shards(score_run.shards)
    with connect(actors.address):
        pool = plan_pool(
            score_run.work(),
            num_actors=actors.num_actors,
            cores_per_actor=actors.cores_per_actor or 1,
            oversubscribe=actors.oversubscribe,
        )
        pool.start()
        try:
            shares = deal_shards(shards, len(pool.slots))
            running = [
                slot.actor.measure_engine.remote(share)
                for slot, share in zip(pool.slots, shares, strict=True)
            ]
            seconds = ray.get(running)
        finally:
            pool.stop()
    rows = [sum(shard.num_rows for shard in share) for share in shares]
    return float(sum(r / s for r, s in zip(rows, seconds, strict=True)))


def deal_shards(shards: Sequence[Shard], num_shares: int) -> list[list[Shard]]:
    """Shares of about equal predicted cost: each shard goes to the share with the least."""
    shares: list[list[Shard]] = [[] for _ in range(num_shares)]
    for shard in sorted(shards, key=lambda shard: -shard.predicted_s):
        min(shares, key=lambda share: sum(s.predicted_s for s in share)).append(shard)
    return shares
