"""Choose how many cores a worker owns: many workers with one core each, or few with several.

    topology -> [core_split] -> cores per worker -> pool

One thread per worker is best for tiny models only; larger ones gain from threads that share a
cache. Workers of 1, 2, 4, ... cores are tried, up to the cores of the smallest machine, each split
for a moment with all its workers at once. This module knows nothing of Ray, shards or prices.
"""

from collections.abc import Callable
from dataclasses import replace

from cluster.execution.connect import OpenNodes
from cluster.execution.worker import WorkerSpec
from cluster.scheduling.measure import join_all, measure_at_once
from cluster.scheduling.nodes import Node, Nodes, all_slots, running
from cluster.scheduling.work import MeasureRate
from cluster.settings import ActorSettings
from fastformers.errors import InputError

_MEASURE_S = 2.0


def open_asked_nodes(
    open_nodes: OpenNodes, spec: WorkerSpec, actors: ActorSettings, log: Callable[[str], None]
) -> Nodes:
    """The nodes that a user asked for, after measuring the split if it was left open.

    Args:
        open_nodes: Function that opens nodes on the connected machines.
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
        cores = measure_split(open_nodes, spec, actors, log)
    return open_nodes(spec, actors, cores_per_actor=cores)


def measure_split(
    open_nodes: OpenNodes, spec: WorkerSpec, actors: ActorSettings, log: Callable[[str], None]
) -> int:
    """Cores per worker that give the most tokens per second.

    Args:
        open_nodes: Function that opens nodes on the connected machines.
        spec: Description of the work that all workers share.
        actors: Settings of the user; as many workers as fit are measured, whatever they say.
        log: Function that shows a line for each split.
    """
    rates: dict[int, float] = {}
    everywhere = replace(actors, num_actors=None, oversubscribe=False)
    cores = largest = 1
    while cores <= largest:
        with running(open_nodes(spec, everywhere, cores_per_actor=cores)) as nodes:
            joined = join_all(nodes)
            if cores == 1:
                largest = min(len(node.slots) for node in joined)
            _measure(nodes, joined)  # warm-up, until all workers run at once
            rates[cores] = _measure(nodes, joined)
        log(f"{len(all_slots(joined))} x {cores} cores: {rates[cores]:,.0f} tokens/s")
        cores *= 2
    return max(rates, key=lambda split: rates[split])


def _measure(nodes: Nodes, joined: list[Node]) -> float:
    """Tokens per second of all workers together."""
    jobs = [MeasureRate(seconds=_MEASURE_S)] * len(all_slots(joined))
    return sum(measure_at_once(nodes, joined, jobs))
