"""What Ray says of its nodes: which there are, and what is free on them.

    Ray's control store -> [cluster_state] -> ray_nodes

This module starts nothing.
"""

from dataclasses import dataclass

import ray
from ray.autoscaler.v2.sdk import get_cluster_status

from fastformers.cluster.nodes.spot_notices import draining_nodes


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """A node that is alive.

    Attributes:
        id: Ray's identifier.
        hostname: Host name.
        num_cpus: CPUs that it has in Ray; none for a head that is not to work.
        free_cpus: Those that no other work holds.
        is_draining: Whether Ray is taking it away.
    """

    id: str
    hostname: str
    num_cpus: float
    free_cpus: float
    is_draining: bool = False


def list_nodes() -> list[NodeState]:
    """The nodes that are alive, as the control store says."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    draining = draining_nodes()
    free = {
        node.node_id: float(node.available_resources().get("CPU", 0.0))
        for node in (*status.active_nodes, *status.idle_nodes)
    }
    return [
        NodeState(
            id=node["NodeID"],
            hostname=node["NodeManagerHostname"],
            num_cpus=float(node["Resources"].get("CPU", 0.0)),
            free_cpus=free.get(node["NodeID"], 0.0),
            is_draining=node["NodeID"] in draining,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def list_own_nodes() -> list[NodeState]:
    """The one node of a cluster that this process started: all of its CPUs are for this run."""
    return [
        NodeState(
            id=node["NodeID"],
            hostname=node["NodeManagerHostname"],
            num_cpus=float(node["Resources"].get("CPU", 0.0)),
            free_cpus=float(node["Resources"].get("CPU", 0.0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
