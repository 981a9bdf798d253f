"""Simulate a plan shard by shard, to check the closed formula that predicts it.

    plan + seed -> [simulation] -> seconds, USD, interruptions

Machines start at different times, some are slower than others, shards of one predicted cost take
different times and a few take much longer, spot machines are taken away with what they were doing,
which goes back to the queue, and a replacement has to start. Nothing of the plan's formula is used.
The tests of the formula call this; no command does. This module knows nothing of Ray, and computes
nothing but time.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.cost.cluster_plan import SHARD_SIGMA, MachineOffer, PlanSettings

_ACTOR_DONE, _MACHINE_LOST, _MACHINE_UP = 0, 1, 2
_DRAWS = 65_536  # random numbers that are drawn at a time


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What differs from the plan in a simulated run; all spreads are sigmas of lognormals.

    Attributes:
        shard_sigma: Spread of the time of a shard.
        machine_sigma: Spread of the speed of a machine.
        startup_sigma: Spread of the time that a machine takes to start.
        straggler_share: Share of shards that take much longer.
        straggler_factor: Factor by which these take longer.
    """

    shard_sigma: float = SHARD_SIGMA
    machine_sigma: float = 0.05
    startup_sigma: float = 0.3
    straggler_share: float = 0.001
    straggler_factor: float = 4.0


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """Result of a simulated run.

    Attributes:
        wall_s: Seconds from asking for machines to the end of the last shard.
        usd_total: Price of all machines for that time; a lost machine is paid for throughout.
        interruptions: Number of machines taken away.
        lost_s: Actor-seconds of work that was lost with them.
        num_shards: Number of shards that were done.
    """

    wall_s: float
    usd_total: float
    interruptions: int
    lost_s: float
    num_shards: int


def simulate_run(
    offer: MachineOffer,
    num_instances: int,
    settings: PlanSettings,
    *,
    noise: Noise | None = None,
    seed: int = 0,
) -> SimulatedRun:
    """Run all shards of a job on a cluster.

    Args:
        offer: Type of its machines, and the job.
        num_instances: Machines; the first is the head, which is never taken away.
        settings: Start-up and interruptions.
        noise: Differences from the plan; None for the default ones.
        seed: Seed of all random numbers.
    """
    return _Cluster(offer, num_instances, settings, noise or Noise(), seed).run()


class _Cluster:
    """Machines, their actors and a queue of equal shards."""

    def __init__(
        self,
        offer: MachineOffer,
        num_instances: int,
        settings: PlanSettings,
        noise: Noise,
        seed: int,
    ) -> None:
        self._offer, self._settings, self._noise = offer, settings, noise
        self._rng = np.random.default_rng(seed)
        self._num = num_instances
        self._slowness = self._factors(noise.machine_sigma, num_instances).tolist()
        self._life = [0] * num_instances  # counts replacements: events of an earlier life are void
        self._doing: list[dict[int, float]] = [{} for _ in range(num_instances)]
        self._events: list[tuple[float, int, int, int, int]] = []
        self._queued = self._total = offer.num_shards
        self._mean_shard_s = offer.job_s * offer.num_actors / offer.num_shards
        self._idle: dict[int, set[int]] = {machine: set() for machine in range(num_instances)}
        self._durations: list[float] = []
        self._lost_s = 0.0
        self._interruptions = 0

    def run(self) -> SimulatedRun:
        """Simulate until the last shard is done."""
        for machine in range(self._num):
            self._start(machine, 0.0)
        done = 0
        now = 0.0
        while done < self._total:
            now, kind, machine, life, actor = heapq.heappop(self._events)
            if life != self._life[machine]:
                continue
            if kind == _ACTOR_DONE:
                done += 1
                del self._doing[machine][actor]
                self._lease(machine, actor, now)
            elif kind == _MACHINE_UP:
                for each in range(self._offer.num_actors):
                    self._lease(machine, each, now)
                self._schedule_interruption(machine, now)
            else:
                self._lose_machine(machine, now)
        usd_per_hour = self._offer.usd_per_hour + (self._num - 1) * self._offer.worker_usd_per_hour
        return SimulatedRun(
            wall_s=now,
            usd_total=now / 3600 * usd_per_hour,
            interruptions=self._interruptions,
            lost_s=self._lost_s,
            num_shards=done,
        )

    def _start(self, machine: int, now: float) -> None:
        takes = self._settings.startup_s * float(self._factors(self._noise.startup_sigma, 1)[0])
        self._push(now + takes, _MACHINE_UP, machine, 0)

    def _schedule_interruption(self, machine: int, now: float) -> None:
        rate = self._settings.interruptions_per_hour / 3600
        if self._settings.spot and machine > 0 and rate > 0:
            self._push(now + self._rng.exponential(1 / rate), _MACHINE_LOST, machine, 0)

    def _lose_machine(self, machine: int, now: float) -> None:
        self._interruptions += 1
        self._life[machine] += 1
        lost = len(self._doing[machine])
        self._lost_s += sum(now - began for began in self._doing[machine].values())
        self._doing[machine].clear()
        self._idle[machine].clear()
        self._queued += lost
        self._start(machine, now)
        self._wake(now)

    def _wake(self, now: float) -> None:
        """Give shards that came back to actors that were idle."""
        for machine, idle in self._idle.items():
            while self._queued and idle:
                self._lease(machine, idle.pop(), now)

    def _lease(self, machine: int, actor: int, now: float) -> None:
        if not self._queued:
            self._idle[machine].add(actor)
            return
        self._queued -= 1
        self._doing[machine][actor] = now
        if not self._durations:
            self._durations = self._draw_durations()
        self._push(
            now + self._durations.pop() * self._slowness[machine], _ACTOR_DONE, machine, actor
        )

    def _push(self, when: float, kind: int, machine: int, actor: int) -> None:
        heapq.heappush(self._events, (when, kind, machine, self._life[machine], actor))

    def _draw_durations(self) -> list[float]:
        """Seconds of shards; their mean is the predicted one, and stragglers add to it."""
        factors = self._factors(self._noise.shard_sigma, _DRAWS)
        slow = self._rng.random(_DRAWS) < self._noise.straggler_share
        factors[slow] *= self._noise.straggler_factor
        return [float(value) for value in factors * self._mean_shard_s]

    def _factors(self, sigma: float, num: int) -> NDArray[np.float64]:
        """Lognormal factors with a mean of 1."""
        factors: NDArray[np.float64] = np.exp(sigma * self._rng.standard_normal(num) - sigma**2 / 2)
        return factors
