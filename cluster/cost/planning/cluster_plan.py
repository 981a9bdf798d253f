"""Choose the cheapest cluster that does a job by a deadline or within a budget, as surely as asked.

    candidates + deadline, budget, confidence -> [cluster_plan] -> type, number -> ray up

The formula of `candidates.py` proposes a cluster of each type, the simulation of `outcome.py`
judges it; where both disagree, the formula is stretched by what the simulation found and proposes
again. A plan is what the simulation says holds. This module knows nothing of Ray.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from fastformers.cluster.cost.planning.candidates import (
    Candidate,
    list_candidates,
    name_machines,
    rate_sigma,
)
from fastformers.cluster.cost.planning.offers import MachineOffer, PlanSettings
from fastformers.cluster.cost.planning.outcome import Outcome, simulate_candidate
from fastformers.cluster.formatting import format_short_duration
from fastformers.errors import InputError

# Types that are planned with, for one plan and what else could be taken.
NUM_PLANS = 5
# Types that are simulated although the formula does not believe in them.
_NUM_DOUBTED = 3
# Candidates of a type that are simulated at most; most often two are.
_MAX_SIMULATED, _MAX_PROPOSED, _STEP = 5, 40, 1.01
# Of many machines some start early, and a short job may be over before the average one has started.
_LEAST_STRETCH = 0.1
# Machines tried at most where no allowed cluster will do, to say which would.
_BEYOND_INSTANCES = 4096


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A cluster, and what it takes when it is simulated.

    Attributes:
        offer: Type of its machines.
        num_instances: Machines of that type, the head among them.
        num_helpers: Machines of the offer's helper beside them.
        wall_s: Seconds from asking for machines to the last prediction: half of all runs take less.
        confident_wall_s: Seconds that are not exceeded with the confidence that was asked for.
        usd_total: Expected price of all machines.
        confident_usd: Price that is not exceeded with that confidence.
        hold_chance: Chance that deadline and budget are kept, 0-1.
        tail_s: Seconds at the end when actors wait for the last shards.
        interruptions: Expected number of interruptions of spot machines.
        interruption_usd, startup_usd, tail_usd: Parts of `usd_total` for lost and repeated work and
            replacements, for the first start, and for the tail.
    """

    offer: MachineOffer
    num_instances: int
    num_helpers: int
    wall_s: float
    confident_wall_s: float
    usd_total: float
    confident_usd: float
    hold_chance: float
    tail_s: float
    interruptions: float
    interruption_usd: float
    startup_usd: float
    tail_usd: float

    @property
    def name(self) -> str:
        """Its machines, as text."""
        return name_machines(self.offer, self.num_instances, self.num_helpers)


def plan_cluster(offers: Sequence[MachineOffer], settings: PlanSettings) -> list[ClusterPlan]:
    """The best clusters that keep deadline and budget with the confidence asked for, best first.

    Each is the best of its type. With a deadline, best means cheapest, and with fewer machines
    where prices are equal; with a budget alone it means fastest.

    Raises:
        InputError: No allowed cluster keeps them; the message says which comes nearest.
    """
    if not offers:
        raise InputError(
            "there is no instance type to plan with: all were left out, or need a float16 graph"
        )
    numbers = range(1, settings.max_instances + 1)
    of_types = [_allowed(list_candidates(offer, settings, numbers), settings) for offer in offers]
    proposed = [(_propose(candidates, settings, 1.0), candidates) for candidates in of_types]
    believed = [each for each in proposed if _is_believed(each[0], settings, 1.0)]
    believed.sort(key=lambda each: _rank(each[0], settings))
    doubted = [each for each in proposed if not _is_believed(each[0], settings, 1.0)]
    doubted.sort(key=lambda each: _nearness(each[0], settings, 1.0), reverse=True)
    found: list[ClusterPlan] = []
    others: list[ClusterPlan] = []
    for _, candidates in [*believed, *doubted[:_NUM_DOUBTED]]:
        plan = _find_best(candidates, settings)
        (found if plan.hold_chance >= settings.confidence else others).append(plan)
        if len(found) == NUM_PLANS:
            break
    if not found:
        raise InputError(_explain(offers, others, settings))
    return sorted(found, key=lambda plan: _rank_plan(plan, settings))


def _allowed(candidates: Iterable[Candidate], settings: PlanSettings) -> list[Candidate]:
    return [each for each in candidates if each.num_machines <= settings.max_instances]


def _find_best(candidates: Sequence[Candidate], settings: PlanSettings) -> ClusterPlan:
    """The best candidate of a type that holds; or, where none does, the one that nearly does."""
    tried: dict[tuple[int, int], ClusterPlan] = {}
    stretch = 1.0
    for _ in range(_MAX_PROPOSED):
        candidate = _propose(candidates, settings, stretch)
        machines = (candidate.num_instances, candidate.num_helpers)
        known = tried.get(machines)
        if known is None:
            outcome = simulate_candidate(candidate, settings)
            tried[machines] = _plan(candidate, outcome, settings)
            stretch = _stretch_of(candidate, outcome, settings)
            if len(tried) == _MAX_SIMULATED:
                break
        elif known.hold_chance >= settings.confidence:
            break
        else:
            stretch *= _STEP
    holding = [plan for plan in tried.values() if plan.hold_chance >= settings.confidence]
    if holding:
        return min(holding, key=lambda plan: _rank_plan(plan, settings))
    return max(tried.values(), key=lambda plan: (plan.hold_chance, -plan.confident_wall_s))


def _propose(candidates: Sequence[Candidate], settings: PlanSettings, stretch: float) -> Candidate:
    """The best candidate of a type that the formula believes in, or the nearest to it."""
    believed = [each for each in candidates if _is_believed(each, settings, stretch)]
    if believed:
        return min(believed, key=lambda each: _rank(each, settings))
    return max(candidates, key=lambda each: _nearness(each, settings, stretch))


