"""Choose how many cores a worker owns: many workers with one core each, or few with several.

    topology -> [core_split] -> cores per worker -> pool

One thread per worker is best for tiny models only; larger ones gain from threads that share a
cache. Workers of 1, 2, 4, ... cores are tried, up to the cores of the smallest machine, each split
for a moment with all its workers at once. This module knows nothing of Ray, shards or prices.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from fastformers.cluster.execution.connect import OpenNodes
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.scheduling.nodes import (
    Node,
    NodeJoined,
    NodeLeft,
    NodeRefused,
    NodeReported,
    Nodes,
    Orders,
    all_slots,
    running,
)
from fastformers.cluster.scheduling.work import (
    Failed,
    Finished,
    MeasureRate,
    Outcome,
    Task,
    Ticket,
    TimeEngine,
    describe_job,
    raise_failure,
)
from fastformers.cluster.settings import ActorSettings
from fastformers.errors import InputError, ScoringError

_MEASURE_S = 2.0
_POLL_S, _WAIT_S = 1.0, 0.2
_NO_NODES_S = 60.0
Measuring = TimeEngine | MeasureRate


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
        InputError: The machines do not have those cores, or a split is left open in a run in which
            no worker on cores scores, which has nothing to measure it by.
    """
    cores = actors.cores_per_actor
    if cores is None:
        if spec.predictions is None:
            raise InputError("--cores-per-actor auto: preparing runs no model; give a number")
        if "cpu" not in spec.scorings:
            raise InputError("--cores-per-actor auto: no model runs on cores; give a number")
        on_cores = spec
        if len(spec.scorings) > 1:
            on_cores = replace(spec, scorings={"cpu": spec.scorings["cpu"]})
        cores = measure_split(open_nodes, on_cores, actors, log)
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


def join_all(nodes: Nodes, *, clock: Callable[[], float] = time.monotonic) -> list[Node]:
    """Wait until the nodes that are there have joined.

    Args:
        nodes: The nodes, running.
        clock: Monotonic clock, in seconds.

    Raises:
        InputError: None can work, or none is free.
    """
    joined: list[Node] = []
    reasons: list[str] = []
    deadline = clock() + _NO_NODES_S
    while not joined or nodes.num_starting:
        for event in nodes.wait(_POLL_S):
            match event:
                case NodeJoined():
                    joined.append(event.node)
                case NodeRefused():
                    reasons.append(f"{event.name}: {event.reason}")
                case NodeLeft():
                    raise ScoringError(f"a node left while it was measured: {event.reason}")
        if not joined and not nodes.num_starting and reasons:
            raise InputError(f"no node can work: {'; '.join(reasons)}")
        if joined or nodes.num_starting:
            deadline = clock() + _NO_NODES_S
        elif clock() > deadline:
            raise InputError(
                f"no node has had free CPUs for {_NO_NODES_S:.0f} s; wait until the cluster's "
                "other work has ended, or add nodes, and run the same command"
            )
    return joined


def measure_at_once(nodes: Nodes, joined: Sequence[Node], jobs: Sequence[Measuring]) -> list[float]:
    """Give each slot of nodes that have joined one job; returns the results in slot order.

    Args:
        nodes: The nodes, running.
        joined: Those to measure, each with nothing to do.
        jobs: One job for each slot, in the order of the nodes and their slots.

    Raises:
        ScoringError: A worker died over its job, or the job raised an unexpected error.
        FastformersError: A job raised it.
    """
    tasks = [Task(ticket=Ticket(number), job=job) for number, job in enumerate(jobs)]
    num_left: dict[str, int] = {}
    for node in joined:
        own, tasks = tasks[: len(node.slots)], tasks[len(node.slots) :]
        num_left[node.id] = len(own)
        nodes.exchange(node.id, Orders(give=tuple(own), wait_s=_WAIT_S))
    measured: dict[int, float] = {}
    while num_left:
        for event in nodes.wait(_POLL_S):
            if isinstance(event, NodeLeft):
                raise ScoringError(f"a node left while it was measured: {event.reason}")
            if not isinstance(event, NodeReported):
                continue
            for ended in event.report.ended:
                ticket = ended.outcome.ticket
                place = f"{describe_job(jobs[ticket])} in {ended.slot}"
                measured[ticket] = _result_of(ended.outcome, place)
            num_left[event.id] -= len(event.report.ended)
            if num_left[event.id]:
                nodes.exchange(event.id, Orders(wait_s=_WAIT_S))
            else:
                del num_left[event.id]
    return [measured[number] for number in range(len(jobs))]


def _result_of(outcome: Outcome, place: str) -> float:
    if isinstance(outcome, Failed):
        raise_failure(outcome.error, place)
    if not isinstance(outcome, Finished):
        raise ScoringError(f"{place}: {getattr(outcome, 'reason', 'not begun')}")
    assert isinstance(outcome.result, float)
    return outcome.result
