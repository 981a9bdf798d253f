"""Simulate a run event by event: driver, supervisors, actors, store, and what fails of them.

    work, machines, scheduling, store + seed -> [simulation] -> seconds, what was lost

One driver serves the calls of all nodes, one after the other, and each costs it CPU time. A
supervisor has one call open: it answers with a batch of outcomes when it has gathered them for a
moment, or when it has little left to do, and gets shards in return. Actors start at different
times, read the next shard while they compute, and die; nodes differ in speed and are taken away,
with what they did. When nothing waits, shards are taken back from nodes that have some left, and
one that takes much too long is given to a second actor.

This checks the closed formula of planned clusters, and continues measured curves past the machine.
It knows nothing of Ray and prices, and computes nothing but time.
"""

import heapq
import math
from collections import deque

import numpy as np

from fastformers.cluster.scaling.cluster_model import (
    Machines,
    Scheduling,
    SimulatedRun,
    Store,
    Work,
    work_after,
)
from fastformers.cluster.scaling.simulated_parts import Draws, SimulatedDriver, SimulatedStore

# Kinds of events. Where several happen at one moment, the first of these is handled first.
_DONE, _DIES, _LATE, _ANSWER, _ARRIVE, _ACTOR_UP, _NODE_UP, _NODE_LOST, _RETURN = range(9)
_NOWHERE = -1


def simulate(
    work: Work,
    machines: Machines,
    scheduling: Scheduling | None = None,
    store: Store | None = None,
    *,
    seed: int = 0,
) -> SimulatedRun:
    """Run all shards of a job.

    Args:
        work: The shards, and how their times differ from what was predicted.
        machines: Nodes and actors.
        scheduling: Cost and habits of driver and supervisors; None for free ones.
        store: Where shards are; None for one that answers at once.
        seed: Seed of all random numbers.
    """
    return _Simulation(work, machines, scheduling or Scheduling(), store or Store(), seed).run()


