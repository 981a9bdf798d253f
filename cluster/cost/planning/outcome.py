"""Simulate a candidate many times, and say how long it may take and how surely it is in time.

    candidate -> [outcome] -> seconds by their chance -> plan

Each run draws how fast the type really is, how much work the corpus really holds, how fast each
machine is, when it starts, how long each shard takes, and which spot machines are taken away; then
the simulation of `scaling` lets the driver's habits play. All candidates meet the same luck, so
that their differences are their own.

A run with a hundred thousand shards takes a second to simulate, and a plan compares hundreds of
runs. So a large job is simulated smaller: fewer machines and actors, each with as many shards as
before, and shards that are far from the end in bundles. What was simplified so is checked against
runs that are not. This module knows nothing of markets and deadlines.

Shape suffixes: R simulated runs, J jobs of a run, G points of the distribution.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.cost.planning.candidates import (
    NODE_SIGMA,
    SHARD_SIGMA,
    Candidate,
    estimate_busy_s,
    rate_sigma,
    useful_share,
)
from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.cluster.scaling.cluster_model import Machines, Scheduling, Work
from fastformers.cluster.scaling.simulation import simulate

# What the driver does, as far as it decides when a run ends; its own time is too little to count.
HABITS = Scheduling(jobs_in_hand=2, late_factor=2.0)
NUM_RUNS = 32
# Jobs of a simulated run, about: 32 runs of so many take a tenth of a second.
_NUM_JOBS = 240
# A bundle is this part of what is left for each actor (Polychronopoulos and Kuck 1987 take all of
# it): so the shards at the end, by which a run ends, are single ones.
_BUNDLES_LEFT = 3
# Spread of the starts of equal machines, as the sigma of a lognormal; one shard in a thousand takes
# four times as long; a lost machine is noticed within these seconds. All are assumed but the last,
# which a run promises.
_START_SIGMA, _STRAGGLERS, _STRAGGLER_FACTOR, _NOTICED_AFTER_S = 0.3, 0.001, 4.0, 10.0
_NUM_DRAWN = 4096
_RATES = 199


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How long a candidate may take.

    Attributes:
        walls_G: Seconds from asking for machines to the last prediction, ascending; each is as
            likely as the others.
    """

    walls_G: NDArray[np.float64]

    @property
    def mean_s(self) -> float:
        """Expected seconds."""
        return float(self.walls_G.mean())

    def within_s(self, chance: float) -> float:
        """Seconds that are not exceeded with this chance, 0-1."""
        return float(np.quantile(self.walls_G, chance))

    def chance_of(self, limit_s: float) -> float:
        """Chance that it takes no longer."""
        return float(np.searchsorted(self.walls_G, limit_s, side="right")) / len(self.walls_G)


def simulate_candidate(
    candidate: Candidate,
    settings: PlanSettings,
    *,
    num_runs: int = NUM_RUNS,
    num_jobs: int = _NUM_JOBS,
) -> Outcome:
    """Simulate a candidate.

    The rate's factors are spread evenly over its lognormal distribution, one for each run. The
    seconds of the runs rise with them about linearly, so each run is taken apart into the line
    through all of them and its own deviation, and each deviation may happen at any rate: a few
    runs say as much as thousands.

    Args:
        candidate: The candidate.
        settings: Assumptions, and the seed of all random numbers.
        num_runs: Runs to simulate, at least 2.
        num_jobs: Jobs of each, about; more are closer to the real run and take longer.
    """
    sigma = rate_sigma(candidate.offer, candidate.num_instances)
    rng = np.random.default_rng(settings.seed)
    places_R = (rng.permutation(num_runs) + 0.5) / num_runs
    factors_R = _lognormal(places_R, sigma)
    runs = _Runs(candidate, settings, num_jobs)
    walls_R = np.array(
        [
            runs.wall_s(float(factor), seed=settings.seed * num_runs + number)
            for number, factor in enumerate(factors_R)
        ]
    )
    slope = float(np.cov(factors_R, walls_R, bias=True)[0, 1] / np.var(factors_R))
    slope = min(max(slope, 0.0), float(walls_R.mean() / factors_R.mean()))
    base_s = float(walls_R.mean() - slope * factors_R.mean())
    deviations_R = walls_R / (base_s + slope * factors_R)
    rates_G = _lognormal((np.arange(_RATES) + 0.5) / _RATES, sigma)
    walls_G = np.outer(base_s + slope * rates_G, deviations_R).ravel()
    return Outcome(walls_G=np.sort(walls_G))


