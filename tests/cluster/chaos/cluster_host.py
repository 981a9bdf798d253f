"""A Ray cluster of several nodes on this machine, which obeys lines on stdin: `cluster_host.py N`.

`add` makes a node join, `remove I` makes the I-th leave without a word. Each answer is a line of
JSON. The head is not to work.
"""

import json
import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def main(num_nodes):
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(**NODE) for _ in range(int(num_nodes))]
    print(json.dumps({"address": cluster.address, "num_nodes": len(nodes)}), flush=True)
    for line in sys.stdin:
        verb, *number = line.split()
        try:
            if verb == "add":
                nodes.append(cluster.add_node(**NODE))
            else:
                cluster.remove_node(nodes.pop(int(number[0])), allow_graceful=False)
            answer = {"num_nodes": len(nodes)}
        except Exception as error:  # a fault may have ended Ray's daemons before
            answer = {"num_nodes": len(nodes), "error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