class _Simulation:
    """Events, and the state of driver, nodes and actors."""

    def __init__(
        self, work: Work, machines: Machines, scheduling: Scheduling, store: Store, seed: int
    ) -> None:
        self._work, self._machines = work, machines
        self._scheduling, self._store = scheduling, SimulatedStore(store)
        self._draws = Draws(work.ratios, seed)
        self._driver = SimulatedDriver(work, machines, scheduling)
        self._num_shards, self._mean_ratio = len(work.predicted_s), float(np.mean(work.ratios))
        num_actors, num_nodes = machines.num_actors, machines.num_nodes
        self._events: list[tuple[float, int, int, int]] = []  # moment, kind, who, life of its node
        # Nodes.
        self._slowness = self._draws.slowness(machines.node_sigma, num_nodes)
        self._life = [0] * num_nodes  # events of an earlier life are void
        self._buffers: list[deque[int]] = [deque() for _ in range(num_nodes)]
        self._num_buffered = 0
        self._mail: list[list[int]] = [[] for _ in range(num_nodes)]
        self._outcomes = [0] * num_nodes
        self._oldest = [0.0] * num_nodes  # when the first of them came
        self._answer_below = [0] * num_nodes
        self._held = [0] * num_nodes  # shards and slices that a node has and that are not done
        self._idle: list[dict[int, None]] = [{} for _ in range(num_nodes)]
        self._hungry: set[int] = set()  # nodes that asked, and the driver had nothing for
        self._asked = [math.inf] * num_nodes  # when the open call came; inf while none is open
        self._answers = [math.inf] * num_nodes  # when it will be answered
        self._supervisor_free = [0.0] * num_nodes
        self._returned: dict[int, list[int]] = {}
        # Actors.
        self._actor_slowness = self._draws.some_slow(
            machines.slow_share, machines.slow_factor, num_actors
        )
        self._job, self._next = [_NOWHERE] * num_actors, [_NOWHERE] * num_actors
        self._ready, self._began = [0.0] * num_actors, [0.0] * num_actors
        self._takes = [0.0] * num_actors  # seconds of the job, if the actor lives
        self._ends, self._first = [-1.0] * num_actors, [-1.0] * num_actors
        self._twins: dict[int, list[int]] = {}  # actors of a shard that two have
        self._late: deque[tuple[int, int]] = deque()  # actors whose shard takes long, and the shard
        # What came out.
        self._starts_S = [0.0] * self._num_shards
        self._ends_S = [-1.0] * self._num_shards
        self._num_done = self._interruptions = 0
        self._lost_s = 0.0

    def run(self) -> SimulatedRun:
        """Simulate until the last shard is done."""
        for node in range(self._machines.num_nodes):
            self._start_node(node, 0.0)
        handlers = {
            _LATE: self._look_at_late,
            _ANSWER: self._answer,
            _ARRIVE: self._arrive,
            _ACTOR_UP: self._actor_is_up,
            _NODE_UP: self._node_is_up,
            _NODE_LOST: self._lose_node,
            _RETURN: self._give_back,
        }
        events, ends, pop = self._events, self._ends, heapq.heappop
        now = 0.0
        while self._num_done < self._num_shards:
            now, kind, who, life = pop(events)
            if kind <= _DIES:
                if ends[who] == now:
                    (self._finish if kind == _DONE else self._die)(who, now)
            else:
                handlers[kind](who, life, now)
        return self._conclude(now)

    def _conclude(self, now: float) -> SimulatedRun:
        up_s = max(first for first in self._first if first >= 0)
        starts_S, ends_S = np.array(self._starts_S), np.array(self._ends_S)
        return SimulatedRun(
            wall_s=now,
            up_s=up_s,
            work_s=float(np.sum(self._work.predicted_s)),
            window_work_s=work_after(starts_S, ends_S, self._work.predicted_s, up_s),
            num_shards=self._num_done,
            interruptions=self._interruptions,
            lost_s=self._lost_s,
            driver_busy=(self._driver.used_s / now if now else 0.0) + self._driver.background,
            num_calls=self._driver.num_calls,
        )

    # Nodes that come and go.

    def _start_node(self, node: int, now: float) -> None:
        takes = self._draws.one_of(self._machines.node_startup_s)
        self._push(now + takes, _NODE_UP, node, self._life[node])

    def _node_is_up(self, node: int, life: int, now: float) -> None:
        for actor in self._machines.actors_of(node):
            takes = self._draws.one_of(self._machines.actor_startup_s)
            self._push(now + takes, _ACTOR_UP, actor, life)
        self._asked[node] = now
        self._plan_answer(node, now)
        lives_s = self._draws.lifetime_s(self._machines.interruptions_per_hour)
        if node > 0 and lives_s < math.inf:
            self._push(now + lives_s, _NODE_LOST, node, life)

    def _lose_node(self, node: int, life: int, now: float) -> None:
        if life != self._life[node]:
            return
        self._interruptions, self._life[node] = self._interruptions + 1, life + 1
        lost = [*self._mail[node], *self._buffers[node]]
        for actor in self._machines.actors_of(node):
            lost += self._drop_jobs(actor, now)
        self._num_buffered -= len(self._buffers[node])
        self._mail[node], self._outcomes[node], self._held[node] = [], 0, 0
        self._buffers[node].clear()
        self._idle[node].clear()
        self._hungry.discard(node)
        self._asked[node] = self._answers[node] = math.inf
        # What it had done and not yet reported is on disk, and is not done again.
        self._returned.setdefault(node, []).extend(lost)
        self._push(now + self._machines.noticed_after_s, _RETURN, node, 0)
        self._start_node(node, now)

    def _give_back(self, node: int, _: int, now: float) -> None:
        self._driver.put_back(self._returned.pop(node, []))
        self._feed(now)

    def _drop_jobs(self, actor: int, now: float) -> list[int]:
        """Take from an actor what it has; returns what nobody else does."""
        job = self._job[actor]
        jobs = [each for each in (job, self._next[actor]) if each != _NOWHERE]
        if job != _NOWHERE:
            worked_s = max(0.0, now - self._began[actor])
            if self._twins.pop(job, None) is not None:
                jobs.remove(job)
            else:
                worked_s -= self._driver.keep(job, worked_s, self._takes[actor])
            self._lost_s += worked_s
        self._job[actor] = self._next[actor] = _NOWHERE
        self._ends[actor] = -1.0
        return jobs

    # Driver and supervisors.

    def _plan_answer(self, node: int, now: float) -> None:
        """Decide when the open call of a node is answered: when it has outcomes to report and
        little to do, or has reported none for a while; or when it was never given anything."""
        if self._asked[node] == math.inf:
            return
        if self._outcomes[node]:
            is_low = self._held[node] < self._answer_below[node]
            when = now if is_low else self._oldest[node] + self._scheduling.report_within_s
            when = max(now, when)
        elif node not in self._hungry and (
            not self._held[node] or (self._idle[node] and not self._buffers[node])
        ):
            when = now
        else:
            return
        if when < self._answers[node]:
            self._answers[node] = when
            self._push(when, _ANSWER, node, self._life[node])

    def _answer(self, node: int, life: int, now: float) -> None:
        """A supervisor reports, and the driver gives it what it can hold."""
        if life != self._life[node] or self._answers[node] != now:
            return
        num_actors, num_idle = len(self._machines.actors_of(node)), len(self._idle[node])
        jobs, self._answer_below[node] = self._driver.choose(
            num_actors=num_actors, num_held=self._held[node], num_idle=num_idle
        )
        num_calls = 1
        if not jobs and num_idle and self._num_buffered:
            jobs, num_calls = self._take_back(), 2
        through = self._driver.serve(now, self._outcomes[node], num_calls=num_calls)
        self._outcomes[node] = 0
        self._asked[node] = self._answers[node] = math.inf
        self._mail[node] = jobs
        self._held[node] += len(jobs)
        num_messages = 2 * num_calls - 1
        self._push(through + self._scheduling.latency_s * num_messages, _ARRIVE, node, life)

    def _take_back(self) -> list[int]:
        """Half of what the node with the most shards left has not begun."""
        buffer = max(self._buffers, key=len)
        node = self._buffers.index(buffer)
        jobs = [buffer.pop() for _ in range(-(-len(buffer) // 2))]
        self._num_buffered -= len(jobs)
        self._held[node] -= len(jobs)
        return jobs

    def _arrive(self, node: int, life: int, now: float) -> None:
        """A call of the driver reaches a supervisor."""
        if life != self._life[node]:
            return
        self._asked[node] = now
        jobs, self._mail[node] = self._mail[node], []
        self._buffers[node].extend(jobs)
        self._num_buffered += len(jobs)
        if jobs:
            self._hungry.discard(node)
            for actor in list(self._idle[node]):
                self._feed_actor(node, actor, now)
            for actor in self._machines.actors_of(node):
                self._read_ahead(node, actor, now)
        else:
            self._hungry.add(node)
        self._plan_answer(node, now)

    def _feed(self, now: float) -> None:
        """Wake the nodes that the driver had nothing for, because it has something now."""
        for node in list(self._hungry):
            self._hungry.discard(node)
            self._plan_answer(node, now)

    # Actors.

    def _actor_is_up(self, actor: int, life: int, now: float) -> None:
        node = actor // self._machines.actors_per_node
        if life == self._life[node]:
            self._feed_actor(node, actor, now)

    def _feed_actor(self, node: int, actor: int, now: float) -> None:
        """Give an actor that has nothing a job, or let it wait."""
        buffer = self._buffers[node]
        if buffer:
            self._idle[node].pop(actor, None)
            self._num_buffered -= 1
            self._begin(node, actor, buffer.popleft(), self._send(node, now))
            self._read_ahead(node, actor, now)
            return
        self._idle[node][actor] = None
        self._repeat_late(now)
        self._plan_answer(node, now)

    def _read_ahead(self, node: int, actor: int, now: float) -> None:
        """Give an actor its next job while it does one, where more wait than there are actors."""
        if (
            self._scheduling.jobs_in_hand > 1
            and self._job[actor] != _NOWHERE
            and self._next[actor] == _NOWHERE
            and self._buffers[node]
            and self._num_buffered + len(self._driver) > self._machines.num_actors
        ):
            self._next[actor] = self._buffers[node].popleft()
            self._num_buffered -= 1
            self._ready[actor] = self._send(node, now)

    def _send(self, node: int, now: float) -> float:
        """Moment at which an actor has read the job that its supervisor sends it now."""
        sent = max(self._supervisor_free[node], now) + self._scheduling.supervisor_shard_s
        self._supervisor_free[node] = sent
        return self._store.read(sent)

    def _begin(self, node: int, actor: int, job: int, when: float) -> None:
        if job < self._num_shards:
            pace = self._driver.left_s[job] * self._slowness[node]
            ratio = self._draws.ratio(self._driver.num_left[job])
            takes = pace * ratio * self._actor_slowness[actor]
        else:
            pace = math.inf
            takes = self._work.slice_s * self._slowness[node] * self._actor_slowness[actor]
        self._compute(actor, job, when, takes)
        patience_s = self._scheduling.late_factor * pace * self._mean_ratio
        if takes > patience_s:
            self._push(when + patience_s, _LATE, actor, job)

    def _compute(self, actor: int, job: int, when: float, takes: float) -> None:
        self._job[actor] = job
        self._began[actor] = when
        if self._first[actor] < 0:
            self._first[actor] = when
        self._takes[actor] = takes
        lives_s, kind = self._draws.lifetime_s(self._machines.failures_per_hour), _DONE
        if lives_s < takes:
            takes, kind = lives_s, _DIES
        self._ends[actor] = when + takes
        heapq.heappush(self._events, (when + takes, kind, actor, 0))

    def _finish(self, actor: int, now: float) -> None:
        job, node = self._job[actor], actor // self._machines.actors_per_node
        if job < self._num_shards:
            self._starts_S[job], self._ends_S[job] = self._began[actor], now
            self._num_done += 1
        else:
            self._driver.add_cut(job)
        if not self._outcomes[node]:
            self._oldest[node] = now
        self._outcomes[node] += 1
        twins = self._twins.pop(job, None) if self._twins else None
        self._go_on(node, actor, now)
        for other in twins or ():
            if other != actor:
                self._lost_s += max(0.0, now - self._began[other])
                self._go_on(other // self._machines.actors_per_node, other, now)
        if job >= self._num_shards:
            self._feed(now)

    def _go_on(self, node: int, actor: int, now: float) -> None:
        """An actor is through with its job and takes the next."""
        self._job[actor], self._ends[actor] = _NOWHERE, -1.0
        self._held[node] -= 1
        ahead = self._next[actor]
        if ahead == _NOWHERE:
            self._feed_actor(node, actor, now)
            return
        self._next[actor] = _NOWHERE
        self._begin(node, actor, ahead, max(now, self._ready[actor]))
        self._read_ahead(node, actor, now)
        self._plan_answer(node, now)

    def _die(self, actor: int, now: float) -> None:
        """An actor dies; its supervisor starts another, and has its jobs done again."""
        node = actor // self._machines.actors_per_node
        num_had = (self._job[actor] != _NOWHERE) + (self._next[actor] != _NOWHERE)
        jobs = self._drop_jobs(actor, now)
        self._held[node] -= num_had - len(jobs)
        self._buffers[node].extendleft(jobs)
        self._num_buffered += len(jobs)
        for idle in list(self._idle[node]):
            self._feed_actor(node, idle, now)
        takes = self._draws.one_of(self._machines.actor_startup_s)
        self._push(now + takes, _ACTOR_UP, actor, self._life[node])

    # Shards that take too long.

    def _look_at_late(self, actor: int, job: int, now: float) -> None:
        if self._job[actor] == job and job not in self._twins:
            self._late.append((actor, job))
            self._repeat_late(now)

    def _repeat_late(self, now: float) -> None:
        """Give a second actor what takes too long, while actors are idle and nothing waits."""
        while self._late and not (len(self._driver) or self._num_buffered):
            node = next((node for node, idle in enumerate(self._idle) if idle), None)
            if node is None:
                return
            actor, job = self._late.popleft()
            if self._job[actor] != job or job in self._twins:
                continue
            other, _ = self._idle[node].popitem()
            self._twins[job] = [actor, other]
            self._held[node] += 1
            takes = self._driver.left_s[job] * self._mean_ratio * self._slowness[node]
            begins = self._driver.serve(now, 0) + self._scheduling.latency_s
            self._compute(other, job, begins, takes * self._actor_slowness[other])

    def _push(self, when: float, kind: int, who: int, life: int) -> None:
        heapq.heappush(self._events, (when, kind, who, life))
