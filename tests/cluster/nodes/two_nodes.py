"""A job on two Ray nodes, one of which then leaves: `two_nodes.py CORPUS BUNDLE OUTPUT`.

The last line of stdout is one JSON object with what the pool said. Both nodes are on this machine,
so that their actors share its cores.
"""

import json
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from cluster.execution.job import open_score_job
from cluster.execution.run import run_job
from cluster.nodes.ray_pool import connect
from cluster.scheduling.pool import running
from cluster.scheduling.work import MeasureRate
from cluster.settings import ActorSettings, CorpusSettings

NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
# A node that is silent for two seconds has left; Ray's own patience is about 20.
IMPATIENT = {"health_check_period_ms": 1000, "health_check_failure_threshold": 2}


def plan(corpus, bundle, output):
    return open_score_job(
        corpus,
        Path(bundle),
        output,
        CorpusSettings(shard_seconds=0.002),
        max_batch_tokens=256,
        fail_on_bad_row=False,
    )


def outcome_of(pool, ticket):
    """Waits for one job's outcome while no other job is under way."""
    while not (outcomes := pool.wait(60.0)):
        pass
    (outcome,) = outcomes
    assert outcome.ticket == ticket
    return outcome


def lose_a_node(pool, leaves, leave):
    """Where the jobs of a pool of two slots end when the node of one of them leaves.

    Returns:
        Names of the outcomes: of two jobs that were under way there, of further ones that its slot
        was given while the pool had it, and of one on the other node afterwards.
    """
    (stays,) = (slot for slot in pool.slots if slot != leaves)
    for slot in (stays, leaves):
        outcome_of(pool, pool.submit(slot, MeasureRate(seconds=0.01)))
    under_way = {pool.submit(leaves, MeasureRate(seconds=3600.0)) for _ in range(2)}
    leave()
    lost = []
    while len(lost) < 2:
        lost.extend(pool.wait(60.0))
    assert {outcome.ticket for outcome in lost} == under_way
    further = []
    while leaves in pool.slots:  # the cluster may learn of it later than the callers of an actor
        further.append(outcome_of(pool, pool.submit(leaves, MeasureRate(seconds=0.01))))
    after = outcome_of(pool, pool.submit(stays, MeasureRate(seconds=0.01)))
    assert pool.slots == [stays]
    return {
        "under_way": [type(outcome).__name__ for outcome in lost],
        "further": [type(outcome).__name__ for outcome in further],
        "after": type(after).__name__,
    }


def main(corpus, bundle, output):
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "include_dashboard": False, "_system_config": IMPATIENT},
    )
    node = cluster.add_node(**NODE)
    try:
        with connect(cluster.address) as plan_pool:
            job = plan(corpus, bundle, f"{output}/two")
            on_two = run_job(job, ActorSettings(num_actors=2), connect)
            pool, late_pool = (
                plan_pool(job.worker_spec(), num_actors=2, cores_per_actor=1, oversubscribe=False)
                for _ in range(2)
            )
            (leaves,) = (slot for slot in pool.slots if slot.host == node.node_id)
            with running(pool):
                ends = lose_a_node(
                    pool, leaves, lambda: cluster.remove_node(node, allow_graceful=False)
                )
            with running(late_pool):  # planned when the node was there
                late = outcome_of(late_pool, late_pool.submit(leaves, MeasureRate(seconds=0.01)))
            assert late_pool.slots == pool.slots
            job = plan(corpus, bundle, f"{output}/one")
            on_one = run_job(job, ActorSettings(num_actors=1), connect)
    finally:
        cluster.shutdown()
    seen = {
        **ends,
        "late": type(late).__name__,
        "num_machines": [on_two.num_machines, on_one.num_machines],
        "num_actors": [on_two.num_actors, on_one.num_actors],
        "num_shards": len(on_two.shards),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
