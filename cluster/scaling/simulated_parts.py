"""Parts of a simulated run: the driver with what waits, the store, and random numbers.

    shards, slices -> [simulated_parts] -> jobs of a node's call, moments -> simulation

Jobs are numbers: shards first, then slices. This module knows nothing of events and actors.
"""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.scaling.cluster_model import Machines, Scheduling, Store, Work

_DRAWS = 1024  # random numbers that are drawn at a time


class SimulatedDriver:
    """A queue of shards and slices, and one server that handles calls in their order.

    Attributes:
        num_shards: Shards, or bundles of them.
        left_s: Predicted seconds of what is left of each.
        num_left: Number of shards that are left in each.
        num_calls, used_s: Calls that were made, and CPU seconds that the driver used.
    """

    def __init__(self, work: Work, machines: Machines, scheduling: Scheduling) -> None:
        self.num_shards = len(work.predicted_s)
        self.left_s: list[float] = work.predicted_s.tolist()
        self.num_left = [1] * self.num_shards if work.counts is None else work.counts.tolist()
        self.num_calls, self.used_s = 0, 0.0
        self._num_slices, self._slice_s = work.num_slices, work.slice_s
        self._mean_s = float(np.mean(work.predicted_s))
        self._mean_ratio = float(np.mean(work.ratios))
        self._num_actors, self._num_nodes = machines.num_actors, machines.num_nodes
        self._scheduling = scheduling
        self._shards = deque(range(0 if work.num_slices else self.num_shards))
        self._slices = deque(range(self.num_shards, self.num_shards + work.num_slices))
        self._free_s = 0.0
        self.background = self._estimate_background(machines)

    def __len__(self) -> int:
        """Number of jobs that wait."""
        return len(self._shards) + len(self._slices)

    def choose(self, *, num_actors: int, num_held: int, num_idle: int) -> tuple[list[int], int]:
        """Jobs for a node, and the number in its hands below which it answers at once.

        Args:
            num_actors: Actors of the node.
            num_held: Jobs that it has.
            num_idle: Actors of it that have none.
        """
        costs, wanted = self._scheduling, num_actors
        if len(self) > self._num_actors:
            next_s = self.left_s[self._shards[0]] if self._shards else self._slice_s
            wanted = costs.num_wanted(num_actors, next_s * self._mean_ratio)
        room = max(wanted - num_held, num_idle)
        jobs = [self._pop() for _ in range(min(room, len(self)))]
        return jobs, costs.answer_below(num_actors, wanted)

    def serve(self, now: float, num_outcomes: int, *, num_calls: int = 1) -> float:
        """Handle calls that are sent now; returns the moment at which the driver is through."""
        costs = self._scheduling
        spent_s = costs.lease_s * num_calls + costs.shard_s * num_outcomes
        self._free_s = max(self._free_s, now + costs.latency_s) + spent_s / (1 - self.background)
        self.used_s += spent_s
        self.num_calls += num_calls
        return self._free_s

    def put_back(self, jobs: Iterable[int]) -> None:
        """Jobs were lost; they are the next that are given."""
        for job in jobs:
            (self._shards if job < self.num_shards else self._slices).appendleft(job)

    def keep(self, job: int, worked_s: float, takes_s: float) -> float:
        """Take off the shards of a lost bundle that are on disk; returns the seconds they took."""
        if job >= self.num_shards or self.num_left[job] == 1:
            return 0.0
        num_left = self.num_left[job]
        num_done = min(int(worked_s / takes_s * num_left), num_left - 1)
        self.left_s[job] *= 1 - num_done / num_left
        self.num_left[job] -= num_done
        return takes_s * num_done / num_left

    def add_cut(self, job: int) -> None:
        """The shards of a slice are there."""
        slice_ = job - self.num_shards
        start, stop = (
            place * self.num_shards // self._num_slices for place in (slice_, slice_ + 1)
        )
        self._shards.extend(range(start, stop))

    def _estimate_background(self, machines: Machines) -> float:
        """Share of the driver's time for answers of nodes that have nothing to tell.

        They are too many to be events of their own. Outcomes of a node are taken to come at random:
        the chance that none comes within `wait_s` is the share of those moments with an answer.
        """
        costs = self._scheduling
        shard_s = self._mean_s * self._mean_ratio
        outcomes = machines.actors_per_node / max(shard_s, 1e-9) * costs.wait_s
        if costs.wait_s == math.inf:
            return 0.0
        per_second = self._num_nodes / costs.wait_s * math.exp(-outcomes)
        return min(0.99, per_second * costs.lease_s)

    def _pop(self) -> int:
        few = len(self._shards) < self._num_actors
        if self._slices and (few or not self._shards):
            return self._slices.popleft()
        return self._shards.popleft()


class SimulatedStore:
    """One server that takes requests at its rate, and answers each after its latency."""

    def __init__(self, store: Store) -> None:
        self._takes_s = store.requests_per_shard / store.requests_per_second
        self._latency_s = store.latency_s
        self._free_s = 0.0

    def read(self, asked: float) -> float:
        """Moment at which a shard is there that is asked for at another."""
        if self._takes_s:
            self._free_s = asked = max(self._free_s, asked) + self._takes_s
        return asked + self._latency_s


class Draws:
    """Random numbers of a simulated run; many of them are drawn at a time."""

    def __init__(self, ratios: NDArray[np.float64], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._sums: list[float] = [0.0, *np.cumsum(np.tile(ratios, 2)).tolist()]
        self._num_ratios = len(ratios)
        self._places: list[int] = []

    def ratio(self, num: int = 1) -> float:
        """Measured seconds over predicted ones, of one attempt at so many shards in a row.

        They are neighbors in the sample of ratios, which has no order.
        """
        if not self._places:
            self._places = self._rng.integers(self._num_ratios, size=_DRAWS).tolist()
        place, sums = self._places.pop(), self._sums
        rounds, rest = divmod(num, self._num_ratios)
        total = rounds * sums[self._num_ratios] + sums[place + rest] - sums[place]
        return total / num

    def one_of(self, sample: tuple[float, ...]) -> float:
        """A value of a sample."""
        return sample[int(self._rng.integers(len(sample)))]

    def lifetime_s(self, per_hour: float) -> float:
        """Seconds until something happens that happens so many times an hour."""
        return float(self._rng.exponential(3600 / per_hour)) if per_hour > 0 else math.inf

    def slowness(self, sigma: float, num: int) -> list[float]:
        """Lognormal factors of time; all speeds together are those of machines without spread."""
        factors = np.exp(sigma * self._rng.standard_normal(num))
        factors *= np.mean(1 / factors)
        return [float(factor) for factor in factors]

    def some_slow(self, share: float, factor: float, num: int) -> list[float]:
        """A factor for a share of them, and 1 for the others."""
        return [factor if slow else 1.0 for slow in self._rng.random(num) < share]