class _Runs:
    """A candidate as the simulation sees it."""

    def __init__(self, candidate: Candidate, settings: PlanSettings, num_jobs: int) -> None:
        offer, num_nodes = candidate.offer, candidate.num_instances
        num_actors = num_nodes * offer.num_actors
        rounds = offer.num_shards / num_actors
        # Lost helpers are an average loss of pace; machines that score are lost one by one.
        useful = useful_share(offer, settings)
        job_s = estimate_busy_s(offer, num_nodes, candidate.num_helpers * useful) * num_nodes
        self._shard_s = job_s * offer.num_actors / offer.num_shards
        most_actors = max(1, int(num_jobs / _num_jobs_of_actor(rounds)))
        nodes = min(num_nodes, most_actors)
        per_node = max(1, min(offer.num_actors, most_actors // nodes))
        num_shards = max(1, round(rounds * nodes * per_node))
        # Of more actors that are at their last shards, the latest is later.
        self._later = _latest(min(num_actors, offer.num_shards))
        self._later -= _latest(min(nodes * per_node, num_shards))
        self._counts_J = _bundle(num_shards, nodes * per_node)
        # A bundle read ahead would be held up as no shard is: by all of the one before it.
        are_single = bool(self._counts_J[0] == 1)
        self._habits = HABITS if are_single else replace(HABITS, jobs_in_hand=1)
        self._machines = Machines(
            num_actors=nodes * per_node,
            actors_per_node=per_node,
            node_startup_s=_starts(settings.startup_s),
            node_sigma=NODE_SIGMA,
            interruptions_per_hour=settings.interruptions_per_hour if settings.spot else 0.0,
            noticed_after_s=_NOTICED_AFTER_S,
        )

    def wall_s(self, factor: float, *, seed: int) -> float:
        """Seconds of one run in which all work takes `factor` times as long."""
        shard_s = self._shard_s * factor
        work = Work(
            predicted_s=np.multiply(self._counts_J, shard_s, dtype=np.float64),
            ratios=_ratios(),
            counts=self._counts_J,
        )
        run = simulate(work, self._machines, self._habits, seed=seed)
        return run.wall_s + self._later * shard_s


def _num_jobs_of_actor(rounds: float) -> float:
    """Jobs of an actor that does so many shards, as `_bundle` makes them."""
    if rounds <= _BUNDLES_LEFT:
        return max(1.0, rounds)
    return _BUNDLES_LEFT * (1 + math.log(rounds / _BUNDLES_LEFT))


def _bundle(num_shards: int, num_actors: int) -> NDArray[np.int64]:
    """Shards of each job, the most first."""
    counts: list[int] = []
    while num_shards:
        counts.append(max(1, num_shards // (_BUNDLES_LEFT * num_actors)))
        num_shards -= counts[-1]
    return np.array(counts, np.int64)


def _lognormal(places: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Factors of median 1 at these places of their distribution, 0-1."""
    normal = NormalDist()
    sigmas = np.array([normal.inv_cdf(place) for place in places.tolist()], np.float64)
    factors: NDArray[np.float64] = np.exp(sigma * sigmas)
    return factors


@cache
def _even_lognormal(sigma: float, num: int, seed: int) -> NDArray[np.float64]:
    """So many factors of mean 1, evenly over their distribution and in random order."""
    places = (np.random.default_rng(seed).permutation(num) + 0.5) / num
    factors = _lognormal(places, sigma)
    factors /= factors.mean()
    return factors


@cache
def _ratios() -> NDArray[np.float64]:
    """Times of shards over the expected ones."""
    ratios = _even_lognormal(SHARD_SIGMA, _NUM_DRAWN, 0).copy()
    ratios[: round(_STRAGGLERS * _NUM_DRAWN)] *= _STRAGGLER_FACTOR
    return ratios


def _latest(num_shards: int) -> float:
    """Expected ratio of the latest of so many shards, the late ones of which are copied."""
    copied = np.minimum(_ratios(), HABITS.late_factor + 1)
    return float(np.quantile(copied, num_shards / (num_shards + 1)))


def _starts(startup_s: float) -> tuple[float, ...]:
    """Seconds in which machines start."""
    return tuple((startup_s * _even_lognormal(_START_SIGMA, 256, 1)).tolist())
