"""Choose how many cores a worker owns: many workers with one core each, or few with several.

    topology -> [core_split] -> cores per worker -> pool

One thread per worker is best for tiny models only; larger ones gain from threads that share a
cache. Workers of 1, 2, 4, ... cores are tried, up to the cores of the smallest machine, each split
for a moment with all its workers at once. This module knows nothing of Ray, shards or prices.
"""

from collections import Counter
from collections.abc import Callable

from cluster.execution.connect import PlanPool
from cluster.execution.worker import WorkerSpec
from cluster.scheduling.pool import Pool, measure_at_once, running
from cluster.scheduling.work import MeasureRate
from cluster.settings import ActorSettings
from fastformers.errors import InputError

_MEASURE_S = 2.0


def plan_workers(
    plan_pool: PlanPool, spec: WorkerSpec, actors: ActorSettings, log: Callable[[str], None]
) -> Pool:
    """The pool that a user asked for, after measuring the split if it was left open.

    Args:
        plan_pool: Function that plans a pool on the connected machines.
        spec: Description of the work that all workers share.
        actors: Settings of the user.
        log: Function that shows a line for each split that is measured.

    Raises:
        InputError: The machines do not have those cores, or a split is left open in a run that only
            prepares, which has nothing to measure it by.
    """
    cores = actors.cores_per_actor
    if cores is None:
        if spec.predictions is None:
            raise InputError("--cores-per-actor auto: preparing runs no model; give a number")
        cores = measure_split(plan_pool, spec, log)
    return plan_pool(
        spec,
        num_actors=actors.num_actors,
        cores_per_actor=cores,
        oversubscribe=actors.oversubscribe,
    )


def measure_split(plan_pool: PlanPool, spec: WorkerSpec, log: Callable[[str], None]) -> int:
    """Cores per worker that give the most tokens per second.

    Args:
        plan_pool: Function that plans a pool on the connected machines.
        spec: Description of the work that all workers share.
        log: Function that shows a line for each split.
    """
    rates: dict[int, float] = {}
    smallest = plan_pool(spec, num_actors=None, cores_per_actor=1, oversubscribe=False)
    largest = min(Counter(slot.host for slot in smallest.slots).values())
    cores = 1
    while cores <= largest:
        pool = plan_pool(spec, num_actors=None, cores_per_actor=cores, oversubscribe=False)
        with running(pool):
            _measure(pool)  # warm-up, until all workers run at once
            rates[cores] = _measure(pool)
        log(f"{len(pool.slots)} x {cores} cores: {rates[cores]:,.0f} tokens/s")
        cores *= 2
    return max(rates, key=lambda split: rates[split])


def _measure(pool: Pool) -> float:
    """Tokens per second of all workers together."""
    return sum(measure_at_once(pool, [MeasureRate(seconds=_MEASURE_S)] * len(pool.slots)))
