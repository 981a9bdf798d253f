"""Do plans hold, and what do they cost? Random plans, and runs of each whose truth is drawn anew.

    python -m tests.cluster.cost.planning.trials --output tests/cluster/cost/planning/trials.json

A trial draws a corpus (lengths, their drift, its size), the machine on which the bundle was
measured, a dozen instance types of the shipped price table, a deadline and a market. The corpus is
sampled and costed by the product's own code, and a plan is made with `--confidence 0.95`; a
question that no cluster answers is drawn again, and counted.

Then the truth is drawn, by this file and with random numbers of its own, many times: all rows of
the corpus instead of the sample; a rate of the type that is off by a lognormal factor, within the
type's error factor in 95% of cases; machines, starts, shards, stragglers and spot losses. All
machines are there and no line is fitted; where an actor has more than four shards, a run has at
most 128 actors, and bundles of shards before the last four of each. Truth and planner share the
simulation of events and the kinds of distributions, which are the product's stated assumptions.

- A run misses if it ends after the deadline.
- The cheapest plan that holds is the cheapest cluster, of any of the types and any size, whose own
  chance to miss is at most 5% for one who knows the whole corpus and the distribution of rates,
  but, as nobody can, not the rate that a run will meet. It is found by the planner's simulation
  with another seed and larger runs; no plan counts as cheaper than it. A plan's cost is the mean of
  its true runs.
- The hindsight figure is a harder comparison: for each run, the cheapest size of the planned type
  that would just have met the deadline at the rate that this run met.
"""

import argparse
import itertools
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from fastformers.cluster.cost.bundle_cost import BundleCost, CostSettings, plan_offers
from fastformers.cluster.cost.instances import estimate_instances
from fastformers.cluster.cost.machine_profile import MachineProfile
from fastformers.cluster.cost.planning.candidates import (
    MEASURED_ERROR,
    NODE_SIGMA,
    SHARD_SIGMA,
    list_candidates,
    predict_cluster,
)
from fastformers.cluster.cost.planning.cluster_plan import ClusterPlan, plan_cluster
from fastformers.cluster.cost.planning.offers import MachineOffer, PlanSettings
from fastformers.cluster.cost.planning.outcome import simulate_candidate
from fastformers.cluster.cost.sampling import CorpusSample, Window
from fastformers.cluster.cost.type_speed import ModelTraits
from fastformers.cluster.cost.workload import estimate_workload
from fastformers.cluster.pricing.prices import load_prices
from fastformers.cluster.scaling.cluster_model import Machines, Scheduling, Work
from fastformers.cluster.scaling.simulation import simulate
from fastformers.errors import InputError
from fastformers.inference.cost_profile import CostProfile

TODAY = date(2026, 11, 26)
CONFIDENCE = 0.95
NUM_TYPES, MAX_LENGTH = 12, 256
# Windows of a corpus, those that are sampled, rows of each that exist, and that are tokenized.
ALL_WINDOWS, SAMPLED, ROWS, TAKEN = 320, 32, 800, 160
# Actors of a true run at most, bundles of each before the end, and single shards at the end.
MAX_ACTORS, BUNDLES, SINGLE = 128, 16, 4


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A question, and what is true.

    Attributes:
        offers: Types, as the planner sees them.
        true_offers: The same types with the work of the whole corpus.
        settings: Deadline and market.
    """

    offers: list[MachineOffer]
    true_offers: list[MachineOffer]
    settings: PlanSettings


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a trial.

    Attributes:
        plan: Machines of the plan.
        deadline_s: The deadline.
        error_factor: Error factor of the planned type.
        promised: Chance to hold that the plan promised.
        num_missed, num_runs: Runs that missed the deadline, and all of them.
        worst: Longest run over the deadline.
        median_missed: Whether the median run missed.
        usd_ratio: Expected cost over that of the cheapest plan that holds.
        hindsight_ratio: Mean cost of a run over that of the cheapest size in hindsight.
        num_refused: Questions before it that no cluster answered.
    """

    plan: str
    deadline_s: float
    error_factor: float
    promised: float
    num_missed: int
    num_runs: int
    worst: float
    median_missed: bool
    usd_ratio: float
    hindsight_ratio: float
    num_refused: int


