"""What a finished run would have cost on the other instance types, from what it measured itself.

    RunReport + bundle + prices -> [run_elsewhere] -> other types of the report -> report.html

The run's own core-seconds take the place of a sample and its estimate; from there on it is what
`fastformers cost --fit-run` does: the run says how fast this machine is, and other types are scaled
from it. Retries and idle cores are not carried over: a type is costed as one machine with all cores
busy. This module knows nothing of Ray, and neither reads nor writes a report.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from fastformers.cluster.cost.instances import InstanceCost, estimate_instances
from fastformers.cluster.cost.machine_profile import MachineProfile, find_misfit, profile_of_run
from fastformers.cluster.cost.type_speed import ModelTraits
from fastformers.cluster.cost.workload import Interval
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.cluster.report.run_report import RunReport, TypeCost
from fastformers.errors import BundleError
from fastformers.inference.bundle import Bundle

NUM_TYPES = 10


@dataclass(frozen=True, kw_only=True)
class RunWork:
    """The work of a run as an `instances.UnsureWork`: it is known, so its intervals are points."""

    rows: Interval
    scored_tokens: Interval
    infer_s: Interval
    tokenize_s: float
    other_s: float
    relative_error: float = 0.0

    @property
    def core_s(self) -> float:
        """Seconds of one worker for all of the work."""
        return self.infer_s.value + self.tokenize_s + self.other_s


def estimate_elsewhere(
    report: RunReport,
    bundle: Bundle,
    prices: Mapping[str, InstancePrice],
    *,
    own_type: str | None,
    today: date,
) -> RunReport:
    """The report with `other_types`, or with the reason why there are none.

    Args:
        report: Report of a run that ended on this machine.
        bundle: Bundle that scored.
        prices: The table of `load_prices`.
        own_type: Instance type that it ran on, or None if it was not given; it is left out.
        today: Date that tells whether a price is stale.
    """
    reason = find_misfit(bundle, report)
    if reason is not None:
        return replace(report, other_types=(), other_types_unknown=reason)
    profile = _profile_of_one_machine(report, bundle, prices.get(own_type or ""))
    if profile.cost.cpu_generation is None:
        reason = f"ran on a processor of unknown speed: {report.driver_cpu}"
        return replace(report, other_types=(), other_types_unknown=reason)
    try:
        traits = ModelTraits.of_bundle(bundle)
    except BundleError as error:
        return replace(report, other_types=(), other_types_unknown=str(error))
    costs = estimate_instances(
        [(profile, _work_of(report))],
        prices,
        traits=traits,
        market="on-demand",
        discount_percent=0.0,
        today=today,
    )
    others = [cost for cost in costs.costs if cost.price.instance_type != own_type]
    return replace(
        report,
        other_types=tuple(_type_cost(cost) for cost in others[:NUM_TYPES]),
        other_types_unknown=None if others else "no other type of the price table can be costed",
    )


def _profile_of_one_machine(
    report: RunReport, bundle: Bundle, own: InstancePrice | None
) -> MachineProfile:
    """The run's profile, with the run's own type if the actors filled machines of that type."""
    profile = profile_of_run(bundle, report)
    num_workers = report.num_actors // report.num_machines
    if own is None or num_workers not in (own.physical_cores, own.vcpus):
        return profile
    return replace(profile, instance_type=own.instance_type, num_workers=num_workers)


def _work_of(report: RunReport) -> RunWork:
    """Core-seconds of the run; an actor tokenizes, reads and writes on one of its cores.

    An audit is work beside the model's, by a bundle that may be of another precision.
    """
    assert report.bill.prediction is not None  # `find_misfit` says so of a run that scored nothing
    phase_s = report.phase_s
    audit_s = 0.0 if report.audit is None else report.audit.core_s
    return RunWork(
        rows=_exactly(report.rows),
        scored_tokens=_exactly(report.unique_tokens),
        infer_s=_exactly(report.bill.prediction.measured_core_s),
        tokenize_s=phase_s.tokenize,
        other_s=phase_s.read + phase_s.write + audit_s,
    )


def _exactly(value: float) -> Interval:
    return Interval(value=value, low=value, high=value)


def _type_cost(cost: InstanceCost) -> TypeCost:
    return TypeCost(
        instance_type=cost.price.instance_type,
        usd=cost.usd_total,
        usd_low=cost.usd_low,
        usd_high=cost.usd_high,
        wall_s=cost.wall_s,
        basis=cost.basis,
        scaled_from=cost.scaled_from,
        region=cost.price.region,
        as_of=cost.market_price.as_of,
    )