def _is_believed(candidate: Candidate, settings: PlanSettings, stretch: float) -> bool:
    return _nearness(candidate, settings, stretch)[0] >= NormalDist().inv_cdf(settings.confidence)


def _nearness(candidate: Candidate, settings: PlanSettings, stretch: float) -> tuple[float, float]:
    """How far, in sigmas of the type's rate, the formula's time is from deadline and budget.

    Where machines do not even start in time, the fastest is the nearest.

    Args:
        candidate: The candidate.
        settings: Deadline, budget and assumptions.
        stretch: Factor of the time that machines work.
    """
    work_s = stretch * (candidate.wall_s - settings.startup_s)
    left_s = _limit_s(candidate, settings) - settings.startup_s
    if left_s <= 0:
        return -math.inf, -candidate.wall_s
    sigma = rate_sigma(candidate.offer, candidate.num_instances)
    return math.log(left_s / work_s) / sigma, -candidate.wall_s


def _stretch_of(candidate: Candidate, outcome: Outcome, settings: PlanSettings) -> float:
    """Factor of the time that machines work, by which the formula is made to agree."""
    sigmas = NormalDist().inv_cdf(settings.confidence)
    factor = math.exp(sigmas * rate_sigma(candidate.offer, candidate.num_instances))
    work_s = outcome.within_s(settings.confidence) - settings.startup_s
    return max(work_s / (factor * (candidate.wall_s - settings.startup_s)), _LEAST_STRETCH)


def _limit_s(candidate: Candidate, settings: PlanSettings) -> float:
    """Seconds that a cluster may take, for the deadline and for the budget."""
    limits = [math.inf if settings.deadline_s is None else settings.deadline_s]
    if settings.budget_usd is not None:
        limits.append(settings.budget_usd / candidate.usd_per_s)
    return min(limits)


def _plan(candidate: Candidate, outcome: Outcome, settings: PlanSettings) -> ClusterPlan:
    confident_s, usd_per_s = outcome.within_s(settings.confidence), candidate.usd_per_s
    return ClusterPlan(
        offer=candidate.offer,
        num_instances=candidate.num_instances,
        num_helpers=candidate.num_helpers,
        wall_s=outcome.within_s(0.5),
        confident_wall_s=confident_s,
        usd_total=outcome.mean_s * usd_per_s,
        confident_usd=confident_s * usd_per_s,
        hold_chance=outcome.chance_of(_limit_s(candidate, settings)),
        tail_s=candidate.tail_s,
        interruptions=candidate.interruptions,
        interruption_usd=candidate.interruption_usd,
        startup_usd=candidate.startup_usd,
        tail_usd=candidate.tail_usd,
    )


def _rank(candidate: Candidate, settings: PlanSettings) -> tuple[float, float, int, str]:
    """Order of candidates, by what the formula expects of the type's rate on average."""
    sigma = rate_sigma(candidate.offer, candidate.num_instances)
    work_s = (candidate.wall_s - settings.startup_s) * math.exp(sigma**2 / 2)
    usd = (settings.startup_s + work_s) * candidate.usd_per_s
    order = (usd, candidate.wall_s) if settings.deadline_s is not None else (candidate.wall_s, usd)
    return *order, candidate.num_machines, candidate.offer.instance_type


def _rank_plan(plan: ClusterPlan, settings: PlanSettings) -> tuple[float, float, int, str]:
    by_usd = settings.deadline_s is not None
    order = (plan.usd_total, plan.wall_s) if by_usd else (plan.wall_s, plan.usd_total)
    return *order, plan.num_instances + plan.num_helpers, plan.offer.instance_type


def _explain(
    offers: Sequence[MachineOffer], others: Sequence[ClusterPlan], settings: PlanSettings
) -> str:
    """Say that no cluster will do, which comes nearest, and what the deadline would take."""
    nearest = max(others, key=lambda plan: (plan.hold_chance, -plan.confident_wall_s))
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
    hints = [
        f"the nearest allowed is {nearest.name}, with a chance of "
        f"{100 * nearest.hold_chance:.0f}% ({_brief(nearest, settings)})"
    ]
    if settings.deadline_s is not None:
        hints.append(_beyond(offers, settings))
    return f"no cluster makes {asked} with --confidence {settings.confidence:g}; " + "; ".join(
        hints
    )


def _beyond(offers: Sequence[MachineOffer], settings: PlanSettings) -> str:
    """The cheapest cluster that keeps the deadline without a limit of machines and money."""
    endless = replace(settings, budget_usd=None, max_instances=_BEYOND_INSTANCES)
    numbers = [*range(1, 257), *range(256, _BEYOND_INSTANCES + 1, 16)]
    of_types = [list(list_candidates(offer, endless, numbers)) for offer in offers]
    cheapest = min(
        of_types,
        key=lambda candidates: (
            not _is_believed(best := _propose(candidates, endless, 1.0), endless, 1.0),
            *_rank(best, endless),
        ),
    )
    plan = _find_best(cheapest, endless)
    if plan.hold_chance < settings.confidence:
        return (
            "no number of machines makes that deadline: starting takes about "
            f"{format_short_duration(settings.startup_s)} (--startup-s)"
        )
    return f"the deadline would take {plan.name} ({_brief(plan, settings)})"


def _brief(plan: ClusterPlan, settings: PlanSettings) -> str:
    return (
        f"{100 * settings.confidence:g}% of its runs take up to "
        f"{format_short_duration(plan.confident_wall_s)} and {plan.confident_usd:,.2f} USD"
    )
