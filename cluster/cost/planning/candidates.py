"""The clusters that could do a job, and what a closed formula says of each.

    offers -> [candidates] -> clusters of all sizes -> simulated -> plan

All numbers of machines of all types are candidates, because on spot machines the cost need not rise
with their number: the head stays on demand, since its loss would stop the run. Beside machines with
GPUs, as many helpers without are tried as their texts need. The formula tells in microseconds which
of thousands are worth a simulation (`outcome.py`), and what a cluster's money is spent on. This
module knows nothing of deadlines, Ray or random numbers.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

from fastformers.cluster.cost.planning.offers import MachineOffer, PlanSettings
from fastformers.cluster.pricing.hardware import log_spread

# Spread of the time of equal shards on equal cores, as the sigma of a lognormal: what is left after
# shards were cut to equal predicted cost, neighbors on the host included. Assumed.
SHARD_SIGMA = 0.2
# Spread of the time of equal machines, as the sigma of a lognormal. Assumed, as `scale` does.
NODE_SIGMA = 0.05
# A type that was measured takes what was measured up to this factor: predictions of whole jobs were
# off by 7.8, 1.5, 1.0 and 10.3% (cluster/README.md), a root mean square of 6.5%.
MEASURED_ERROR = 1.14


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A cluster, and what it is predicted to take if its type's rate is the one assumed.

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

    @property
    def num_machines(self) -> int:
        """All machines, helpers among them."""
        return self.num_instances + self.num_helpers

    @property
    def usd_per_s(self) -> float:
        """Price of a second of all machines."""
        return self.usd_total / self.wall_s


def predict_cluster(
    offer: MachineOffer, num_instances: int, settings: PlanSettings, *, num_helpers: int = 0
) -> Candidate:
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
    useful = useful_share(offer, settings)
    num_actors = num_instances * offer.num_actors
    largest = num_actors / (num_actors + 1)
    spread = math.exp(SHARD_SIGMA * NormalDist().inv_cdf(largest)) if num_actors > 1 else 1.0
    calm_s = estimate_busy_s(offer, num_instances, num_helpers)
    busy_s = estimate_busy_s(offer, 1 + (num_instances - 1) * useful, num_helpers * useful)
    tail_s = offer.shard_s * (largest * spread - 0.5)
    if offer.num_shards < num_actors:  # no actor has a second shard
        busy_s, tail_s = 0.0, offer.shard_s * spread
    wall_s = settings.startup_s + busy_s + tail_s
    usd_per_hour = offer.usd_per_hour + (num_instances - 1) * offer.worker_usd_per_hour
    if offer.helper is not None:
        usd_per_hour += num_helpers * offer.helper.usd_per_hour
    usd_per_s = usd_per_hour / 3600
    return Candidate(
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


def useful_share(offer: MachineOffer, settings: PlanSettings) -> float:
    """Share of its time that a machine beside the head works for the job."""
    if not settings.spot:
        return 1.0
    per_s = settings.interruptions_per_hour / 3600
    return max(0.0, 1 - per_s * offer.shard_s / 2) / (1 + per_s * settings.startup_s)


def estimate_busy_s(offer: MachineOffer, machines: float, helpers: float) -> float:
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
    useful = useful_share(offer, settings)
    if offer.helper is None or not useful:
        return (0,)
    machines, helper = 1 + (num_instances - 1) * useful, offer.helper
    needed = machines * (1 / helper.gpu_s - 1 / helper.own_s) * helper.helper_s / useful
    left = max(0, settings.max_instances - num_instances)
    return sorted({0, min(left, math.floor(needed)), math.floor(needed), math.ceil(needed)})


def list_candidates(
    offer: MachineOffer, settings: PlanSettings, numbers: Iterable[int]
) -> Iterator[Candidate]:
    """Clusters of a type, of these numbers of machines without helpers.

    More machines than there are shards for are left out, for they only cost.
    """
    most = max(1, math.ceil(offer.num_shards / offer.num_actors))
    for number in numbers:
        if number <= most:
            for num_helpers in _numbers_of_helpers(offer, number, settings):
                yield predict_cluster(offer, number, settings, num_helpers=num_helpers)


def rate_sigma(offer: MachineOffer, num_instances: int) -> float:
    """Spread of the time of the whole job, as the sigma of a lognormal.

    The type's error factor, the sample's interval and the mean of so many machines add up. That
    mean is here alone: the simulation draws how machines differ around it, and keeps what all of
    them do together (`Draws.slowness`).
    """
    scaling = log_spread(max(offer.error_factor, MEASURED_ERROR))
    sampling = log_spread(1 + offer.sample_error)
    return math.hypot(scaling, sampling, NODE_SIGMA / math.sqrt(num_instances))


def name_machines(offer: MachineOffer, num_instances: int, num_helpers: int) -> str:
    """The machines of a cluster, as text: "3 x g6.xlarge + 1 x c8a.4xlarge"."""
    names = f"{num_instances} x {offer.instance_type}"
    if offer.helper is not None and num_helpers:
        names += f" + {num_helpers} x {offer.helper.instance_type}"
    return names