def draw_trial(seed: int) -> Trial:
    """A random question; the number of rows follows from a random number of machines."""
    rng = np.random.default_rng([seed, 1])
    prices, names = load_prices(), rng.permutation(sorted(load_prices()))
    table = {name: prices[name] for name in names[:NUM_TYPES].tolist()}
    profile = _draw_profile(rng, list(table))
    traits = ModelTraits(
        multiply_adds_per_token=round(4.5e6 * rng.uniform(0.5, 20)),
        width=int(rng.choice([312, 384, 768])),
        is_int8=True,
        has_gpu_graph=bool(rng.random() < 0.4),
    )
    spot = bool(rng.random() < 0.4)
    settings = PlanSettings(
        deadline_s=float(np.exp(rng.uniform(math.log(1200), math.log(86_400)))),
        confidence=CONFIDENCE,
        spot=spot,
        startup_s=float(rng.choice([120, 180, 300])),
        interruptions_per_hour=float(rng.choice([0.02, 0.05, 0.2])),
        seed=seed,
    )
    lengths = _draw_lengths(rng)
    market = CostSettings(today=TODAY, market="spot" if spot else "on-demand")

    def offers_of(sample: CorpusSample) -> list[MachineOffer]:
        workload = estimate_workload(sample, profile, shards_by=profile.cost)
        instances = estimate_instances(
            [(profile, workload)],
            table,
            traits=traits,
            market=market.market,
            discount_percent=0.0,
            today=TODAY,
        )
        cost = BundleCost(bundle=None, workload=workload, instances=instances, profiles=(profile,))
        return plan_offers(cost, market)

    usual = offers_of(_sample(lengths, rng, rows=10**8))
    if not usual:
        return draw_trial(seed + 1_000_000)  # none of the types is sold so
    num_machines = math.exp(rng.uniform(0, math.log(50)))
    left_s = settings.deadline_s - settings.startup_s
    rows = max(20_000, round(1e8 * num_machines * left_s / min(o.job_s for o in usual)))
    estimated = offers_of(_sample(lengths, rng, rows=rows))
    true = offers_of(_sample(lengths, rng, rows=rows, is_whole=True))
    return Trial(
        offers=estimated,
        true_offers=[replace(offer, sample_error=0.0) for offer in true],
        settings=settings,
    )


def _draw_profile(rng: np.random.Generator, names: list[str]) -> MachineProfile:
    """Seconds of a bundle on some machine, which is now and then of one of the types."""
    pace = math.exp(rng.uniform(math.log(1e-6), math.log(3e-4)))
    lengths = (2, 9, 37, 139, 256)
    seconds = tuple(pace * (length + length**2 / 400) for length in lengths)
    prices = load_prices()
    cpus = [name for name in names if not prices[name].gpu_count]
    own = prices[cpus[0]] if cpus and rng.random() < 0.3 else None
    return MachineProfile(
        bundle_digest="",
        instance_type=None if own is None else own.instance_type,
        num_workers=1 if own is None else own.physical_cores,
        cost=CostProfile(
            engine="",
            cpu_model="",
            max_batch_tokens=512,
            lengths=lengths,
            seconds_per_row=seconds,
            cpu_generation="turin" if own is None else own.cpu_generation,
        ),
        tokenize_s_per_token=1 / 900_000,
        overhead_share=0.005,
        origin="calibration",
        measured_at="2026-11-26",
    )


def _draw_lengths(rng: np.random.Generator) -> np.ndarray:
    """Tokens of the rows of all windows of a corpus, whose texts drift and come in clusters."""
    middle, spread = rng.uniform(12, 180), rng.uniform(0.2, 1.0)
    drift = np.linspace(-1, 1, ALL_WINDOWS) * rng.uniform(0, 0.4)
    clusters = rng.normal(0, rng.uniform(0.02, 0.25), ALL_WINDOWS)
    centers = np.log(middle) + drift + clusters
    lengths = np.exp(centers[:, None] + spread * rng.standard_normal((ALL_WINDOWS, ROWS)))
    return np.clip(np.rint(lengths), 2, MAX_LENGTH).astype(np.int64)


