"""Measure how many cores an actor should own: many with one, or few with several.

    topology -> [core_split] -> cores per actor -> core sets

One thread an actor is best for tiny models only; larger ones gain from threads that share a cache.
Every split of the smallest node is run for a moment with all its actors at once.
"""

from collections.abc import Callable

import ray

from cluster.execution.ray_pool import ActorPool, plan_pool
from cluster.execution.worker import WorkerSpec

_MEASURE_S = 2.0


def measure_split(work: WorkerSpec, log: Callable[[str], None]) -> int:
    """Cores per actor that give the most tokens per second on the connected cluster.

    Args:
        work: What the actors do.
        log: Shows a line for each split.
    """
    rates: dict[int, float] = {}
    largest = len(plan_pool(work, num_actors=None, cores_per_actor=1, oversubscribe=False).slots)
    cores = 1
    while cores <= largest:
        pool = plan_pool(work, num_actors=None, cores_per_actor=cores, oversubscribe=False)
        pool.start()
        try:
            _measure(pool)  # until all actors are warm and run at once
            rates[cores] = _measure(pool)
        finally:
            pool.stop()
        log(f"{len(pool.slots)} x {cores} cores: {rates[cores]:,.0f} tokens/s")
        cores *= 2
    return max(rates, key=lambda split: rates[split])


def _measure(pool: ActorPool) -> float:
    """Tokens per second of all actors together."""
    running = [slot.actor.measure_tokens_per_second.remote(_MEASURE_S) for slot in pool.slots]
    return float(sum(ray.get(running)))
