"""Give every slot of all nodes one measuring job at the same time.

    jobs -> [measure] -> nodes -> seconds, or tokens per second

This module knows nothing of what is measured.
"""

from collections.abc import Sequence

from cluster.scheduling.nodes import (
    Node,
    NodeJoined,
    NodeLeft,
    NodeRefused,
    NodeReported,
    Nodes,
    Orders,
)
from cluster.scheduling.work import (
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
from fastformers.errors import InputError, ScoringError

_POLL_S, _WAIT_S = 1.0, 0.2
Measuring = TimeEngine | MeasureRate


def join_all(nodes: Nodes) -> list[Node]:
    """Wait until the nodes that are there have joined.

    Raises:
        InputError: None can work.
    """
    joined: list[Node] = []
    reasons: list[str] = []
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
