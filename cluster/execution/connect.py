"""How a run gets its workers: connect to machines, then plan a pool on them.

    run -> [connect] -> pool

This module knows nothing of Ray: the pool of a cluster and the one in this process are both handed
to a run as a `Connect`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from cluster.execution.worker import WorkerSpec
from cluster.scheduling.pool import Pool


class PlanPool(Protocol):
    """Plans a pool on the connected machines, and starts nothing."""

    def __call__(
        self,
        spec: WorkerSpec,
        *,
        num_actors: int | None,
        cores_per_actor: int,
        oversubscribe: bool,
    ) -> Pool:
        """Plan workers and the cores that they own.

        Args:
            spec: Description of the work that all workers share.
            num_actors: Workers over all machines; None for as many as fit.
            cores_per_actor: Physical cores of each worker.
            oversubscribe: Whether workers may share cores.

        Raises:
            InputError: The machines do not have that many cores, or they are busy.
        """


# Connects to the machines at an address, or to this one, for as long as the block runs.
Connect = Callable[[str | None], AbstractContextManager[PlanPool]]
