"""Work out what a scaling test found: rates, speed-ups, prices, laws, and the simulation's check.

    measured runs, projection, driver load -> [summary] -> ScaleReport

Predicted seconds of work become rows by the average of the whole corpus, so that shares of it with
longer or shorter texts can be compared. This module reads and writes no files.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import usd_of
from fastformers.cluster.scaling.cluster_model import Machines, Scheduling, Work
from fastformers.cluster.scaling.laws import FittedLaws, fit_laws
from fastformers.cluster.scaling.measure import (
    STRONG,
    WEAK,
    MeasuredRun,
    PointPlan,
    median_of,
)
from fastformers.cluster.scaling.projection import (
    BELIEVED_ERROR,
    GOOD_EFFICIENCY,
    MeasuredInputs,
    Projection,
    ProjectionSettings,
    num_shards_of,
    simulate_turn,
)
from fastformers.cluster.scaling.scale_report import (
    CheckedPoint,
    DriverLoad,
    ScalePoint,
    SimulationInputs,
    UniversalLaw,
)
from fastformers.cluster.scaling.simulation import simulate
from fastformers.cluster.shards.layout import MAX_SHARD_SECONDS

IDLE = "idle"
_NO_TIME_S = 1e-6

Runs = Mapping[PointPlan, Sequence[MeasuredRun]]


def describe_points(runs: Runs, prices: MachinePrices, rows: float) -> tuple[ScalePoint, ...]:
    """The measured points, strong ones first.

    Args:
        runs: The turns of each point.
        prices: Prices of the machines.
        rows: Rows for each predicted second.
    """
    measured = dict(runs)
    most = max(runs, key=lambda plan: (plan.kind == STRONG, plan.actors))
    if most.actors > 1:  # all actors on all shares are the last point of both kinds
        measured[replace(most, kind=WEAK)] = runs[most]
    points = []
    for plan, turns in measured.items():
        one = next(
            turns for other, turns in runs.items() if (other.kind, other.actors) == (plan.kind, 1)
        )
        points.append(_describe(plan, turns, one, prices, rows))
    return tuple(points)


def _describe(
    plan: PointPlan,
    turns: Sequence[MeasuredRun],
    one: Sequence[MeasuredRun],
    prices: MachinePrices,
    rows: float,
) -> ScalePoint:
    rate = median_of(turns, lambda run: run.rate)
    speedup = rate / median_of(one, lambda run: run.rate)
    usd_per_hour = sum(
        prices.price_of(machine.instance_type, num_cores=machine.num_cores).usd_per_hour
        for machine in turns[0].machines
    )
    return ScalePoint(
        kind=plan.kind,
        actors=plan.actors,
        nodes=len(turns[0].machines),
        rows_per_second=rate * rows,
        rows_per_second_low=min(run.rate for run in turns) * rows,
        rows_per_second_high=max(run.rate for run in turns) * rows,
        job_rows_per_second=median_of(turns, lambda run: run.job_rate) * rows,
        speedup=speedup,
        efficiency=speedup / plan.actors,
        usd_per_million=usd_of(1e6 / (rate * rows), usd_per_hour=usd_per_hour),
    )


def describe_projected(
    projected: Sequence[Projection], points: Sequence[ScalePoint], *, node_usd: float, rows: float
) -> tuple[ScalePoint, ...]:
    """The simulated points; their speed-up is over the one actor that was measured.

    Args:
        projected: What was simulated.
        points: The measured points.
        node_usd: Price of an hour of a simulated node.
        rows: Rows for each predicted second.
    """
    one = next(point.rows_per_second for point in points if point.actors == 1)
    return tuple(
        ScalePoint(
            kind=STRONG,
            actors=each.actors,
            nodes=each.nodes,
            rows_per_second=each.rate * rows,
            rows_per_second_low=each.rate * rows,
            rows_per_second_high=each.rate * rows,
            job_rows_per_second=each.job_rate * rows,
            speedup=each.rate * rows / one,
            efficiency=each.rate * rows / one / each.actors,
            usd_per_million=usd_of(
                1e6 / (each.rate * rows), usd_per_hour=node_usd, num_machines=each.nodes
            ),
        )
        for each in projected
    )


def fit_points(runs: Runs) -> FittedLaws | None:
    """The laws of the strong points; None where only one number of actors was measured."""
    plans = [plan for plan in runs if plan.kind == STRONG]
    if len(plans) < 2:
        return None
    rates_TP = np.array([[run.rate for run in runs[plan]] for plan in plans]).T
    return fit_laws(np.array([float(plan.actors) for plan in plans]), rates_TP)


def describe_law(laws: FittedLaws | None) -> UniversalLaw | None:
    """The universal law, where it could be fitted."""
    if laws is None or laws.contention is None or laws.coordination is None:
        return None
    return UniversalLaw(sigma=laws.contention, kappa=laws.coordination, knee=laws.knee)


def find_cheapest(points: Sequence[ScalePoint]) -> ScalePoint:
    """The strong point with the lowest price of a million rows; the smaller one of equal ones."""
    strong = [point for point in points if point.kind == STRONG]
    return min(strong, key=lambda point: (point.usd_per_million, point.actors))


def check_simulation(runs: Runs, scheduling: Scheduling) -> tuple[CheckedPoint, ...]:
    """Every measured point beside its simulation, turn by turn.

    Args:
        runs: The turns of each point.
        scheduling: Costs and habits of driver and supervisors.
    """
    checked = []
    for plan, turns in runs.items():
        simulated = [simulate_turn(plan, run, scheduling) for run in turns]
        errors = [s / run.work_end_s - 1 for s, run in zip(simulated, turns, strict=True)]
        checked.append(
            CheckedPoint(
                kind=plan.kind,
                actors=plan.actors,
                nodes=plan.nodes,
                measured_s=median_of(turns, lambda run: run.work_end_s),
                simulated_s=statistics.median(simulated),
                error=statistics.median(errors),
            )
        )
    return tuple(checked)


def check_load(loads: Sequence[DriverLoad], scheduling: Scheduling) -> tuple[CheckedPoint, ...]:
    """The loads of idle Ray actors beside their simulation: shards that take no time.

    Args:
        loads: Load tests of the driver.
        scheduling: Costs and habits of driver and supervisors, from the last of these loads.
    """
    checked = []
    for load in (load for load in loads if load.are_actors):
        work = Work(predicted_s=np.full(load.shards, _NO_TIME_S), ratios=np.ones(1))
        machines = Machines(num_actors=load.slots, actors_per_node=-(-load.slots // load.nodes))
        measured_s = load.shards / load.shards_per_second
        simulated_s = simulate(work, machines, scheduling).wall_s
        checked.append(
            CheckedPoint(
                kind=IDLE,
                actors=load.slots,
                nodes=load.nodes,
                measured_s=measured_s,
                simulated_s=simulated_s,
                error=simulated_s / measured_s - 1,
            )
        )
    return tuple(checked)


def is_believed(checked: Sequence[CheckedPoint]) -> bool:
    """Whether the simulation is close enough to every measured point."""
    return all(abs(point.error) <= BELIEVED_ERROR for point in checked)


def is_efficient(points: Sequence[ScalePoint]) -> bool:
    """Whether the last point's actors work most of their time."""
    return not points or points[-1].efficiency >= GOOD_EFFICIENCY


def describe_inputs(inputs: MeasuredInputs, settings: ProjectionSettings) -> SimulationInputs:
    """What the simulation was given."""
    per_node = settings.actors_per_node or inputs.actors_per_node
    low, middle, high = np.quantile(inputs.ratios(per_node), [0.1, 0.5, 0.9]).tolist()
    scheduling = inputs.scheduling
    return SimulationInputs(
        seconds_over_predicted=(low, middle, high),
        actor_startup_s=statistics.median(inputs.startups_s(per_node)),
        shard_seconds=MAX_SHARD_SECONDS,
        shards=0 if settings.simulate is None else num_shards_of(settings.simulate),
        interruptions_per_hour=settings.interruptions_per_hour,
        failures_per_hour=inputs.failures_per_hour,
        assumptions=(
            f"driver: {1e3 * scheduling.lease_s:.3f} ms a call and "
            f"{1e6 * scheduling.shard_s:.0f} us a shard, supervisor: "
            f"{1e6 * scheduling.supervisor_shard_s:.0f} us a shard",
            f"store: {settings.request_s:g} s a request, {settings.requests_per_second:g} requests "
            "a second (assumed)",
            f"nodes of {per_node} actors, 5% apart in speed (assumed)",
        ),
    )
