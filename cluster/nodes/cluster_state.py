"""What Ray says of its nodes: which there are, and what is free on them.

    Ray's control store -> [cluster_state] -> ray_nodes

A machine with GPUs becomes two nodes for a run that uses them: its GPUs with the cores of their
actors, and its other cores. This module starts nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_status

from fastformers.cluster.nodes.spot_notices import draining_nodes
from fastformers.inference.engine import Device

# Three batches are at a GPU at once, each gathered, moved and read by a thread, beside the reading
# and writing of shards: on one core an H200 was busy 39% of the time with the 4 x 312 student.
CORES_OF_GPU_ACTOR = 4


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """A node that is alive.

    Attributes:
        id: Ray's identifier.
        hostname: Host name.
        num_cpus: CPUs that it has in Ray; none for a head that is not to work.
        free_cpus: Those that no other work holds.
        is_draining: Whether Ray is taking it away.
        num_gpus: GPUs that it has in Ray.
        free_gpus: Those that no other work holds, no part of one.
        device: What computes for its actors.
        scores: Whether its actors score, and do not only prepare.
        machine: Ray's identifier of the machine.
        room: Actors that its free GPUs have room for; None where its cores decide.
    """

    id: str
    hostname: str
    num_cpus: float
    free_cpus: float
    is_draining: bool = False
    num_gpus: int = 0
    free_gpus: int = 0
    device: Device = "cpu"
    scores: bool = True
    machine: str = ""
    room: int | None = None

    @property
    def machine_id(self) -> str:
        """Identifier of the machine, also where it is one node."""
        return self.machine or self.id


@dataclass(frozen=True, kw_only=True)
class KindsOfActors:
    """Which actors a run starts on a machine.

    Attributes:
        scorers: Kinds of actors that score.
        prepares: Whether the run has texts to prepare, which actors on cores do.
        cores_per_actor: Physical cores that each actor owns.
        actors_per_gpu: Actors that share a GPU.
        oversubscribe: Whether actors may share cores, those on GPUs with others, too.
    """

    scorers: Collection[Device]
    prepares: bool
    cores_per_actor: int
    actors_per_gpu: int = 1
    oversubscribe: bool = False

    @property
    def use_gpus(self) -> bool:
        """Whether actors on GPUs score."""
        return "cuda" in self.scorers

    @property
    def devices(self) -> Collection[Device]:
        """Kinds of actors."""
        return dict.fromkeys((*self.scorers, *(("cpu",) if self.prepares else ())))

    def cores_per_gpu(self, state: NodeState) -> int:
        """Cores that the actors of a GPU own together; half of a machine's stay for others."""
        half = int(state.num_cpus) // (2 * state.num_gpus)
        asked = self.actors_per_gpu * self.cores_per_actor
        return max(asked, min(self.actors_per_gpu * CORES_OF_GPU_ACTOR, half))

    def split(self, states: Iterable[NodeState]) -> list[NodeState]:
        """The machines as nodes of one kind each; those on GPUs come first.

        Actors on GPUs own cores, too, which the node of the other cores does not have.
        """
        if not self.use_gpus:
            return list(states)
        scores = "cpu" in self.scorers
        on_gpus: list[NodeState] = []
        on_cores: list[NodeState] = []
        for state in states:
            cpus = 0.0
            if state.num_gpus:
                if not self.oversubscribe:
                    cpus = min(state.free_cpus, state.free_gpus * self.cores_per_gpu(state))
                on_gpus.append(
                    replace(
                        state,
                        id=f"{state.id}/cuda",
                        hostname=f"{state.hostname}:cuda",
                        free_cpus=cpus,
                        device="cuda",
                        machine=state.id,
                        room=state.free_gpus * self.actors_per_gpu,
                    )
                )
            if scores or self.prepares:
                left = state.free_cpus - cpus
                on_cores.append(replace(state, free_cpus=left, scores=scores, machine=state.id))
        return on_gpus + on_cores


def list_nodes() -> list[NodeState]:
    """The nodes that are alive, as the control store says."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    draining = draining_nodes()
    free = {
        node.node_id: node.available_resources()
        for node in (*status.active_nodes, *status.idle_nodes)
    }
    return [
        replace(
            _state_of(node, free.get(node["NodeID"], {})), is_draining=node["NodeID"] in draining
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def list_own_nodes() -> list[NodeState]:
    """The one node of a cluster that this process started: all of it is for this run."""
    return [_state_of(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _state_of(node: Mapping[str, Any], free: Mapping[str, float]) -> NodeState:
    return NodeState(
        id=node["NodeID"],
        hostname=node["NodeManagerHostname"],
        num_cpus=float(node["Resources"].get("CPU", 0.0)),
        free_cpus=float(free.get("CPU", 0.0)),
        num_gpus=int(node["Resources"].get("GPU", 0.0)),
        free_gpus=int(free.get("GPU", 0.0)),
    )
