"""The nodes of a cluster: found when they join, watched while they work, missed when they go.

    driver -> orders -> [membership] -> a supervisor on each node -> reports -> driver

Ray is asked every few seconds which nodes there are and what is free on them. A node that is new
and has free CPUs gets a supervisor; when that is ready, the node has joined. A supervisor that
dies, or does not answer in time, has left. Exactly one call a node is under way, and its end comes
by callback, so nothing here grows with the number of actors. Ray itself is behind two functions
that are handed in.
"""

import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fastformers.cluster.nodes.cluster_state import NodeState
from fastformers.cluster.scheduling.nodes import (
    Node,
    NodeEvent,
    NodeJoined,
    NodeLeft,
    NodeRefused,
    NodeReport,
    NodeReported,
    Orders,
)
from fastformers.errors import InputError

logger = logging.getLogger(__name__)

_ASK_EVERY_S = 2.0
# A node is lost when it has not answered for this long after it should have.
_SILENT_S = 6.0
_START_WITHIN_S = 300.0
# Ray must say within this time which nodes it has; afterwards they go on without it.
_LISTED_WITHIN_S = 60.0
# A node that was lost and is there again is used again, but not for ever.
_MAX_LOSSES = 2
_FREE_WITHIN_S = 15.0


class SupervisorHandle(Protocol):
    """A supervisor on a node."""

    def start(self) -> "Future[Node]":
        """Ask it to get ready."""

    def exchange(self, orders: Orders) -> "Future[NodeReport]":
        """Send it orders."""

    def explain(self, error: BaseException) -> str:
        """What an error of one of its calls says, in one line."""

    def is_verdict(self, error: BaseException) -> bool:
        """Whether an error says that the node cannot work, and not just that it died."""

    def kill(self) -> None:
        """End it, and its actors with it."""


class Launch(Protocol):
    """Starts a supervisor on a node."""

    def __call__(self, state: NodeState, *, name: str, num_actors: int | None) -> SupervisorHandle:
        """Start it.

        Args:
            state: What the cluster says of the node.
            name: Name of the node in reports.
            num_actors: Actors that it should have; None for as many as fit.
        """


@dataclass
class _Member:
    """A node with a supervisor.

    Attributes:
        node: Identifier of the node.
        name: Name of the node.
        supervisor: Its supervisor.
        seen: Clock reading when its CPUs were first free; None for the start of the run.
        num_actors: Actors that were asked of it.
        state: What the cluster said of it.
        has_joined: Whether the supervisor is ready.
        due: Clock reading by which its call under way must have ended; None without a call.
        future: The call under way.
    """

    node: str
    name: str
    supervisor: SupervisorHandle
    seen: float | None
    num_actors: int
    state: NodeState
    has_joined: bool = False
    due: float | None = None
    future: "Future[Any] | None" = None


