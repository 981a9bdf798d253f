"""The driver of a simulated run: what waits, whom it is given, and the time that this costs.

    shards, slices -> [simulated_driver] -> jobs of a node's call, moment of its answer

Jobs are numbers: shards first, then slices. This module knows nothing of events and actors.
"""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cluster.scaling.cluster_model import Machines, Scheduling, Work

_DRAWS = 65_536  # random numbers that are drawn at a time


class SimulatedDriver:
    """A queue of shards and slices, and one server that handles calls in their order."""

    def __init__(self, work: Work, machines: Machines, scheduling: Scheduling) -> None:
        self.num_shards = len(work.predicted_s)
        self.num_calls, self.used_s = 0, 0.0
        self._num_slices, self._slice_s = work.num_slices, work.slice_s
        self._predicted = work.predicted_s
        self._mean_ratio = float(np.mean(work.ratios))
        self._num_actors, self._num_nodes = machines.num_actors, machines.num_nodes
        self._scheduling = scheduling
        self._shards = deque(range(0 if work.num_slices else self.num_shards))
        self._slices = deque(range(self.num_shards, self.num_shards + work.num_slices))
        self._free_s = 0.0

    def __len__(self) -> int:
        """Number of jobs that wait."""
        return len(self._shards) + len(self._slices)

    def choose(self, *, num_actors: int, num_held: int, num_idle: int) -> list[int]:
        """Jobs for a node: what it can hold, or its share of what waits if that is less.

        Args:
            num_actors: Actors of the node.
            num_held: Jobs that it has.
            num_idle: Actors of it that have none.
        """
        num_waiting = len(self)
        if not num_waiting:
            return []
        if num_waiting > self._num_actors:
            first_s = float(self._predicted[self._shards[0]]) if self._shards else self._slice_s
            ahead_s = self._scheduling.ahead_s * num_actors / max(first_s * self._mean_ratio, 1e-6)
            wanted = num_actors * self._scheduling.jobs_in_hand + math.ceil(ahead_s) - num_held
        else:
            wanted = num_actors - num_held
        share = -(-num_waiting // self._num_nodes)
        return [self._pop() for _ in range(min(max(wanted, num_idle), share))]

    def serve(self, now: float, num_outcomes: int, *, num_calls: int = 1) -> float:
        """Handle calls that are sent now; returns the moment at which the driver is through."""
        costs = self._scheduling
        spent_s = costs.lease_s * num_calls + costs.shard_s * num_outcomes
        self._free_s = max(self._free_s, now + costs.latency_s) + spent_s
        self.used_s += spent_s
        self.num_calls += num_calls
        return self._free_s

    def put_back(self, jobs: Iterable[int]) -> None:
        """Jobs were lost; they are the next that are given."""
        for job in jobs:
            (self._shards if job < self.num_shards else self._slices).appendleft(job)

    def add_cut(self, job: int) -> None:
        """The shards of a slice are there."""
        slice_ = job - self.num_shards
        start, stop = (
            place * self.num_shards // self._num_slices for place in (slice_, slice_ + 1)
        )
        self._shards.extend(range(start, stop))

    def _pop(self) -> int:
        few = len(self._shards) < self._num_actors
        if self._slices and (few or not self._shards):
            return self._slices.popleft()
        return self._shards.popleft()


class Draws:
    """Random numbers of a simulated run; many of them are drawn at a time."""

    def __init__(self, ratios: NDArray[np.float64], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._sample = ratios
        self._ratios: list[float] = []

    def ratio(self) -> float:
        """Measured seconds over predicted ones, of one attempt."""
        if not self._ratios:
            self._ratios = self._rng.choice(self._sample, _DRAWS).tolist()
        return self._ratios.pop()

    def one_of(self, sample: tuple[float, ...]) -> float:
        """A value of a sample."""
        return sample[int(self._rng.integers(len(sample)))]

    def lifetime_s(self, per_hour: float) -> float:
        """Seconds until something happens that happens so many times an hour."""
        return float(self._rng.exponential(3600 / per_hour)) if per_hour > 0 else math.inf

    def slowness(self, sigma: float, num: int) -> list[float]:
        """Lognormal factors with a mean of 1."""
        factors = np.exp(sigma * self._rng.standard_normal(num) - sigma**2 / 2)
        return [float(factor) for factor in factors]

    def some_slow(self, share: float, factor: float, num: int) -> list[float]:
        """A factor for a share of them, and 1 for the others."""
        return [factor if slow else 1.0 for slow in self._rng.random(num) < share]
