"""Continue a measured curve past the machine: check the simulation, then simulate more actors.

    measured runs, driver load -> [projection] -> checked points, simulated points, what limits them

Service times, starts and losses are those of the measured runs, taken from the point that filled
its nodes most like the simulated one; the costs of the driver are those of its load test. The
simulated job has shards as the planner sizes them for so much work. This module knows nothing of
Ray and prices.

Source of the default rate of a store: AWS, Best practices design patterns: optimizing Amazon S3
performance, 3,500 writes and 5,500 reads a second for each prefix (read 2026-11).
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.scaling.cluster_model import (
    Machines,
    Scheduling,
    SimulatedRun,
    Store,
    Work,
)
from fastformers.cluster.scaling.measure import STRONG, MeasuredRun, PointPlan
from fastformers.cluster.scaling.simulation import simulate
from fastformers.cluster.shards.layout import MAX_SHARD_SECONDS, SHARDS_PER_CORPUS
from fastformers.formatting import format_count
from fastformers.options import check_at_least, check_option, check_positive, option

BELIEVED_ERROR = 0.05
GOOD_EFFICIENCY = 0.9
# A loss is noticed within this time: what the run promises.
_NOTICED_AFTER_S = 10.0
# Requests of a shard: its size, its footer and its columns, then one write.
_REQUESTS_TO_READ, _REQUESTS_TO_WRITE = 3, 1
# Shards of the largest job for each actor. Fewer actors get the same job, but no more shards each
# than the second number: a longer job would only make its start and end a smaller part of it.
_SHARDS_PER_ACTOR, _MOST_SHARDS_PER_ACTOR = 100, 200
# What limits a job is looked for in one of so many shards for each actor, which takes less time.
_LIMIT_SHARDS_PER_ACTOR = 20
# Seconds of spread between equal machines, as the sigma of a lognormal. Assumed.
_NODE_SIGMA = 0.05
_CHECK_SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings:
    """What is simulated beyond the machine, and what is assumed of it."""

    simulate: int | None = field(
        default=None,
        metadata=option("continue the curve to this many actors (none)", metavar="ACTORS"),
    )
    actors_per_node: int | None = field(
        default=None, metadata=option("actors of a simulated node (as many as were measured)")
    )
    # Assumed, as `cost` does: twice what clouds say of spot machines on average.
    interruptions_per_hour: float = field(
        default=0.05, metadata=option("interruptions of a simulated node per hour")
    )
    request_s: float = field(
        default=0.02, metadata=option("seconds that a simulated store takes for a request")
    )
    requests_per_second: float = field(
        default=3500.0, metadata=option("requests that a simulated store takes a second")
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "simulate", "actors_per_node")
        check_at_least(self, 0, "interruptions_per_hour", "request_s")
        check_positive(self, "requests_per_second")
        given = [each for each in fields(self) if getattr(self, each.name) != each.default]
        if self.simulate is None and given:
            name = given[0].name
            check_option(self, name, False, "--simulate as well, whose machines it is about")


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A simulated point.

    Attributes:
        actors, nodes: How many work.
        rate: Predicted seconds of work done a second, from when all actors were up.
        job_rate: The same over the whole job.
    """

    actors: int
    nodes: int
    rate: float
    job_rate: float


