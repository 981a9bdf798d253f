"""Work out the report: what a run did, how fast, where the time went and what it cost.

    receipts, attempts -> [summary] -> RunReport -> report.json, table, page

Sums and rates of what the actors reported, as plain arithmetic. This module neither reads nor
writes a file; `run_report` says what the fields mean.
"""

from datetime import UTC, datetime

from cluster.execution.job import ScoreJob
from cluster.execution.result import RunResult
from cluster.pricing.prices import HourlyPrice, usd_of, usd_per_million
from cluster.report.bill import (
    RunTimes,
    compare_prediction,
    estimate_saved_usd,
    itemize,
    round_total,
)
from cluster.report.run_report import (
    ActorReport,
    Bill,
    BundleUsed,
    EarlierRuns,
    Energy,
    PhaseSeconds,
    RunReport,
    TimelineEntry,
)
from cluster.shards.receipts import PHASES, Attempt, Receipt, add_lengths
from fastformers.inference.cpu import read_cpu_model


def build_report(
    job: ScoreJob, result: RunResult, price: HourlyPrice, *, energy: Energy | None = None
) -> RunReport:
    """Everything that was measured, and what follows from it.

    Args:
        job: What was to be done.
        result: What was done.
        price: Price of an hour of one machine.
        energy: Electricity that the driver's node drew, if it was measured.

    Returns:
        The report, without what the run would have cost on other instance types.
    """
    receipts = result.receipts
    rows_now = sum(receipt.num_rows for receipt in receipts)
    tokens_now = sum(receipt.num_tokens for receipt in receipts)
    wall_s = result.wall_s
    usd_total = usd_of(wall_s, usd_per_hour=price.usd_per_hour, num_machines=result.num_machines)
    return RunReport(
        rows=sum(shard.num_rows for shard in result.shards),
        unique_rows=sum(shard.num_unique for shard in result.shards),
        tokens=sum(shard.num_tokens for shard in result.shards),
        unique_tokens=sum(shard.num_unique_tokens for shard in result.shards),
        rows_per_second=rows_now / wall_s,
        tokens_per_second=tokens_now / wall_s,
        padding_efficiency=_padding_efficiency([*result.resumed, *receipts]),
        wall_s=wall_s,
        setup_s=result.setup_s,
        usd_per_hour=price.usd_per_hour,
        price=price.label,
        price_is_estimate=price.is_estimate,
        usd_total=usd_total,
        usd_per_million=usd_per_million(usd_total, rows_now) if rows_now else None,
        dead_letters=result.dead_letters,
        resumed_shards=len(result.resumed),
        resumed_rows=sum(receipt.num_rows for receipt in result.resumed),
        shards=len(result.shards),
        retries=result.num_retries,
        skipped_files=dict(result.skipped_files),
        num_actors=result.num_actors,
        num_machines=result.num_machines,
        cores=tuple(result.self_check),
        driver_cpu=read_cpu_model(),
        phase_s=_phases(result),
        predicted_s=sum(receipt.predicted_s for receipt in receipts),
        peak_rss_bytes=max((receipt.peak_rss_bytes for receipt in receipts), default=0),
        actors=_by_actor(receipts),
        started_at=datetime.fromtimestamp(result.started_at, UTC).isoformat(timespec="seconds"),
        bill=_bill(result, usd_total),
        other_types=(),
        other_types_unknown="not estimated",
        energy=energy,
        lengths=_lengths([*result.resumed, *receipts]),
        earlier=_earlier(result.resumed),
        timeline=_timeline(result.attempts, receipts),
        bundle=BundleUsed(
            path=str(job.bundle.path),
            precision=job.bundle.precision,
            digest=job.bundle.digest,
            max_batch_tokens=job.max_batch_tokens,
            profile_cpu=job.bundle.cost_profile.cpu_model,
            engine=job.engine,
        ),
        output=str(job.output or job.shards),
    )


