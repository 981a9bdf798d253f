"""What an audit adds to the cost of a corpus: a share of the rows by a second bundle, on each type.

    sample + audit bundle + share -> [audit_cost] -> seconds of the audit -> instance costs

The actors that score audit, too, on their own cores: on a machine with GPUs each card waits while
the core of its actor does. So the seconds of an audit are those of cores on every type, scaled from
the audit bundle's own profiles. This module knows nothing of how rows are drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastformers.cluster.cost.instances import InstanceCost, InstanceCosts
from fastformers.cluster.cost.machine_profile import MachineProfile, profile_of_bundle
from fastformers.cluster.cost.measured.experience import Experience
from fastformers.cluster.cost.profile_choice import choose_speed
from fastformers.cluster.cost.sampling import CorpusSample
from fastformers.cluster.cost.type_speed import ModelTraits
from fastformers.cluster.cost.workload import Interval, Workload, estimate_share_s
from fastformers.cluster.delivery.audit_bundle import pin_audit
from fastformers.cluster.pricing.prices import InstancePrice
from fastformers.cluster.settings import AuditSettings
from fastformers.cluster.storage.options import StorageOptions
from fastformers.inference.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """An audit that is to be costed: which bundle scores which share of the rows, 0-1."""

    bundle: Bundle
    share: float


@dataclass(frozen=True, kw_only=True)
class AuditWork:
    """The audit of a corpus as a `type_speed.Work`: it runs a model and nothing else."""

    rows: Interval
    scored_tokens: Interval
    infer_s: Interval
    tokenize_s: float = 0.0
    other_s: float = 0.0

    @property
    def core_s(self) -> float:
        """Seconds of one worker for all of the work."""
        return self.infer_s.value


@dataclass(frozen=True, kw_only=True)
class AuditCost:
    """An audit and what it asks of the machine that its bundle's first profile was measured on."""

    plan: AuditPlan
    core_s: Interval
    measured_on: str

    def describe(self) -> dict[str, Any]:
        """The audit as plain values."""
        bundle = self.plan.bundle
        return {
            "share": self.plan.share,
            "bundle": str(bundle),
            "bundle_digest": bundle.digest,
            "core_s": self.core_s.to_json(),
        }


def plan_audit(
    settings: AuditSettings, bundle: Bundle, storage: StorageOptions
) -> AuditPlan | None:
    """The audit of a bundle that the user asks for, or None.

    Args:
        settings: What the user asks for.
        bundle: The bundle that is audited.
        storage: How the bucket of the audit bundle is reached.

    Raises:
        BundleError: The audit bundle cannot be used.
        InputError: It does not fit the one that it audits.
    """
    pinned = pin_audit(settings, bundle, storage, scored_by={bundle.digest})
    if pinned is None:
        return None
    return AuditPlan(bundle=pinned.bundle.open(), share=pinned.share)


def add_audit(
    costs: InstanceCosts,
    plan: AuditPlan,
    *,
    sample: CorpusSample,
    workload: Workload,
    rows: int | None,
    profiles: Sequence[MachineProfile],
    prices: Mapping[str, InstancePrice],
    experience: Experience,
) -> tuple[AuditCost, InstanceCosts]:
    """Costs with an audit, cheapest first.

    Args:
        costs: Costs without it.
        plan: The audit.
        sample: Sample of the corpus.
        workload: Workload of the bundle that is audited.
        rows: Number of rows, as for the workload.
        profiles: Profiles of machines; those of other bundles are ignored.
        prices: Price table, by type.
        experience: What measured machines teach of the others.

    Raises:
        BundleError: The audit bundle does not say how much arithmetic it does.
    """
    traits, digest = ModelTraits.of_bundle(plan.bundle), plan.bundle.digest
    own = [one for one in profiles if one.bundle_digest == digest and one.gpu_name is None]
    works = [
        (profile, _work(plan, profile, sample, workload, rows))
        for profile in (*own, profile_of_bundle(plan.bundle))
    ]
    first_profile, first = works[0]
    cost = AuditCost(plan=plan, core_s=first.infer_s, measured_on=first_profile.cost.cpu_model)

    def seconds_on(instance: InstanceCost) -> float:
        cores = replace(instance.price, gpu_count=0, gpu_name="")
        chosen = choose_speed(works, cores, prices, traits, None, experience)
        if chosen is None:  # a type that only the other bundle was measured on
            return first.core_s / instance.num_actors
        speed, on_gpus = chosen.speed, instance.price.gpu_count > 0
        return speed.job_s * (speed.num_actors / instance.num_actors if on_gpus else 1)

    added = [_add(instance, seconds_on(instance)) for instance in costs.costs]
    added.sort(key=lambda one: (one.needs_gpu_graph, one.usd_total, one.price.instance_type))
    return cost, replace(costs, costs=tuple(added))


def _work(
    plan: AuditPlan,
    profile: MachineProfile,
    sample: CorpusSample,
    workload: Workload,
    rows: int | None,
) -> AuditWork:
    return AuditWork(
        rows=workload.rows,
        scored_tokens=workload.scored_tokens,
        infer_s=estimate_share_s(sample, profile, workload, share=plan.share, rows=rows),
    )


def _add(cost: InstanceCost, audit_s: float) -> InstanceCost:
    """A cost with the seconds of the audit on one machine of the type."""
    factor = 1 + audit_s / cost.wall_s
    pace = cost.pace
    if pace is not None:
        pace = replace(pace, gpu_s=pace.gpu_s + audit_s, alone_s=pace.alone_s + audit_s)
    return replace(
        cost,
        wall_s=cost.wall_s * factor,
        job_s=cost.job_s + audit_s,
        usd_total=cost.usd_total * factor,
        usd_per_million=cost.usd_per_million * factor,
        usd_low=cost.usd_low * factor,
        usd_high=cost.usd_high * factor,
        kwh=cost.kwh * factor,
        audit_usd=cost.usd_total * (factor - 1),
        pace=pace,
    )