class ClusterNodes:
    """Nodes of the connected cluster, each with a supervisor."""

    def __init__(
        self,
        launch: Launch,
        list_nodes: Callable[[], list[NodeState]],
        *,
        num_actors: int | None,
        cores_per_actor: int,
        oversubscribe: bool,
        can_grow: bool,
        num_nodes: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Plan to use the cluster.

        Args:
            launch: Function that starts a supervisor on a node.
            list_nodes: Function that asks the cluster which nodes there are; it may take long.
            num_actors: Actors that score, over all nodes; None for as many as fit.
            cores_per_actor: Physical cores of each actor.
            oversubscribe: Whether actors may share cores.
            can_grow: Whether nodes may join; False for a cluster of this run's own, whose CPUs are
                all for this run.
            num_nodes: Machines to use at once; None for all.
            clock: Monotonic clock, in seconds.
        """
        self._launch, self._list_nodes, self._clock = launch, list_nodes, clock
        self._num_actors, self._cores_per_actor = num_actors, cores_per_actor
        self._oversubscribe, self.can_grow, self._num_nodes = oversubscribe, can_grow, num_nodes
        self._members: dict[str, _Member] = {}
        self._num_losses: Counter[str] = Counter()
        self._unfit: set[str] = set()
        self._draining: set[str] = set()
        # Actors of lost nodes, and when they were lost.
        self._held: dict[str, tuple[int, float]] = {}
        self._names: dict[str, str] = {}
        self._first_seen: dict[str, float | None] = {}
        self._inbox: queue.SimpleQueue[_Member | list[NodeState]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch_cluster, daemon=True)
        self._is_settled = False
        self._silence = "no answer"
        self._listed_by = math.inf
        self._last_wait = clock()

    @property
    def num_starting(self) -> int:
        """Nodes whose supervisor is not ready; at least 1 until Ray was first asked."""
        starting = sum(not member.has_joined for member in self._members.values())
        return starting if self._is_settled else max(1, starting)

    def start(self) -> None:
        """Begin to ask Ray which nodes there are."""
        self._listed_by = self._clock() + _LISTED_WITHIN_S
        self._watcher.start()

    def exchange(self, node: str, orders: Orders) -> None:
        """Send a node its orders; one that is lost by now gets none, and `wait` says so."""
        if (member := self._members.get(node)) is None:
            return
        self._call(member, member.supervisor.exchange(orders), orders.wait_s + _SILENT_S)

    def wait(self, timeout_s: float) -> list[NodeEvent]:
        """What happened, as soon as something did; an empty list after `timeout_s` seconds.

        Raises:
            InputError: Ray does not say which nodes it has.
        """
        self._forgive_absence()
        events: list[NodeEvent] = []
        try:
            message = self._inbox.get(timeout=timeout_s)
            while True:
                if isinstance(message, _Member):
                    events += self._take(message)
                else:
                    events += self._compare(message)
                message = self._inbox.get_nowait()
        except queue.Empty:
            pass
        if not self._is_settled and self._clock() > self._listed_by:
            raise InputError(
                f"Ray does not say which nodes it has, for {_LISTED_WITHIN_S:.0f} s "
                f"({self._silence}); see ray status, and run the same command again"
            )
        events += self._miss()
        self._last_wait = self._clock()
        return events

    def release(self, node: str, reason: str | None) -> None:
        """End a node's supervisor, and its actors with it."""
        if reason is not None:
            self._unfit.add(node)
        self._end(node)

    def stop(self) -> None:
        """End all supervisors."""
        self._stopped.set()
        for node in list(self._members):
            self._end(node)

    def _call(self, member: _Member, future: "Future[Any]", within_s: float) -> None:
        member.due = self._clock() + within_s
        member.future = future
        future.add_done_callback(lambda done: self._inbox.put(member))

    def _take(self, member: _Member) -> list[NodeEvent]:
        """Handle the end of a node's call."""
        node = member.node
        if member.future is None:
            return []  # given up before
        future, member.future, member.due = member.future, None, None
        error = future.exception()
        if error is not None:
            reason = member.supervisor.explain(error)
            if member.has_joined:
                return self._lose_joined(node, reason)
            if member.supervisor.is_verdict(error) or self._num_losses[node] >= _MAX_LOSSES:
                return [self._give_up(node, reason)]
            self._lose(node, reason)  # it is tried again
            return []
        answer: Node | NodeReport = future.result()
        if isinstance(answer, Node):
            member.has_joined = True
            member.num_actors = len(answer.slots)
            return [NodeJoined(node=answer, seen=member.seen)]
        if node in self._draining and answer.leaving is None:
            answer = replace(answer, leaving="Ray is taking it away")
        return [NodeReported(id=node, report=answer)]

    def _compare(self, states: list[NodeState]) -> list[NodeEvent]:
        """Handle what Ray says of its nodes: miss some, begin to use others."""
        alive = {state.id for state in states}
        self._draining = {state.id for state in states if state.is_draining}
        events: list[NodeEvent] = [
            self._lose(node, "Ray has lost it")
            if member.has_joined
            else self._give_up(node, "Ray has lost it")
            for node, member in list(self._members.items())
            if node not in alive
        ]
        new = [
            state
            for state in sorted(states, key=lambda state: (state.device == "cpu", state.id))
            if state.id not in self._members
            and state.id not in self._unfit
            and not state.is_draining
            and self._is_free(state)
        ]
        self._begin_some(self._of_few_machines(new))
        self._is_settled = True
        return events

    def _of_few_machines(self, new: list[NodeState]) -> list[NodeState]:
        """New nodes of as many machines as may be used at once."""
        if self._num_nodes is None:
            return new
        used = {member.state.machine_id for member in self._members.values()}
        chosen = []
        for state in new:
            if state.machine_id in used or len(used) < self._num_nodes:
                used.add(state.machine_id)
                chosen.append(state)
        return chosen

    def _begin_some(self, new: list[NodeState]) -> None:
        """Start supervisors on new nodes, with the actors that may be started yet."""
        left = None
        if self._num_actors is not None:
            scoring = [member for member in self._members.values() if member.state.scores]
            left = self._num_actors - sum(member.num_actors for member in scoring)
        num_places = Counter(state.device for state in new if state.scores)
        for state in new:
            if left is None or not state.scores:
                self._begin(state, None)
                continue
            share = -(-left // num_places[state.device])
            num_places[state.device] -= 1
            if state.room is not None or not self._oversubscribe:
                share = min(share, self._num_fitting(state))
            if share > 0:
                self._begin(state, share)
                left -= share

    def _begin(self, state: NodeState, num_actors: int | None) -> None:
        """Start a supervisor on a node."""
        if not self._oversubscribe and self.can_grow:
            fit = self._num_fitting(state)
            num_actors = fit if num_actors is None else min(num_actors, fit)
        name = self._name(state)
        supervisor = self._launch(state, name=name, num_actors=num_actors)
        # One that other work holds, or that is not wanted yet, does not cost this run.
        seen = self._first_seen.setdefault(state.id, self._clock() if self._is_settled else None)
        member = _Member(state.id, name, supervisor, seen, num_actors or 0, state)
        self._members[state.id] = member
        self._call(member, supervisor.start(), _START_WITHIN_S)

    def _num_fitting(self, state: NodeState) -> int:
        """Actors that the free GPUs or cores of a node have room for."""
        return int(state.free_cpus) // self._cores_per_actor if state.room is None else state.room

    def _is_free(self, state: NodeState) -> bool:
        """Whether a node has room, also for the actors that it had when it was lost.

        Ray may not have learned yet of all that a lost node gave back. Actors that share cores find
        room on one.
        """
        num_actors, lost = self._held.get(state.id, (0, 0.0))
        expected = num_actors if self._clock() - lost < _FREE_WITHIN_S else 0
        if state.room is not None:
            return state.room >= max(1, expected)
        least_cpus = 1 if self._oversubscribe else self._cores_per_actor
        return state.free_cpus >= max(least_cpus, expected * self._cores_per_actor)

    def _name(self, state: NodeState) -> str:
        """Host name of a node, with a number where another has the same."""
        taken = {name for node, name in self._names.items() if node != state.id}
        if state.id not in self._names:
            name, number = state.hostname, 1
            while name in taken:
                number += 1
                name = f"{state.hostname}#{number}"
            self._names[state.id] = name
        return self._names[state.id]

    def _miss(self) -> list[NodeEvent]:
        """Nodes that should have answered long ago."""
        now = self._clock()
        late = [
            (node, member)
            for node, member in self._members.items()
            if member.due is not None and now > member.due
        ]
        events: list[NodeEvent] = []
        for node, member in late:
            if member.has_joined:
                events += self._lose_joined(node, f"it has not answered for {_SILENT_S:.0f} s")
            else:
                reason = f"it was not ready within {_START_WITHIN_S:.0f} s"
                events.append(self._give_up(node, reason))
        return events

    def _forgive_absence(self) -> None:
        """Give nodes more time where this process itself was away, stopped or short of CPU."""
        away_s = self._clock() - self._last_wait
        if away_s > 1.0:
            self._listed_by += away_s
            for member in self._members.values():
                if member.due is not None:
                    member.due += away_s

    def _lose(self, node: str, reason: str) -> NodeLeft:
        self._num_losses[node] += 1
        self._first_seen[node] = self._clock()  # from when it costs again, if it is used again
        self._held[node] = self._members[node].num_actors, self._clock()
        self._end(node)
        return NodeLeft(id=node, reason=reason)

    def _lose_joined(self, node: str, reason: str) -> list[NodeEvent]:
        """Lose a node that is still there; if that happens too often, it is left out."""
        name = self._members[node].name
        events: list[NodeEvent] = [self._lose(node, reason)]
        if (times := self._num_losses[node]) > _MAX_LOSSES:
            self._unfit.add(node)
            events.append(NodeRefused(name=name, reason=f"lost {times} times, at last: {reason}"))
        return events

    def _give_up(self, node: str, reason: str) -> NodeRefused:
        name = self._members[node].name
        self._unfit.add(node)
        self._end(node)
        return NodeRefused(name=name, reason=reason)

    def _end(self, node: str) -> None:
        if (member := self._members.pop(node, None)) is not None:
            member.future = None
            member.supervisor.kill()

    def _watch_cluster(self) -> None:
        """Ask Ray again and again, in a thread of its own: the answer may take long."""
        while not self._stopped.is_set():
            try:
                self._inbox.put(self._list_nodes())
            except Exception as error:  # Ray's control store is away: nodes go on without it
                logger.debug("Ray does not say which nodes it has: %s", error)
                self._silence = " ".join(str(error).split())[:300]
            self._stopped.wait(_ASK_EVERY_S)