def _bill(result: RunResult, usd_total: float) -> Bill:
    receipts = result.receipts
    items = itemize(
        result.attempts,
        RunTimes(setup_s=result.setup_s, work_end_s=result.work_end_s, wall_s=result.wall_s),
        actor_cores=result.actor_cores,
        num_idle_cores=result.num_idle_cores,
        padding_efficiency=_padding_efficiency(receipts),
        usd_total=usd_total,
    )
    prediction = compare_prediction(
        [receipt.predicted_s for receipt in receipts],
        [
            receipt.phase_s.get("infer", 0.0) * result.actor_cores.get(receipt.actor, 1)
            for receipt in receipts
        ],
    )
    scored = {receipt.shard for receipt in receipts}
    shards = [shard for shard in result.shards if shard.name in scored]
    saved = estimate_saved_usd(
        items,
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_scored_tokens=sum(shard.num_unique_tokens for shard in shards),
    )
    return Bill(
        items=tuple(items),
        total_usd=float(round_total(usd_total)),
        duplicates_saved_usd=float(saved),
        prediction=prediction,
    )


def _earlier(resumed: list[Receipt]) -> EarlierRuns | None:
    if not resumed:
        return None
    return EarlierRuns(
        shards=len(resumed),
        rows=sum(receipt.num_rows for receipt in resumed),
        actor_s=sum(receipt.finished_at - receipt.started_at for receipt in resumed),
        started_at=min(receipt.started_at for receipt in resumed),
        finished_at=max(receipt.finished_at for receipt in resumed),
    )


def _padding_efficiency(receipts: list[Receipt]) -> float | None:
    """Share of the computed tokens that are text; None where nothing was computed."""
    computed = sum(receipt.num_computed_tokens for receipt in receipts)
    return sum(receipt.num_scored_tokens for receipt in receipts) / computed if computed else None


def _phases(result: RunResult) -> PhaseSeconds:
    """Seconds of all actors by phase; idle is what remains of their time."""
    phase_s = dict.fromkeys(PHASES, 0.0)
    for phases in (result.slice_phase_s, *(receipt.phase_s for receipt in result.receipts)):
        for phase, seconds in phases.items():
            phase_s[phase] += seconds
    available_s = result.num_actors * (result.wall_s - result.setup_s)
    return PhaseSeconds(**phase_s, idle=max(0.0, available_s - sum(phase_s.values())))


def _lengths(receipts: list[Receipt]) -> dict[str, tuple[int, int, int]]:
    counts = add_lengths(receipt.lengths for receipt in receipts)
    return {edge: (texts, tokens, computed) for edge, (texts, tokens, computed) in counts.items()}


def _by_actor(receipts: list[Receipt]) -> dict[str, ActorReport]:
    actors: dict[str, ActorReport] = {}
    for name in sorted({receipt.actor for receipt in receipts}):
        own = [receipt for receipt in receipts if receipt.actor == name]
        busy_s = sum(receipt.finished_at - receipt.started_at for receipt in own)
        actors[name] = ActorReport(
            shards=len(own),
            rows=sum(receipt.num_rows for receipt in own),
            rows_per_second=sum(receipt.num_rows for receipt in own) / busy_s,
            tokens_per_second=sum(receipt.num_tokens for receipt in own) / busy_s,
            busy_s=busy_s,
            peak_rss_bytes=max(receipt.peak_rss_bytes for receipt in own),
        )
    return actors


def _timeline(attempts: list[Attempt], receipts: list[Receipt]) -> tuple[TimelineEntry, ...]:
    """Every attempt of this run, and what came out of those that scored a shard."""
    receipt_of = {(receipt.shard, receipt.attempt): receipt for receipt in receipts}
    timeline = []
    for attempt in attempts:
        receipt = receipt_of.get((attempt.name, attempt.number))
        timeline.append(
            TimelineEntry(
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
        )
    return tuple(timeline)
