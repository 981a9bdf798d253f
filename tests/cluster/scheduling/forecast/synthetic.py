"""Runs that never were: shards and slices that differ by chance, on slots that take the next one.

    random numbers -> [synthetic] -> what was forecast at some shares of a run, and its end

Sizes of slices and the pace of shards are lognormal and resemble their neighbors, slots differ by
3%, and the machine drifts by a few percent from one quarter of the run to the next.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

from fastformers.cluster.scheduling.forecast.time_left import (
    JobTimes,
    SlotKind,
    TimeLeft,
    WorkLeft,
)

CPU = SlotKind("cpu", "some type")
_SLICE_S, _SHARD_S, _CUTTING = 30.0, 10.0, 0.06


@dataclass(frozen=True)
class World:
    """How a run varies: sigmas of lognormal factors, and correlations of neighbors."""

    num_slots: int
    num_slices: int
    slice_sigma: float
    slice_correlation: float
    pace_sigma: float
    pace_correlation: float
    drift: float


def draw_world(rng: random.Random) -> World:
    """A small or large corpus, even or uneven, on a machine or a cluster."""
    num_slots = rng.choice([1, 2, 4, 16, 64])
    return World(
        num_slots=num_slots,
        num_slices=rng.choice([20, 64, 200]) if num_slots <= 16 else 200,
        slice_sigma=rng.choice([0.05, 0.15, 0.3, 0.5]),
        slice_correlation=rng.choice([0.0, 0.5, 0.8]),
        pace_sigma=rng.choice([0.02, 0.05, 0.1, 0.2]),
        pace_correlation=rng.choice([0.0, 0.0, 0.5, 0.8]),
        drift=rng.choice([0.0, 0.02, 0.04]),
    )


def draw_slices(world: World, rng: random.Random) -> list[list[tuple[float, float]]]:
    """Slices of shards: core-seconds predicted of each, and the factor by which it is off."""
    size, pace = rng.gauss(0, 1), rng.gauss(0, 1)
    slices = []
    for _ in range(world.num_slices):
        size = _next(size, world.slice_correlation, rng)
        seconds = _SLICE_S * math.exp(world.slice_sigma * size)
        num_shards = max(1, round(seconds / _SHARD_S))
        shards = []
        for _ in range(num_shards):
            pace = _next(pace, world.pace_correlation, rng)
            shards.append((seconds / num_shards, math.exp(world.pace_sigma * pace)))
        slices.append(shards)
    return slices


def play(
    world: World, rng: random.Random, marks: tuple[float, ...]
) -> tuple[dict[float, tuple[float, TimeLeft]], float]:
    """Run a world: moment and forecast at each mark of the share done, and when it ends."""
    slices = deque(draw_slices(world, rng))
    total_s = sum(seconds for shards in slices for seconds, _ in shards)
    speeds = [math.exp(rng.gauss(0, 0.03)) for _ in range(world.num_slots)]
    drifts = [math.exp(rng.gauss(0, world.drift)) for _ in range(4)]
    common = rng.lognormvariate(0, 0.5)
    times, found = JobTimes(), {}
    waiting: list[tuple[float, float, float]] = []
    busy = [(0.0, slot, None) for slot in range(world.num_slots)]
    done_s = left_s = 0.0
    num_known = num_left = 0
    num_slices = len(slices)
    now = 0.0
    while busy:
        now, slot, job = heapq.heappop(busy)
        if job is not None and job[0] is None:
            _, seconds, took_s = job
            times.add_shard(CPU, seconds, took_s)
            done_s, left_s, num_left = done_s + seconds, left_s - seconds, num_left - 1
        elif job is not None:
            shards, _, took_s = job
            num_slices -= 1
            times.add_slice(sum(seconds for seconds, _ in shards), is_rest=False)
            times.add_cutting(took_s, is_rest=False, by_scorer=True)
            for seconds, factor in shards:
                heapq.heappush(waiting, (-seconds, rng.random(), factor))
                left_s, num_left, num_known = left_s + seconds, num_left + 1, num_known + 1
        known_s = done_s + left_s + num_slices * times.predicted_of_slice_s
        for mark in marks:
            if mark not in found and done_s and done_s / known_s >= mark and num_left + num_slices:
                left = WorkLeft(
                    known_s=left_s,
                    num_shards=num_left,
                    shard_s=(done_s + left_s) / num_known,
                    num_slices=num_slices,
                    scoring={CPU: world.num_slots},
                )
                found[mark] = now, times.time_left(left)
        factor = common * speeds[slot]
        if slices and len(waiting) < world.num_slots:
            shards = slices.popleft()
            took_s = _CUTTING * factor * sum(seconds for seconds, _ in shards)
            heapq.heappush(busy, (now + took_s, slot, (shards, 0.0, took_s)))
        elif waiting:
            negative_s, _, own = heapq.heappop(waiting)
            drift = drifts[min(3, int(4 * done_s / total_s))]
            took_s = -negative_s * factor * own * drift
            heapq.heappush(busy, (now + took_s, slot, (None, -negative_s, took_s)))
        elif num_slices:
            heapq.heappush(busy, (now + 0.5, slot, None))
    return found, now


def _next(before: float, correlation: float, rng: random.Random) -> float:
    """The next value of a first-order autoregression whose values are standard normal."""
    return correlation * before + math.sqrt(1 - correlation**2) * rng.gauss(0, 1)
