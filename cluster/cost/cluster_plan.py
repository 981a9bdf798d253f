"""Choose the cheapest cluster that does a job by a deadline or within a budget.

    instance costs + deadline, budget -> [cluster_plan] -> type, number, what it costs -> ray up

A closed formula predicts each cluster; its tests check it shard by shard against
`scaling/simulation.py`. All numbers of machines of all types are tried, because on spot machines
the cost need not rise with their number: the head stays on demand, since its loss would stop the
run. Beside machines with GPUs, as many helpers without are tried as their texts need. Assumptions
are in `PlanSettings`. This module knows nothing of Ray.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from fastformers.cluster.formatting import format_short_duration
from fastformers.errors import InputError
from fastformers.options import check_at_least, check_positive, option

# Spread of the time of equal shards on equal cores, as the sigma of a lognormal: what is left after
# shards were cut to equal predicted cost, neighbors on the host included. Assumed.
SHARD_SIGMA = 0.2
# Machines tried at most where no allowed cluster will do, to say which would.
_BEYOND_INSTANCES = 4096


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What is asked of a cluster, and what is assumed of it.

    Attributes:
        deadline_s: Seconds from asking for machines to the last prediction; None for any.
        budget_usd: Highest cost; None for any.
        spot: Whether all machines but the head are spot machines. Its flag is made by hand, because
            the market of `CostSettings` follows from it too.
    """

    deadline_s: float | None = field(
        default=None,
        metadata=option(
            "90m, 6h, 2d: plan the cheapest cluster that meets it (none)", name="deadline"
        ),
    )
    budget_usd: float | None = field(
        default=None,
        metadata=option(
            "without a deadline: plan the fastest cluster for it (none)",
            name="budget",
            metavar="USD",
        ),
    )
    max_instances: int = field(
        default=100, metadata=option("largest number of machines, head and helpers among them")
    )
    spot: bool = False
    # From asking for a machine to its first shard: boot, installation, bundle, Ray. Assumed: about
    # one minute for a cloud to boot, two for pip.
    startup_s: float = field(default=180.0, metadata=option("seconds until a machine works"))
    # Assumed: Google has seen 5 to 15% of preemptible machines interrupted per day (0.002 to 0.007
    # per hour), and AWS lists most types below 20% per month; both are averages, and busy days are
    # worse.
    interruptions_per_hour: float = field(
        default=0.05, metadata=option("interruptions of a spot machine per hour")
    )

    def __post_init__(self) -> None:
        check_positive(self, "deadline_s", "budget_usd")
        check_at_least(self, 1, "max_instances")
        check_at_least(self, 0, "startup_s", "interruptions_per_hour")


@dataclass(frozen=True, kw_only=True)
class HelperOffer:
    """Machines without GPUs that could tokenize for those with GPUs.

    Attributes:
        instance_type: Name of their type.
        usd_per_hour: Price of one; none is ever the head.
        gpu_s: Seconds of the whole job on one machine with GPUs that never wait for tokens.
        own_s: Seconds in which its own cores tokenize the corpus; infinite if they cannot.
        helper_s: Seconds in which one helper does.
    """

    instance_type: str
    usd_per_hour: float
    gpu_s: float
    own_s: float
    helper_s: float


