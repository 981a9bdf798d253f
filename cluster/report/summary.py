"""Work out the report: what a run did, how fast, where the time went and what it cost.

    tally, nodes -> [summary] -> RunReport -> report.json, table, page

Rates and shares of what was added up while the run went on, as plain arithmetic. This module
neither reads nor writes a file; `run_report` says what the fields mean.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain

from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice, usd_per_million
from fastformers.cluster.records.quotes import Quotes
from fastformers.cluster.records.samples import NUM_BINS, TimedAttempt
from fastformers.cluster.records.sessions import RUNNING, Session
from fastformers.cluster.records.tally import ActorTally, ReceiptSums, RunTally, add_phases
from fastformers.cluster.report.bill import (
    Bill,
    NodeTime,
    compare_prediction,
    estimate_saved_usd,
    itemize,
    round_total,
    split,
)
from fastformers.cluster.report.downsample import group_actors
from fastformers.cluster.report.kinds import (
    cores_of_machines,
    free_seconds,
    summarize_agreement,
    summarize_audit,
    summarize_cascade,
    summarize_kinds,
    summarize_quality,
    uses_gpus,
)
from fastformers.cluster.report.over_time import NodeReport, TimelineEntry, TokensOverTime
from fastformers.cluster.report.run_report import (
    ActorReport,
    BundleUsed,
    Energy,
    PhaseSeconds,
    RunReport,
)
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.inference.cpu import read_cpu_model


def summarize_session(
    result: RunResult, prices: MachinePrices, *, run: str, state: str = RUNNING
) -> Session:
    """What one session has done and cost so far, or did until its end.

    Args:
        result: What it did.
        prices: Prices of the machines.
        run: Identifier of the session.
        state: How it ended.
    """
    scored = result.tally.scored
    paid, times = _price_nodes(result, prices)
    return Session(
        run=run,
        state=state,
        started_at=datetime.fromtimestamp(result.started_at, UTC).isoformat(timespec="seconds"),
        wall_s=result.wall_s,
        shards=scored.num_shards,
        rows=scored.num_rows,
        tokens=scored.num_tokens,
        retries=result.tally.num_retries,
        num_machines=result.num_machines,
        num_actors=result.num_actors,
        machine_s=math.fsum(time.charged_s for time in times),
        usd=math.fsum(time.usd for time in times),
        price="; ".join(dict.fromkeys(price.label for price in paid)),
        price_is_estimate=any(price.is_estimate for price in paid),
        price_mismatches=tuple(
            dict.fromkeys(price.mismatch for price in paid if price.mismatch is not None)
        ),
        spent=split(
            times,
            padding_efficiency=scored.padding_efficiency,
            second_share=scored.second_share,
        ),
        phase_s=_phases(result.tally, times),
        predicted_core_s=0.0 if uses_gpus(scored) else scored.expected_s,
        measured_core_s=_measured_core_s(result),
    )


def build_report(
    job: ScoreJob,
    result: RunResult,
    prices: MachinePrices,
    *,
    run: str = "",
    earlier: Sequence[Session] = (),
    quotes: Quotes | None = None,
    energy: Energy | None = None,
) -> RunReport:
    """Everything that was measured, and what follows from it.

    Args:
        job: What was to be done.
        result: What the last session did.
        prices: Prices of its machines.
        run: Identifier of the last session.
        earlier: The sessions before it.
        quotes: What all sessions said of the bill while they went; None for nothing.
        energy: Electricity that the driver's node drew, if it was measured.

    Returns:
        The report, without what the run would have cost on other instance types.
    """
    tally, known = result.tally, result.tally.known
    paid, times = _price_nodes(result, prices)
    sessions = (*earlier, summarize_session(result, prices, run=run, state="finished"))
    usd_total, num_rows, wall_s = (
        math.fsum(session.usd for session in sessions),
        sum(session.rows for session in sessions),
        math.fsum(session.wall_s for session in sessions),
    )
    both = ReceiptSums()
    both.add_sums(tally.earlier)
    both.add_sums(tally.scored)
    quality, quality_unknown = summarize_quality(job, both)
    bill = _bill(result, sessions, both, usd_total)
    return RunReport(
        rows=known.num_rows,
        unique_rows=known.num_unique,
        tokens=known.num_tokens,
        unique_tokens=known.num_unique_tokens,
        rows_per_second=num_rows / wall_s,
        tokens_per_second=sum(session.tokens for session in sessions) / wall_s,
        padding_efficiency=both.padding_efficiency,
        wall_s=wall_s,
        setup_s=result.setup_s,
        usd_per_hour=_mean_usd_per_hour(times, earlier),
        price="; ".join(dict.fromkeys(session.price for session in sessions)),
        price_is_estimate=any(session.price_is_estimate for session in sessions),
        price_mismatches=tuple(
            dict.fromkeys(chain.from_iterable(session.price_mismatches for session in sessions))
        ),
        usd_total=usd_total,
        usd_per_million=usd_per_million(usd_total, num_rows) if num_rows else None,
        dead_letters=result.dead_letters,
        dead_letter_reasons=dict(result.dead_letter_reasons),
        quality=quality,
        quality_unknown=quality_unknown,
        audit=summarize_audit(job, both, bill.items),
        resumed_shards=tally.earlier.num_shards,
        resumed_rows=tally.earlier.num_rows,
        sessions=sessions,
        unrecorded_rows=max(0, tally.earlier.num_rows - sum(session.rows for session in earlier)),
        shards=known.num_shards,
        retries=sum(session.retries for session in sessions),
        skipped_files=dict(result.skipped_files),
        left_out=job.corpus.left_out if job.corpus is not None else (),
        unfit_values=dict(tally.unfit),
        num_actors=result.num_actors,
        num_machines=result.num_machines,
        kinds=summarize_kinds(job, result, times, both),
        agreement=summarize_agreement(job, tally),
        cascade=summarize_cascade(job, both),
        nodes=tuple(
            _node_report(use, time, price)
            for use, time, price in zip(result.nodes, times, paid, strict=True)
        ),
        cores=tuple(use.self_check for use in result.nodes if use.self_check),
        driver_cpu=read_cpu_model(),
        phase_s=PhaseSeconds(**_sum_phases(sessions)),
        predicted_s=math.fsum(session.predicted_core_s for session in sessions),
        peak_rss_bytes=both.peak_rss_bytes,
        actors=_by_actor(tally),
        started_at=sessions[0].started_at,
        bill=bill,
        history=() if quotes is None else quotes.history,
        early_quote=None if quotes is None else quotes.early,
        other_types=(),
        other_types_unknown="not estimated",
        energy=energy,
        lengths=_lengths(both),
        attempts=tally.attempts.num_added,
        timeline=tuple(_entry(timed) for timed in tally.attempts.attempts()),
        tokens_over_time=_tokens_over_time(tally),
        bundle=BundleUsed(
            path=str(job.bundle),
            precision=job.scorings[0].precision,
            digest=job.bundle.digest,
            labels=job.bundle.labels,
            max_batch_tokens=job.max_batch_tokens,
            profile_cpu=job.bundle.cost_profile.cpu_model,
            engine=job.engine,
        ),
        corpus=_corpus_of(job),
        output=str(job.place),
    )


def _corpus_of(job: ScoreJob) -> str:
    """What the user called the corpus; where that is not known, where it lies."""
    asked = job.asked.get("corpus")
    if asked:
        return str(asked)
    files = job.corpus.files if job.corpus is not None else ()
    return files[0].path if files else str(job.shards)


def _price_nodes(
    result: RunResult, prices: MachinePrices
) -> tuple[list[HourlyPrice], list[NodeTime]]:
    """Price of each node, and its time at that price."""
    cores_of = cores_of_machines(result.nodes)
    paid = [
        prices.price_of(
            use.instance_type,
            num_cores=cores_of[use.machine or use.node],
            seen=use.machine_seen,
        )
        for use in result.nodes
    ]
    times = [_node_time(use, price, result) for use, price in zip(result.nodes, paid, strict=True)]
    return paid, times


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
        is_cut=result.is_cut,
        lost_work=use.lost_work,
        free_s=free_seconds(use, result.nodes),
    )


def _mean_usd_per_hour(times: Sequence[NodeTime], earlier: Sequence[Session]) -> float:
    """Price of one machine: the one that all have, or the mean over the time of all."""
    rates = {time.usd_per_hour for time in times}
    paid_s = math.fsum(
        [*(time.charged_s for time in times), *(session.machine_s for session in earlier)]
    )
    if (len(rates) == 1 and not earlier) or paid_s <= 0:
        return max(rates)
    usd = math.fsum([*(time.usd for time in times), *(session.usd for session in earlier)])
    return usd / paid_s * 3600


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


def _bill(
    result: RunResult, sessions: Sequence[Session], both: ReceiptSums, usd_total: float
) -> Bill:
    items = itemize([session.spent for session in sessions], usd_total=usd_total)
    cores_of = _cores_of_actors(result)
    prediction = compare_prediction(
        math.fsum(session.predicted_core_s for session in sessions),
        math.fsum(session.measured_core_s for session in sessions),
        [
            (predicted_s, infer_s * cores_of.get(key, 1))
            for predicted_s, infer_s, key in result.tally.predictions.items
        ],
    )
    saved = estimate_saved_usd(
        items, num_tokens=both.num_tokens, num_scored_tokens=both.num_scored_tokens
    )
    return Bill(
        items=tuple(items),
        total_usd=float(round_total(usd_total)),
        duplicates_saved_usd=float(saved),
        prediction=prediction,
    )


def _cores_of_actors(result: RunResult) -> dict[tuple[str, str], int]:
    """Cores of each actor, by its node's identifier and its own name."""
    return {
        (use.node, actor): num_cores
        for use in result.nodes
        for actor, num_cores in use.actor_cores.items()
    }


def _measured_core_s(result: RunResult) -> float:
    """Core-seconds of running the model."""
    cores_of = _cores_of_actors(result)
    return math.fsum(
        actor.infer_s * cores_of.get(key, 1) for key, actor in result.tally.actors.items()
    )


def _sum_phases(sessions: Iterable[Session]) -> dict[str, float]:
    """Seconds by phase, of all sessions."""
    total_s: dict[str, float] = {}
    for session in sessions:
        total_s = add_phases(total_s, session.phase_s)
    return total_s


def _phases(tally: RunTally, times: Iterable[NodeTime]) -> dict[str, float]:
    """Seconds of all actors by phase; idle is what remains of their time after the start."""
    phase_s = add_phases(tally.scored.phase_s, tally.slice_phase_s)
    available_s = math.fsum(
        len(time.actors) * (time.left_s - max(time.joined_s, time.ready_s)) for time in times
    )
    return {**phase_s, "idle": max(0.0, available_s - sum(phase_s.values()))}


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
        predicted_s=receipt.expected_s if receipt else 0.0,
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
