"""A Ray cluster of several nodes on this machine, which obeys lines on stdin: `cluster_host.py N`.

`add` makes a node join, `add OPTIONS` one with other options: a JSON object of arguments of Ray's
`add_node`, and "cores", the only ones that its processes may use. `remove I` makes the I-th leave
without a word. Each answer is a line of JSON. The head is not to work.
"""

import json
import os
import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def add_node(cluster, *, cores=None, **options):
    """Add a node, whose processes are born with the affinity of this one."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or everywhere)
    try:
        return cluster.add_node(**{**NODE, **options})
    finally:
        os.sched_setaffinity(0, everywhere)


def main(num_nodes):
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    nodes = [add_node(cluster) for _ in range(int(num_nodes))]
    print(json.dumps({"address": cluster.address, "num_nodes": len(nodes)}), flush=True)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        answer = {}
        try:
            if verb == "add":
                nodes.append(add_node(cluster, **json.loads(rest or "{}")))
                answer["node"] = nodes[-1].node_id
            else:
                cluster.remove_node(nodes.pop(int(rest)), allow_graceful=False)
        except Exception as error:  # a fault may have ended Ray's daemons before
            answer["error"] = repr(error)
        print(json.dumps({**answer, "num_nodes": len(nodes)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
