"""How a run gets its nodes: connect to machines, then open nodes for the work of a job on them.

    run -> [connect] -> nodes

This module knows nothing of Ray: the nodes of a cluster and the one in this process are both handed
to a run as a `Connect`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.scheduling.nodes import Nodes
from fastformers.cluster.settings import ActorSettings


class OpenNodes(Protocol):
    """Opens nodes on the connected machines, and starts nothing."""

    def __call__(self, spec: WorkerSpec, actors: ActorSettings, *, cores_per_actor: int) -> Nodes:
        """Open nodes for the work of a job.

        Args:
            spec: Description of the work that all workers share.
            actors: What the user asked for.
            cores_per_actor: Physical cores of each worker.

        Raises:
            InputError: The machines do not have that many cores.
        """


# Connects to the machines at an address, or to this one, for as long as the block runs.
Connect = Callable[[str | None], AbstractContextManager[OpenNodes]]