class MeasuredInputs:
    """What measured runs say of shards and actors."""

    def __init__(
        self, runs: Mapping[PointPlan, Sequence[MeasuredRun]], scheduling: Scheduling
    ) -> None:
        """Gather the strong points, on which all actors share the same shards.

        Args:
            runs: The turns of each point.
            scheduling: Costs and habits of driver and supervisors.
        """
        self.scheduling = scheduling
        self._runs = {p.actors: list(turns) for p, turns in runs.items() if p.kind == STRONG}
        all_runs = [run for turns in runs.values() for run in turns]
        hours = sum(run.actor_s for run in all_runs) / 3600
        self.failures_per_hour = sum(run.num_lost for run in all_runs) / hours
        self.actors_per_node = max(
            -(-actors // len(turns[0].machines)) for actors, turns in self._runs.items()
        )

    def ratios(self, actors_on_node: int) -> NDArray[np.float64]:
        """Measured seconds over predicted ones, on nodes that were about as full."""
        return np.concatenate([run.ratios for run in self._like(actors_on_node)])

    def startups_s(self, actors_on_node: int) -> tuple[float, ...]:
        """Seconds until an actor works, on nodes that were about as full."""
        return tuple(s for run in self._like(actors_on_node) for s in run.startups_s)

    def _like(self, actors_on_node: int) -> list[MeasuredRun]:
        """Turns of the fullest measured nodes that are no fuller."""
        fullness = {
            actors: -(-actors // len(turns[0].machines)) for actors, turns in self._runs.items()
        }
        fitting = [a for a, full in fullness.items() if full <= actors_on_node] or [min(fullness)]
        best = max(fitting, key=lambda actors: (fullness[actors], -actors))
        return self._runs[best]


def simulate_turn(point: PointPlan, run: MeasuredRun, scheduling: Scheduling) -> float:
    """Seconds until the last shard of a measured turn, simulated: the median of some seeds.

    Its shards take the seconds that they took, and its actors start when they started; what is
    checked is what the simulation makes of that: who does which shard, and who waits for whom.

    Args:
        point: The point.
        run: The turn.
        scheduling: Costs and habits of driver and supervisors.
    """
    machines = Machines(
        num_actors=point.actors,
        actors_per_node=-(-point.actors // len(run.machines)),
        actor_startup_s=run.startups_s,
    )
    order = np.argsort(-np.array(run.predicted_s), kind="stable")
    work = Work(predicted_s=np.array(run.seconds)[order], ratios=np.ones(1))
    walls = [simulate(work, machines, scheduling, seed=s).wall_s for s in range(_CHECK_SEEDS)]
    return statistics.median(walls)


def plan_numbers(num_actors: int) -> list[int]:
    """Numbers of actors to simulate: 1, 2, 4, ... and the largest."""
    return [2**p for p in range(num_actors.bit_length()) if 2**p < num_actors] + [num_actors]


def num_shards_of(num_actors: int) -> int:
    """Shards of the largest simulated job: so many that they are as long as the planner makes."""
    return max(SHARDS_PER_CORPUS, num_actors * _SHARDS_PER_ACTOR)


def project(
    inputs: MeasuredInputs,
    settings: ProjectionSettings,
    work_S: NDArray[np.float64],
    log: Callable[[str], None],
) -> list[Projection]:
    """Simulate the same job on more and more actors.

    Args:
        inputs: Measured shards and actors.
        settings: How far, and what is assumed.
        work_S: Predicted seconds of the measured shards, whose spread the simulated ones have.
        log: Function that shows a line for each point.
    """
    assert settings.simulate is not None
    projected: list[Projection] = []
    for number in plan_numbers(settings.simulate):
        run = simulate(*_model(inputs, settings, work_S, number), seed=number)
        nodes = _machines(inputs, settings, number).num_nodes
        projected.append(
            Projection(
                actors=number,
                nodes=nodes,
                rate=_rate(run),
                job_rate=run.work_s / run.wall_s,
            )
        )
        log(
            f"simulated: {format_count(number, 'actor')} on {format_count(nodes, 'node')}, "
            f"{run.num_shards:,} shards in {run.wall_s:,.0f} s, driver busy "
            f"{100 * run.driver_busy:.0f}%"
        )
    return projected


def find_limit(
    inputs: MeasuredInputs, settings: ProjectionSettings, work_S: NDArray[np.float64]
) -> str:
    """What keeps the most actors from more: what brings most if it is left out.

    Args:
        inputs: Measured shards and actors.
        settings: How far, and what is assumed.
        work_S: Predicted seconds of the measured shards.
    """
    number = settings.simulate
    assert number is not None
    work, machines, scheduling, store = _model(inputs, settings, work_S, number)
    num_shards = min(len(work.predicted_s), number * _LIMIT_SHARDS_PER_ACTOR)
    work = replace(work, predicted_s=work.predicted_s[:num_shards])
    even = np.full(1, float(np.mean(work.ratios)))
    safe = replace(machines, interruptions_per_hour=0.0, failures_per_hour=0.0)
    free = replace(scheduling, lease_s=0.0, shard_s=0.0)
    models: dict[str, tuple[Work, Machines, Scheduling, Store]] = {
        "": (work, machines, scheduling, store),
        "the driver": (work, machines, free, store),
        "the supervisors": (work, machines, replace(scheduling, supervisor_shard_s=0.0), store),
        "the store": (work, machines, scheduling, Store()),
        "the loss of nodes and actors": (work, safe, scheduling, store),
        "the spread of shards and nodes": (
            replace(work, ratios=even),
            replace(machines, node_sigma=0.0),
            scheduling,
            store,
        ),
    }
    rates = {name: _rate(simulate(*model, seed=number)) for name, model in models.items()}
    rate = rates.pop("")
    # Actors of full nodes that share caches and memory: what one actor alone does is more.
    shared = float(np.mean(work.ratios)) / float(np.mean(inputs.ratios(1)))
    rates["what actors of one node share (memory, caches, clock)"] = rate * shared
    name = max(rates, key=lambda each: rates[each])
    return f"{name}: without it {100 * (rates[name] / rate - 1):.1f}% more"


def _model(
    inputs: MeasuredInputs,
    settings: ProjectionSettings,
    work_S: NDArray[np.float64],
    num_actors: int,
) -> tuple[Work, Machines, Scheduling, Store]:
    assert settings.simulate is not None
    machines = _machines(inputs, settings, num_actors)
    num_shards = min(num_shards_of(settings.simulate), num_actors * _MOST_SHARDS_PER_ACTOR)
    rng = np.random.default_rng(num_actors)
    relative_S = rng.choice(work_S / np.mean(work_S), num_shards)
    work = Work(
        predicted_s=np.sort(relative_S)[::-1] * MAX_SHARD_SECONDS,
        ratios=inputs.ratios(machines.actors_per_node),
    )
    store = Store(
        latency_s=_REQUESTS_TO_READ * settings.request_s,
        requests_per_shard=_REQUESTS_TO_READ + _REQUESTS_TO_WRITE,
        requests_per_second=settings.requests_per_second,
    )
    return work, machines, inputs.scheduling, store


def _machines(inputs: MeasuredInputs, settings: ProjectionSettings, num_actors: int) -> Machines:
    per_node = min(num_actors, settings.actors_per_node or inputs.actors_per_node)
    return Machines(
        num_actors=num_actors,
        actors_per_node=per_node,
        actor_startup_s=inputs.startups_s(per_node),
        node_sigma=_NODE_SIGMA,
        interruptions_per_hour=settings.interruptions_per_hour,
        failures_per_hour=inputs.failures_per_hour,
        noticed_after_s=_NOTICED_AFTER_S,
    )


def _rate(run: SimulatedRun) -> float:
    return run.window_work_s / (run.wall_s - run.up_s)
