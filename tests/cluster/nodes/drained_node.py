"""Two nodes that Ray drains while they work; the last line of stdout is one JSON object."""

import json

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastformers.cluster.nodes.spot_notices import draining_nodes

NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
NOW_S = 4102444800  # as deadlines are absolute, the test brings its own time: 2100-01-01


@ray.remote(num_cpus=1)
class Busy:
    """Keeps a node from being idle; Ray ends idle nodes that it drains at once."""

    def work(self):
        return "works"


def start_actor(node):
    place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return Busy.options(scheduling_strategy=place).remote()


def drain(node, deadline_ms):
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    accepted, reason = client.drain_node(
        node.node_id, DRAIN_NODE_REASON_PREEMPTION, "the test's notice", deadline_ms
    )
    assert accepted, reason


def main():
    head = {"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node, other = cluster.add_node(**NODE), cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        actors = [start_actor(node), start_actor(other)]
        ray.get([actor.work.remote() for actor in actors])
        seen = {"node": node.node_id, "other": other.node_id, "before": draining_nodes()}
        drain(node, (NOW_S + 90) * 1000)
        seen["after"] = draining_nodes(lambda: NOW_S)
        seen["late"] = draining_nodes(lambda: NOW_S + 91)
        seen["old_actor"] = ray.get(actors[0].work.remote())
        try:
            ray.get(start_actor(node).work.remote(), timeout=60)
        except ray.exceptions.RayError as error:
            seen["new_actor"] = type(error).__name__
        drain(other, 0)
        seen["without_deadline"] = draining_nodes(lambda: NOW_S)
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
