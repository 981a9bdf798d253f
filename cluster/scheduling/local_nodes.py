"""Nodes in this process: each a pool with its supervisor, and no message that could get lost.

    driver -> orders -> [local_nodes] -> supervisors here -> reports -> driver

It serves work in this process, and measures the driver with pools that do nothing. This module
knows nothing of Ray.
"""

from collections.abc import Callable, Mapping

from fastformers.cluster.scheduling.nodes import Node, NodeEvent, NodeJoined, NodeReported, Orders
from fastformers.cluster.scheduling.pool import Pool
from fastformers.cluster.scheduling.supervisor import Supervisor

_POLL_S = 0.001


class LocalNodes:
    """Supervisors in this process; all join at once and none leaves."""

    num_starting = 0
    can_grow = False

    def __init__(
        self,
        pools: Mapping[Node, Pool],
        *,
        clock: Callable[[], float],
        timeout_s: float | None = None,
    ) -> None:
        """Plan nodes.

        Args:
            pools: Pool of each node.
            clock: Monotonic clock, in seconds.
            timeout_s: Seconds that a task may take; see `Supervisor`.
        """
        self._pools, self._clock, self._timeout_s = dict(pools), clock, timeout_s
        self._supervisors: dict[str, Supervisor] = {}
        self._asked: dict[str, Supervisor] = {}
        self._events: list[NodeEvent] = []

    def start(self) -> None:
        """Start the workers of all pools."""
        for node, pool in self._pools.items():
            pool.start()
            self._supervisors[node.id] = Supervisor(
                pool, clock=self._clock, timeout_s=self._timeout_s
            )
            self._events.append(NodeJoined(node=node))

    def exchange(self, node: str, orders: Orders) -> None:
        """Hand a node its orders."""
        self._asked[node] = self._supervisors[node]
        self._supervisors[node].accept(orders)

    def wait(self, timeout_s: float) -> list[NodeEvent]:
        """Let the nodes work until one has something to tell."""
        deadline = self._clock() + timeout_s
        while self._asked and not self._events:
            for node, supervisor in list(self._asked.items()):
                if supervisor.is_due():
                    del self._asked[node]
                    self._events.append(NodeReported(id=node, report=supervisor.report()))
            left_s = deadline - self._clock()
            if self._events or left_s <= 0:
                break
            alone = len(self._asked) == 1
            for supervisor in self._asked.values():
                supervisor.step(min(left_s, supervisor.time_left()) if alone else _POLL_S)
        events, self._events = self._events, []
        return events

    def release(self, node: str, reason: str | None) -> None:
        """Stop a node's workers."""
        self._asked.pop(node, None)
        del self._supervisors[node]
        for known in [known for known in self._pools if known.id == node]:
            self._pools.pop(known).stop()

    def stop(self) -> None:
        """Stop all workers."""
        for pool in self._pools.values():
            pool.stop()
