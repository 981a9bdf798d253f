"""Work out the report: what a run did, how fast, where the time went and what it cost.

    tally, nodes -> [summary] -> RunReport -> report.json, table, page

Rates and shares of what was added up while the run went on, as plain arithmetic. This module
neither reads nor writes a file; `run_report` says what the fields mean.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from fastformers.cluster.devices.scoring import Scoring
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice, usd_per_million
from fastformers.cluster.records.samples import NUM_BINS, TimedAttempt
from fastformers.cluster.records.tally import (
    ActorTally,
    KindSums,
    ReceiptSums,
    RunTally,
    add_phases,
)
from fastformers.cluster.report.bill import (
    NodeTime,
    compare_prediction,
    estimate_saved_usd,
    itemize,
    round_total,
)
from fastformers.cluster.report.downsample import group_actors
from fastformers.cluster.report.over_time import (
    AgreementReport,
    KindReport,
    NodeReport,
    TimelineEntry,
    TokensOverTime,
)
from fastformers.cluster.report.run_report import (
    ActorReport,
    Bill,
    BundleUsed,
    EarlierRuns,
    Energy,
    PhaseSeconds,
    RunReport,
)
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.inference.cpu import read_cpu_model

# A card that computes for less of its time waits for its host.
_FULL_SHARE = 0.9


def build_report(
    job: ScoreJob, result: RunResult, prices: MachinePrices, *, energy: Energy | None = None
) -> RunReport:
    """Everything that was measured, and what follows from it.

    Args:
        job: What was to be done.
        result: What was done.
        prices: Prices of the machines.
        energy: Electricity that the driver's node drew, if it was measured.

    Returns:
        The report, without what the run would have cost on other instance types.
    """
    tally, wall_s = result.tally, result.wall_s
    known, scored = tally.known, tally.scored
    cores_of = _cores_of_machines(result.nodes)
    paid = [
        prices.price_of(use.instance_type, num_cores=cores_of[use.machine or use.node])
        for use in result.nodes
    ]
    times = [_node_time(use, price, result) for use, price in zip(result.nodes, paid, strict=True)]
    usd_total = math.fsum(time.usd for time in times)
    both = ReceiptSums()
    both.add_sums(tally.earlier)
    both.add_sums(scored)
    return RunReport(
        rows=known.num_rows,
        unique_rows=known.num_unique,
        tokens=known.num_tokens,
        unique_tokens=known.num_unique_tokens,
        rows_per_second=scored.num_rows / wall_s,
        tokens_per_second=scored.num_tokens / wall_s,
        padding_efficiency=both.padding_efficiency,
        wall_s=wall_s,
        setup_s=result.setup_s,
        usd_per_hour=_mean_usd_per_hour(times),
        price="; ".join(dict.fromkeys(price.label for price in paid)),
        price_is_estimate=any(price.is_estimate for price in paid),
        usd_total=usd_total,
        usd_per_million=usd_per_million(usd_total, scored.num_rows) if scored.num_rows else None,
        dead_letters=result.dead_letters,
        resumed_shards=tally.earlier.num_shards,
        resumed_rows=tally.earlier.num_rows,
        shards=known.num_shards,
        retries=tally.num_retries,
        skipped_files=dict(result.skipped_files),
        left_out=job.corpus.left_out if job.corpus is not None else (),
        unfit_values=dict(tally.unfit),
        num_actors=result.num_actors,
        num_machines=result.num_machines,
        kinds=_kinds(job, result, times, both),
        agreement=_agreement(job, tally),
        nodes=tuple(
            _node_report(use, time, price)
            for use, time, price in zip(result.nodes, times, paid, strict=True)
        ),
        cores=tuple(use.self_check for use in result.nodes if use.self_check),
        driver_cpu=read_cpu_model(),
        phase_s=_phases(tally, times),
        predicted_s=scored.predicted_s,
        peak_rss_bytes=scored.peak_rss_bytes,
        actors=_by_actor(tally),
        started_at=datetime.fromtimestamp(result.started_at, UTC).isoformat(timespec="seconds"),
        bill=_bill(result, times, usd_total),
        other_types=(),
        other_types_unknown="not estimated",
        energy=energy,
        lengths=_lengths(both),
        earlier=_earlier(tally.earlier),
        attempts=tally.attempts.num_added,
        timeline=tuple(_entry(timed) for timed in tally.attempts.attempts()),
        tokens_over_time=_tokens_over_time(tally),
        bundle=BundleUsed(
            path=str(job.bundle),
            precision=job.scorings[0].precision,
            digest=job.bundle.digest,
            max_batch_tokens=job.max_batch_tokens,
            profile_cpu=job.bundle.cost_profile.cpu_model,
            engine=job.engine,
        ),
        output=str(job.output or job.shards),
    )


def _node_time(use: NodeUse, price: HourlyPrice, result: RunResult) -> NodeTime:
    return NodeTime(
        joined_s=use.joined_s,
        left_s=use.left_s,
        ready_s=use.joined_s if use.ready_s is None else use.ready_s,
        work_end_s=result.work_end_s,
        num_idle_cores=use.num_idle_cores,
        actors=tuple(
            (result.tally.actors.get((use.node, actor)), num_cores)
            for actor, num_cores in use.actor_cores.items()
        ),
        usd_per_hour=price.usd_per_hour,
        free_s=_overlap_s(use, result.nodes) if use.device == "cpu" else 0.0,
    )


def _overlap_s(use: NodeUse, nodes: Iterable[NodeUse]) -> float:
    """Seconds of a node in which the GPUs of its machine were paid for, and it with them."""
    return math.fsum(
        max(0.0, min(use.left_s, other.left_s) - max(use.joined_s, other.joined_s))
        for other in nodes
        if other.device == "cuda" and other.machine == use.machine
    )


def _cores_of_machines(nodes: Iterable[NodeUse]) -> dict[str, int]:
    """Physical cores of each machine, those of both of its nodes where it has GPUs."""
    parts = {(use.machine or use.node, use.device): use.num_cores for use in nodes}
    cores: Counter[str] = Counter()
    for (machine, _), num_cores in parts.items():
        cores[machine] += num_cores
    return cores


def _kinds(
    job: ScoreJob, result: RunResult, times: Sequence[NodeTime], both: ReceiptSums
) -> tuple[KindReport, ...]:
    """What actors on each device did; some may have worked in earlier runs alone."""
    scorings: dict[str, Scoring] = {}
    if job.output is not None:
        scorings = {scoring.device: scoring for scoring in job.scorings}
    own = list(zip(result.nodes, times, strict=True))
    found = {(use.device, None) for use in result.nodes if use.actor_cores}
    found -= {(device, None) for device, _ in both.kinds}
    kinds = []
    for device, precision in (*both.kinds, *found):
        nodes = [(use, time) for use, time in own if use.device == device]
        scoring = scorings.get(device)
        if scoring is not None and precision is None:
            precision = scoring.precision
        sums = both.kinds.get((device, precision), KindSums())
        new = result.tally.scored.kinds.get((device, precision), KindSums())
        actors = [actor for _, time in nodes for actor, _ in time.actors if actor is not None]
        usd = math.fsum(time.usd for _, time in nodes)
        kinds.append(
            KindReport(
                device=device,
                precision=precision,
                engine=None if scoring is None else scoring.engine,
                max_batch_tokens=None if scoring is None else scoring.max_batch_tokens,
                actors=sum(len(use.actor_cores) for use, _ in nodes),
                machines=len({use.machine or use.name for use, _ in nodes}),
                shards=sums.num_shards,
                rows=sums.num_rows,
                tokens=sums.num_tokens,
                share_of_tokens=sums.num_tokens / (both.num_scored_tokens or 1),
                usd=usd,
                usd_per_million=usd_per_million(usd, new.num_rows) if new.num_rows else None,
                **_use_of_time(actors, on_gpu=device == "cuda"),
            )
        )
    return tuple(sorted(kinds, key=lambda kind: kind.device))


def _use_of_time(actors: Sequence[ActorTally], *, on_gpu: bool) -> dict[str, Any]:
    """What actors did with the time from their first batch to their last; see `KindReport`."""
    span_s = math.fsum(actor.span_s for actor in actors)
    watched_s = math.fsum(actor.gpu_watched_s for actor in actors)
    computing = busy = bound_by = None
    if span_s > 0:
        computing = min(1.0, math.fsum(actor.infer_s for actor in actors) / span_s)
    if watched_s > 0:
        busy = math.fsum(actor.gpu_busy_s for actor in actors) / watched_s
    if on_gpu and computing is not None:
        is_full = min(computing, 1.0 if busy is None else busy) >= _FULL_SHARE
        bound_by = "card" if is_full else "host"
    return {
        "computing": computing,
        "waiting": None if computing is None else 1.0 - computing,
        "gpu_busy": busy,
        "bound_by": bound_by,
    }


def _agreement(job: ScoreJob, tally: RunTally) -> AgreementReport | None:
    agreement = tally.agreement
    if not agreement.num_texts:
        return None
    return AgreementReport(
        precisions=tuple(scoring.precision for scoring in job.scorings),
        texts=agreement.num_texts,
        equal_labels=agreement.num_equal / agreement.num_texts,
        largest_difference=agreement.largest_difference,
    )


def _mean_usd_per_hour(times: Sequence[NodeTime]) -> float:
    """Price of one machine: the one that all have, or the mean over the time of all."""
    rates = {time.usd_per_hour for time in times}
    paid_s = math.fsum(time.charged_s for time in times)
    if len(rates) == 1 or paid_s <= 0:
        return max(rates)
    return math.fsum(time.usd for time in times) / paid_s * 3600


def _node_report(use: NodeUse, time: NodeTime, price: HourlyPrice) -> NodeReport:
    own = [actor for actor, _ in time.actors if actor is not None]
    rows = sum(actor.num_rows for actor in own)
    return NodeReport(
        name=use.name,
        device=use.device,
        instance_type=use.instance_type,
        joined_s=use.joined_s,
        left_s=use.left_s,
        actors=len(time.actors),
        shards=sum(actor.num_shards for actor in own),
        rows=rows,
        rows_per_second=rows / time.paid_s if time.paid_s > 0 else 0.0,
        usd_per_hour=price.usd_per_hour,
        price=price.label,
        usd=time.usd,
        left_because=use.reason,
    )


def _bill(result: RunResult, times: Sequence[NodeTime], usd_total: float) -> Bill:
    tally = result.tally
    items = itemize(times, padding_efficiency=tally.scored.padding_efficiency)
    cores_of = {
        (use.node, actor): num_cores
        for use in result.nodes
        for actor, num_cores in use.actor_cores.items()
    }
    on_gpus = any(device == "cuda" for device, _ in tally.scored.kinds)
    prediction = compare_prediction(
        0.0 if on_gpus else tally.scored.predicted_s,  # the profile speaks of cores
        math.fsum(actor.infer_s * cores_of.get(key, 1) for key, actor in tally.actors.items()),
        [
            (predicted_s, infer_s * cores_of.get(key, 1))
            for predicted_s, infer_s, key in tally.predictions.items
        ],
    )
    saved = estimate_saved_usd(
        items,
        num_tokens=tally.scored.num_tokens,
        num_scored_tokens=tally.scored.num_scored_tokens,
    )
    return Bill(
        items=tuple(items),
        total_usd=float(round_total(usd_total)),
        duplicates_saved_usd=float(saved),
        prediction=prediction,
    )


def _earlier(earlier: ReceiptSums) -> EarlierRuns | None:
    if not earlier.num_shards:
        return None
    return EarlierRuns(
        shards=earlier.num_shards,
        rows=earlier.num_rows,
        actor_s=earlier.actor_s,
        started_at=earlier.started_at,
        finished_at=earlier.finished_at,
    )


def _phases(tally: RunTally, times: Iterable[NodeTime]) -> PhaseSeconds:
    """Seconds of all actors by phase; idle is what remains of their time after the start."""
    phase_s = add_phases(tally.scored.phase_s, tally.slice_phase_s)
    available_s = math.fsum(
        len(time.actors) * (time.left_s - max(time.joined_s, time.ready_s)) for time in times
    )
    return PhaseSeconds(**phase_s, idle=max(0.0, available_s - sum(phase_s.values())))


def _lengths(sums: ReceiptSums) -> dict[str, tuple[int, int, int]]:
    edges = sorted(sums.lengths, key=int)
    return {edge: (*sums.lengths[edge],) for edge in edges}  # type: ignore[misc]


def _by_actor(tally: RunTally) -> dict[str, ActorReport]:
    """What was scored under each name; an actor of a node that came back has the name it had."""
    by_name: dict[str, list[ActorTally]] = {}
    for (_, name), actor in tally.actors.items():
        if actor.num_shards:
            by_name.setdefault(name, []).append(actor)
    actors: dict[str, ActorReport] = {}
    for name, own in sorted(by_name.items()):
        busy_s = math.fsum(actor.busy_s for actor in own)
        rows = sum(actor.num_rows for actor in own)
        actors[name] = ActorReport(
            shards=sum(actor.num_shards for actor in own),
            rows=rows,
            rows_per_second=rows / busy_s if busy_s > 0 else 0.0,
            tokens_per_second=sum(a.num_tokens for a in own) / busy_s if busy_s > 0 else 0.0,
            busy_s=busy_s,
            peak_rss_bytes=max(actor.peak_rss_bytes for actor in own),
        )
    return actors


def _entry(timed: TimedAttempt) -> TimelineEntry:
    """An attempt, and what came out of it if it scored a shard."""
    attempt, receipt = timed.attempt, timed.receipt
    return TimelineEntry(
        job=attempt.job,
        name=attempt.name,
        actor=attempt.actor,
        attempt=attempt.number,
        lost=attempt.is_lost,
        start_s=attempt.start_s,
        end_s=attempt.end_s,
        busy_s=sum(attempt.phase_s.values()),
        infer_s=attempt.phase_s.get("infer", 0.0),
        rows=receipt.num_rows if receipt else 0,
        tokens=receipt.num_tokens if receipt else 0,
        predicted_s=receipt.predicted_s if receipt else 0.0,
        rss_bytes=receipt.rss_bytes if receipt else 0,
    )


def _tokens_over_time(tally: RunTally) -> TokensOverTime:
    scored = {key: actor.tokens for key, actor in tally.actors.items() if actor.num_shards}
    group_of = group_actors(sorted({name for _, name in scored}))
    bin_s = max((tokens.bin_s for tokens in scored.values()), default=1.0)
    groups = {group: [0.0] * NUM_BINS for group in dict.fromkeys(group_of.values())}
    for (_, name), tokens in scored.items():
        tokens.widen(NUM_BINS * bin_s)
        total = groups[group_of[name]]
        for place, amount in enumerate(tokens.amounts):
            total[place] += amount
    last = max((place for bins in groups.values() for place, n in enumerate(bins) if n), default=-1)
    return TokensOverTime(
        bin_s=bin_s, groups={name: tuple(bins[: last + 1]) for name, bins in groups.items()}
    )