def _sample(
    lengths: np.ndarray, rng: np.random.Generator, *, rows: int, is_whole: bool = False
) -> CorpusSample:
    """A sample of a corpus of so many rows, or all of it."""
    strata = np.array_split(np.arange(ALL_WINDOWS), SAMPLED)
    chosen = [int(rng.choice(stratum)) for stratum in strata]
    size = rows // ALL_WINDOWS
    windows = []
    for number in range(ALL_WINDOWS) if is_whole else chosen:
        taken = lengths[number] if is_whole else rng.choice(lengths[number], TAKEN, replace=False)
        windows.append(
            Window(
                size=size,
                num_rows=size,
                num_bad=0,
                num_unique=size,
                lengths_S=taken,
                is_first_S=np.ones(len(taken), bool),
            )
        )
    return CorpusSample(
        windows=tuple(windows),
        total_size=size * ALL_WINDOWS,
        num_windows=ALL_WINDOWS,
        is_rows=True,
        text_bytes=round(4.5 * size * ALL_WINDOWS * float(lengths.mean())),
        max_length=MAX_LENGTH,
    )


def draw_wall_s(
    plan: ClusterPlan, offer: MachineOffer, settings: PlanSettings, rng: np.random.Generator
) -> tuple[float, float]:
    """Seconds of a true run of a plan, and the factor of time that its type turned out to have."""
    sigma = math.log(max(offer.error_factor, MEASURED_ERROR)) / 1.96
    rate = math.exp(sigma * rng.standard_normal())
    nodes, machine_s = plan.num_instances, offer.job_s
    # The simulation below keeps the mean speed of the machines, so it is drawn here.
    factor = rate / float(np.mean(np.exp(NODE_SIGMA * rng.standard_normal(nodes))))
    if offer.helper is not None and plan.num_helpers:
        own, helpers = nodes / offer.helper.own_s, plan.num_helpers / offer.helper.helper_s
        machine_s = max(offer.helper.gpu_s, nodes / (own + helpers))
    shard_s = machine_s * offer.num_actors / offer.num_shards * factor
    rounds = offer.num_shards / (nodes * offer.num_actors)
    per_node = offer.num_actors
    if rounds > SINGLE:
        per_node = min(per_node, max(1, MAX_ACTORS // nodes))
    actors = nodes * per_node
    num_shards = max(1, round(rounds * actors))
    single = min(num_shards, SINGLE * actors)
    counts = np.full(min(BUNDLES * actors, num_shards - single), 1)
    counts = counts * ((num_shards - single) // max(1, len(counts)))
    counts = np.concatenate([counts, np.ones(num_shards - counts.sum(), np.int64)])
    ratios = np.exp(SHARD_SIGMA * rng.standard_normal(2000) - SHARD_SIGMA**2 / 2)
    ratios[rng.random(2000) < 0.001] *= 4.0
    starts = settings.startup_s * np.exp(0.3 * rng.standard_normal(200) - 0.3**2 / 2)
    machines = Machines(
        num_actors=actors,
        actors_per_node=per_node,
        node_startup_s=tuple(starts.tolist()),
        node_sigma=NODE_SIGMA,
        interruptions_per_hour=settings.interruptions_per_hour if settings.spot else 0.0,
        noticed_after_s=10.0,
    )
    habits = Scheduling(jobs_in_hand=2 if counts[0] == 1 else 1, late_factor=2.0)
    work = Work(predicted_s=counts * shard_s, ratios=ratios, counts=counts)
    return simulate(work, machines, habits, seed=int(rng.integers(2**32))).wall_s, rate


def run_trial(seed: int, *, num_runs: int, finds_cheapest: bool = True) -> Result:
    """Plan, let true runs happen, and find the cheapest plan that would have held."""
    trial, plan, num_refused = _draw_plan(seed)
    settings = trial.settings
    offer = next(o for o in trial.true_offers if o.instance_type == plan.offer.instance_type)
    rng = np.random.default_rng([seed, 2])
    runs = [draw_wall_s(plan, offer, settings, rng) for _ in range(num_runs)]
    walls = np.array([wall_s for wall_s, _ in runs])
    usd_per_s = predict_cluster(
        offer, plan.num_instances, settings, num_helpers=plan.num_helpers
    ).usd_per_s
    usd = float(walls.mean()) * usd_per_s
    hindsight = [_usd_in_hindsight(offer, settings, rate) for _, rate in runs]
    cheapest = _find_cheapest_usd(trial, usd) if finds_cheapest else math.nan
    return Result(
        plan=plan.name,
        deadline_s=settings.deadline_s,
        error_factor=offer.error_factor,
        promised=plan.hold_chance,
        num_missed=int((walls > settings.deadline_s).sum()),
        num_runs=num_runs,
        worst=float(walls.max()) / settings.deadline_s,
        median_missed=bool(np.median(walls) > settings.deadline_s),
        usd_ratio=usd / cheapest,
        hindsight_ratio=usd / float(np.mean(hindsight)),
        num_refused=num_refused,
    )


def _draw_plan(seed: int) -> tuple[Trial, ClusterPlan, int]:
    """A question with its answer, and how many before it had none."""
    for num_refused in itertools.count():
        trial = draw_trial(seed + 1_000_000 * num_refused)
        try:
            return trial, plan_cluster(trial.offers, trial.settings)[0], num_refused
        except InputError:  # no hundred machines of these types do it
            continue
    raise AssertionError


def _usd_in_hindsight(offer: MachineOffer, settings: PlanSettings, rate: float) -> float:
    """Cost of the cheapest size of a type that meets the deadline at a rate that is known."""
    known = replace(
        offer,
        job_s=offer.job_s * rate,
        shard_s=offer.shard_s * rate,
        helper=None
        if offer.helper is None
        else replace(
            offer.helper,
            gpu_s=offer.helper.gpu_s * rate,
            own_s=offer.helper.own_s * rate,
            helper_s=offer.helper.helper_s * rate,
        ),
    )
    candidates = list(list_candidates(known, settings, range(1, settings.max_instances + 1)))
    in_time = [each.usd_total for each in candidates if each.wall_s <= settings.deadline_s]
    return min(in_time, default=min(candidates, key=lambda each: each.wall_s).usd_total)


def _find_cheapest_usd(trial: Trial, usd: float) -> float:
    """Expected cost of the cheapest cluster that holds; that of the plan, if none is cheaper.

    Sizes of a type are halved until the smallest that holds is found: with more machines, fewer
    runs are late.
    """
    settings = replace(trial.settings, seed=trial.settings.seed + 77_777)
    best = usd
    for offer in trial.true_offers:
        sigma = math.log(max(offer.error_factor, MEASURED_ERROR)) / 1.96
        mean = math.exp(sigma**2 / 2)
        candidates = [
            each
            for each in list_candidates(offer, settings, range(1, settings.max_instances + 1))
            if each.num_machines <= settings.max_instances
            and each.usd_per_s * (settings.startup_s + mean * (each.wall_s - settings.startup_s))
            < 1.02 * best
            and each.wall_s < settings.deadline_s
        ]
        candidates.sort(key=lambda each: each.wall_s, reverse=True)
        low, high = 0, len(candidates)
        while low < high:
            middle = (low + high) // 2
            outcome = simulate_candidate(candidates[middle], settings, num_jobs=300)
            if outcome.chance_of(settings.deadline_s) >= CONFIDENCE:
                best = min(best, outcome.mean_s * candidates[middle].usd_per_s)
                high = middle
            else:
                low = middle + 1
    return best


def summarize(results: list[Result]) -> dict[str, float]:
    """What the trials say together."""
    runs = sum(result.num_runs for result in results)
    return {
        "plans": len(results),
        "refused": sum(result.num_refused for result in results),
        "runs": runs,
        "missed_share": sum(result.num_missed for result in results) / runs,
        "promised_missed_share": 1 - float(np.mean([result.promised for result in results])),
        "median_runs_missed": sum(result.median_missed for result in results),
        "worst": max(result.worst for result in results),
        "usd_ratio": float(np.mean([result.usd_ratio for result in results])),
        "usd_ratio_worst": max(result.usd_ratio for result in results),
        "hindsight_ratio": float(np.mean([result.hindsight_ratio for result in results])),
    }


def main() -> int:
    """Run the trials; returns 1 if plans do not hold or cost too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20, help="true runs of each plan")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--output", type=Path, help="JSON of all trials")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.trials)
    results = []
    with ProcessPoolExecutor(options.processes) as pool:
        for result in pool.map(partial(run_trial, num_runs=options.runs), seeds):
            results.append(result)
            sys.stderr.write(f"{len(results)}: {result}\n")
    summary = summarize(results)
    if options.output is not None:
        trials = [asdict(result) for result in results]
        text = json.dumps({"seed": options.seed, **summary, "trials": trials}, indent=1)
        options.output.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(summary) + "\n")
    return int(summary["missed_share"] > 1 - CONFIDENCE or summary["usd_ratio"] > 1.15)


if __name__ == "__main__":
    sys.exit(main())