@dataclass(frozen=True, kw_only=True)
class MachineOffer:
    """A type that could be rented, and what the job asks of it.

    Attributes:
        instance_type: Name of the type.
        usd_per_hour: Price of the head, which is never a spot machine.
        worker_usd_per_hour: Price of any other machine.
        num_actors: Actors on one machine.
        job_s: Seconds of the whole job on one machine, all actors busy, without helpers.
        shard_s: Seconds of a shard on one actor, that it waits for included.
        error_factor: All seconds are taken to be right up to this factor.
        uses_gpus: Whether its actors are on GPUs.
        helper: What could tokenize for its GPUs; None where they need no help.
    """

    instance_type: str
    usd_per_hour: float
    worker_usd_per_hour: float
    num_actors: int
    job_s: float
    shard_s: float
    error_factor: float = 1.0
    uses_gpus: bool = False
    helper: HelperOffer | None = None

    @property
    def num_shards(self) -> int:
        """Number of shards of the job."""
        return max(1, round(self.job_s * self.num_actors / self.shard_s))


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A cluster and what it is predicted to take.

    Attributes:
        offer: Type of its machines.
        num_instances: Machines of that type, the head among them.
        num_helpers: Machines of the offer's helper beside them.
        wall_s: Seconds from asking for machines to the last prediction.
        tail_s: Seconds of these at the end, when actors wait for the last shards.
        usd_total: Price of all machines for `wall_s`.
        interruptions: Expected number of interruptions of spot machines.
        interruption_usd, startup_usd, tail_usd: Parts of `usd_total` for lost and repeated work and
            replacements, for the first start, and for the tail.
    """

    offer: MachineOffer
    num_instances: int
    num_helpers: int
    wall_s: float
    tail_s: float
    usd_total: float
    interruptions: float
    interruption_usd: float
    startup_usd: float
    tail_usd: float


def plan_cluster(offers: Sequence[MachineOffer], settings: PlanSettings) -> list[ClusterPlan]:
    """The best cluster of each type that keeps the deadline and the budget, best first.

    With a deadline, best means cheapest, and with fewer machines where prices are equal; with a
    budget alone it means fastest.

    Raises:
        InputError: No allowed cluster keeps them; the message says which would.
    """
    if not offers:
        raise InputError(
            "there is no instance type to plan with: all were left out, or need a float16 graph"
        )
    best: list[ClusterPlan] = []
    for offer in offers:
        plans = _all_plans(offer, settings, range(1, settings.max_instances + 1))
        fitting = [plan for plan in plans if is_allowed(plan, settings)]
        if fitting:
            best.append(min(fitting, key=lambda plan: _rank(plan, settings)))
    if not best:
        raise InputError(_explain(offers, settings))
    return sorted(best, key=lambda plan: _rank(plan, settings))


def is_allowed(plan: ClusterPlan, settings: PlanSettings) -> bool:
    """Whether a cluster keeps the deadline, the budget and the number of machines."""
    if plan.num_instances + plan.num_helpers > settings.max_instances:
        return False
    return (settings.deadline_s is None or plan.wall_s <= settings.deadline_s) and (
        settings.budget_usd is None or plan.usd_total <= settings.budget_usd
    )


def predict_cluster(
    offer: MachineOffer, num_instances: int, settings: PlanSettings, *, num_helpers: int = 0
) -> ClusterPlan:
    """Predict what a cluster takes.

    A spot machine does useful work for a share of its time: between two interruptions it loses half
    a shard on each actor and waits once for its replacement to start. The work is then shared by
    the head and the spot machines by these shares. At the end all actors wait for the last, which
    takes the largest of as many uniform remainders of a shard as there are actors, stretched by
    their spread.

    Source:
        The renewal-reward theorem, and the mean of the largest of A uniform variables, A / (A + 1).
    """
    num_spot = num_instances - 1 + num_helpers if settings.spot else 0
    per_s = settings.interruptions_per_hour / 3600
    useful = _useful_share(offer, settings)
    num_actors = num_instances * offer.num_actors
    largest = num_actors / (num_actors + 1)
    spread = math.exp(SHARD_SIGMA * NormalDist().inv_cdf(largest)) if num_actors > 1 else 1.0
    calm_s = _busy_s(offer, num_instances, num_helpers)
    busy_s = _busy_s(offer, 1 + (num_instances - 1) * useful, num_helpers * useful)
    tail_s = offer.shard_s * (largest * spread - 0.5)
    if offer.num_shards < num_actors:  # no actor has a second shard
        busy_s, tail_s = 0.0, offer.shard_s * spread
    wall_s = settings.startup_s + busy_s + tail_s
    usd_per_hour = offer.usd_per_hour + (num_instances - 1) * offer.worker_usd_per_hour
    if offer.helper is not None:
        usd_per_hour += num_helpers * offer.helper.usd_per_hour
    usd_per_s = usd_per_hour / 3600
    return ClusterPlan(
        offer=offer,
        num_instances=num_instances,
        num_helpers=num_helpers,
        wall_s=wall_s,
        tail_s=tail_s,
        usd_total=wall_s * usd_per_s,
        interruptions=num_spot * per_s * (busy_s + tail_s) / (1 + per_s * settings.startup_s),
        interruption_usd=max(0.0, busy_s - calm_s) * usd_per_s,
        startup_usd=settings.startup_s * usd_per_s,
        tail_usd=tail_s * usd_per_s,
    )


def _useful_share(offer: MachineOffer, settings: PlanSettings) -> float:
    """Share of its time that a machine beside the head works for the job."""
    if not settings.spot:
        return 1.0
    per_s = settings.interruptions_per_hour / 3600
    return max(0.0, 1 - per_s * offer.shard_s / 2) / (1 + per_s * settings.startup_s)


def _busy_s(offer: MachineOffer, machines: float, helpers: float) -> float:
    """Seconds of the job on so many machines and helpers, all of them useful."""
    if offer.helper is None or not helpers:
        return offer.job_s / machines
    jobs_per_s = machines / offer.helper.own_s + helpers / offer.helper.helper_s  # tokenized
    return max(offer.helper.gpu_s / machines, 1 / jobs_per_s)


def _numbers_of_helpers(
    offer: MachineOffer, num_instances: int, settings: PlanSettings
) -> Iterable[int]:
    """None, just too few, just enough, and all that are left of the machines allowed.

    In between, each helper is worth as much as the one before: where it costs less than the waiting
    that it saves, so does the next.
    """
    useful = _useful_share(offer, settings)
    if offer.helper is None or not useful:
        return (0,)
    machines, helper = 1 + (num_instances - 1) * useful, offer.helper
    needed = machines * (1 / helper.gpu_s - 1 / helper.own_s) * helper.helper_s / useful
    left = max(0, settings.max_instances - num_instances)
    return sorted({0, min(left, math.floor(needed)), math.floor(needed), math.ceil(needed)})


def _all_plans(
    offer: MachineOffer, settings: PlanSettings, numbers: Iterable[int]
) -> list[ClusterPlan]:
    return [
        predict_cluster(offer, number, settings, num_helpers=num_helpers)
        for number in numbers
        for num_helpers in _numbers_of_helpers(offer, number, settings)
    ]


def _rank(plan: ClusterPlan, settings: PlanSettings) -> tuple[float, float, int, str]:
    by_time = settings.deadline_s is None
    first, second = (plan.wall_s, plan.usd_total) if by_time else (plan.usd_total, plan.wall_s)
    return first, second, plan.num_instances + plan.num_helpers, plan.offer.instance_type


def _explain(offers: Sequence[MachineOffer], settings: PlanSettings) -> str:
    """Say why no cluster will do, and what would: more machines, more money or more time."""
    numbers = range(1, settings.max_instances + 1)
    allowed = [
        plan
        for offer in offers
        for plan in _all_plans(offer, settings, numbers)
        if plan.num_instances + plan.num_helpers <= settings.max_instances
    ]
    affordable = [
        plan
        for plan in allowed
        if settings.budget_usd is None or plan.usd_total <= settings.budget_usd
    ]
    asked = " and ".join(
        text
        for text in (
            settings.deadline_s is not None
            and f"--deadline {format_short_duration(settings.deadline_s)}",
            settings.budget_usd is not None and f"--budget {settings.budget_usd:g}",
            f"--max-instances {settings.max_instances}",
        )
        if text
    )
    hints: list[str] = []
    if settings.deadline_s is None:
        cheapest = min(allowed, key=lambda plan: plan.usd_total)
        hints.append(f"the cheapest is {_brief(cheapest)}")
    else:
        if affordable:
            fastest = min(affordable, key=lambda plan: plan.wall_s)
            hints.append(f"the fastest allowed is {_brief(fastest)}")
        hints.extend(_beyond(offers, settings))
    return f"no cluster makes {asked}; " + "; ".join(hints)


def _beyond(offers: Sequence[MachineOffer], settings: PlanSettings) -> list[str]:
    """The cheapest cluster that keeps the deadline without a limit of machines and money."""
    assert settings.deadline_s is not None
    numbers = [
        *range(1, 257),
        *range(256, _BEYOND_INSTANCES + 1, 16),
        settings.max_instances,
    ]
    making = [
        plan
        for offer in offers
        for plan in _all_plans(offer, settings, numbers)
        if plan.wall_s <= settings.deadline_s
    ]
    if not making:
        return [
            f"no number of machines makes that deadline: starting takes "
            f"{format_short_duration(settings.startup_s)} (--startup-s)"
        ]
    cheapest = min(making, key=lambda plan: plan.usd_total)
    return [f"the deadline would take {_brief(cheapest)}"]


def _brief(plan: ClusterPlan) -> str:
    return (
        f"{name_machines(plan)} ({format_short_duration(plan.wall_s)}, {plan.usd_total:,.2f} USD)"
    )


def name_machines(plan: ClusterPlan) -> str:
    """The machines of a cluster, as text: "3 x g6.xlarge + 1 x c8a.4xlarge"."""
    names = f"{plan.num_instances} x {plan.offer.instance_type}"
    if plan.offer.helper is not None and plan.num_helpers:
        names += f" + {plan.num_helpers} x {plan.offer.helper.instance_type}"
    return names
