"""Connect to a Ray cluster, or start one on this machine, and open its nodes for the work of a job.

address -> [connect] -> Ray -> ClusterNodes -> run
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from fastformers.cluster.devices.cards import VISIBLE_CARDS
from fastformers.cluster.execution.connect import OpenNodes
from fastformers.cluster.execution.topology import discover_topology, plan_core_sets
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.nodes.admission import Admission, plan_admission
from fastformers.cluster.nodes.cluster_state import (
    KindsOfActors,
    NodeState,
    list_nodes,
    list_own_nodes,
)
from fastformers.cluster.nodes.membership import ClusterNodes
from fastformers.cluster.nodes.ray_pool import say_error
from fastformers.cluster.nodes.start import join_ray, start_ray
from fastformers.cluster.nodes.supervisor_actor import NodePlan, RaySupervisor
from fastformers.cluster.settings import ActorSettings
from fastformers.errors import InputError, ScoringError
from fastformers.inference.engine import Device

# Ray learns with a delay that actors have ended and that their CPUs are free.
_FREE_WITHIN_S, _FREE_POLL_S = 10.0, 0.1


@contextmanager
def connect(address: str | None) -> Iterator[OpenNodes]:
    """Use the Ray cluster at `address`, or a new one on this machine.

    Raises:
        InputError: No cluster answers there, it refuses the connection, or none starts here.
        ScoringError: Ray raised an error in the block.
    """
    if ray.is_initialized():
        yield Cluster(is_own=False)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        join_ray(address)
    else:
        start_ray()
    try:
        yield Cluster(is_own=not address)
    except RayError as error:
        raise ScoringError(
            f"Ray: {say_error(error)}; what is finished is kept, run the same command again"
        ) from error
    finally:
        ray.shutdown()


class Cluster:
    """Opens nodes of the connected cluster, one set after another."""

    def __init__(self, *, is_own: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        """Remember what is connected.

        Args:
            is_own: Whether this process started the cluster, on this machine, for itself alone.
            clock: Monotonic clock, in seconds.
        """
        self._is_own, self._clock = is_own, clock
        self._free_before: dict[str, float] = {}

    def __call__(
        self, spec: WorkerSpec, actors: ActorSettings, *, cores_per_actor: int
    ) -> ClusterNodes:
        """Open nodes for the work of a job; see `OpenNodes`.

        Raises:
            InputError: This machine does not have that many cores.
            BundleError: The bundle cannot score anything.
        """
        kinds = KindsOfActors(
            scorers=("cpu",) if spec.predictions is None else tuple(spec.scorings),
            prepares=spec.preparation is not None,
            cores_per_actor=cores_per_actor,
            actors_per_gpu=actors.actors_per_gpu,
            oversubscribe=actors.oversubscribe,
        )
        list_states = list_own_nodes if self._is_own else list_nodes
        if self._is_own and kinds.use_gpus:
            _check_gpus(list_own_nodes())
        elif self._is_own:
            plan_core_sets(
                discover_topology(),
                num_actors=actors.num_actors,
                cores_per_actor=cores_per_actor,
                oversubscribe=actors.oversubscribe,
            )
        else:
            self._wait_until_free()
        admissions: dict[Device, Admission] = {}
        if not self._is_own:
            admissions = {kind: plan_admission(spec, kind) for kind in kinds.devices}

        def launch(state: NodeState, *, name: str, num_actors: int | None) -> RaySupervisor:
            return RaySupervisor(
                NodePlan(
                    state=state,
                    name=name,
                    spec=spec,
                    admission=admissions.get(state.device),
                    num_actors=num_actors,
                    kinds=kinds,
                    timeout_s=actors.timeout_s,
                )
            )

        return ClusterNodes(
            launch,
            lambda: kinds.split(list_states()),
            num_actors=actors.num_actors,
            cores_per_actor=cores_per_actor,
            oversubscribe=actors.oversubscribe,
            can_grow=not self._is_own,
            num_nodes=actors.num_nodes,
            clock=self._clock,
        )

    def _wait_until_free(self) -> None:
        """Let Ray learn that the actors of nodes that were opened before have ended."""
        deadline = self._clock() + _FREE_WITHIN_S
        free = {state.id: state.free_cpus for state in list_nodes()}
        while self._clock() < deadline and any(
            free.get(node, before) < before for node, before in self._free_before.items()
        ):
            time.sleep(_FREE_POLL_S)
            free = {state.id: state.free_cpus for state in list_nodes()}
        self._free_before = free


def _check_gpus(states: Iterable[NodeState]) -> None:
    """Refuse to wait for GPUs of this machine that are not there.

    Raises:
        InputError: Ray sees none.
    """
    if not any(state.num_gpus for state in states):
        visible = os.environ.get(VISIBLE_CARDS)
        hidden = "" if visible is None else f" ({VISIBLE_CARDS} is {visible!r})"
        raise InputError(
            f"--device cuda: Ray finds no GPU on this machine{hidden}; see nvidia-smi, name a "
            "cluster with --address, or leave --device out to score on cores"
        )
