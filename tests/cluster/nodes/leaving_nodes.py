"""A job whose nodes are taken away by Ray and by a cloud: `leaving_nodes.py JOB OUTPUT HOST`.

JOB is a JSON object: corpus, bundle, shard_seconds. HOST is the address of a metadata service that
announces the end of the machine. One node is drained from the start, one gets the notice, and one
joins when that one leaves. The last line of stdout is one JSON object with what happened. All nodes
are on this machine; the head is not to work.
"""

import json
import logging
import sys
from pathlib import Path

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.cluster.nodes.cluster_state import list_nodes
from fastformers.cluster.nodes.connect import connect
from fastformers.cluster.nodes.ray_pool import RayPool
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import MeasureRate, Task, Ticket
from fastformers.cluster.settings import ActorSettings, CorpusSettings

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
FAR_MS = 4102444800000  # the start of 2100; Ray itself ends no node before its deadline


def open_job(what, output):
    return open_score_job(
        what["corpus"],
        Path(what["bundle"]),
        output,
        CorpusSettings(shard_seconds=what["shard_seconds"]),
        max_batch_tokens=256,
    )


def drain(node):
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    return client.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "the test's notice", FAR_MS)


def lose_actor_on_drained_node(job, node):
    """What a pool says whose node takes no new actors, when its only actor dies."""
    [core_set] = plan_core_sets(
        discover_topology(), num_actors=1, cores_per_actor=1, oversubscribe=False
    )
    slot = Slot(name="drained:0")
    pool = RayPool(job.worker_spec(), {slot: core_set}, node=node)
    pool.start()
    said = []

    def run(number, seconds):
        pool.submit(slot, [Task(ticket=Ticket(number), job=MeasureRate(seconds=seconds))])

    def outcome():
        while not (outcomes := pool.wait(60.0)):
            pass
        [ended] = outcomes
        said.append([type(ended).__name__, getattr(ended, "is_charged", None)])

    run(0, 0.01)
    outcome()
    drain(node)
    states = {state.id: state.is_draining for state in list_nodes()}
    run(1, 3600.0)
    pool.kill(Ticket(1))
    outcome()
    attempt = 2
    while pool.slots:  # Ray may still create one until all of it knows that the node leaves
        run(attempt, 0.01)
        outcome()
        attempt += 1
    return {
        "outcomes": said,
        "trouble": pool.trouble,
        "draining": [node for node, is_draining in states.items() if is_draining],
    }


def main(what, output, host):
    what = json.loads(what)
    lines, joined = [], []

    def emit(record):
        lines.append(record.getMessage())
        if "it gets no more work" in lines[-1]:  # Ray adds nodes in the main thread alone
            joined.append(cluster.add_node(**NODE))

    handler = logging.Handler()
    handler.emit = emit
    logging.getLogger("fastformers.cluster").addHandler(handler)
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    drained = cluster.add_node(**NODE)
    try:
        with connect(cluster.address):
            lost = lose_actor_on_drained_node(open_job(what, f"{output}/pool"), drained.node_id)
            goes = cluster.add_node(**NODE, env_vars={"GCE_METADATA_HOST": host})
            result = run_job(open_job(what, f"{output}/job"), ActorSettings(), connect)
    finally:
        cluster.shutdown()
    [stays] = joined
    uses = {use.node: [use.instance_type, use.reason] for use in result.nodes}
    print(
        json.dumps(
            {
                **lost,
                "drained": drained.node_id,
                "nodes": sorted(uses),
                "expected": sorted([stays.node_id, goes.node_id]),
                "stays": uses.get(stays.node_id),
                "goes": uses.get(goes.node_id),
                "num_retries": result.tally.num_retries,
                "lines": lines,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
