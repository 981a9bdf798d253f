"""What actors on cores and on GPUs did, in which precision, what each kind cost, and how well.

    tally, nodes -> [kinds] -> KindReport, AgreementReport, Quality, AuditReport -> run_report

A machine with GPUs is two nodes and is paid for once, for its GPUs as long as they work. This
module works out shares and sums, and shows nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastformers.cluster.devices.scoring import Scoring
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.pricing.prices import usd_per_million
from fastformers.cluster.records.audit import (
    AuditReport,
    AuditSums,
    measure_agreement,
    measure_labels,
    measure_of,
)
from fastformers.cluster.records.quality import Quality, measure_quality
from fastformers.cluster.records.tally import ActorTally, KindSums, ReceiptSums, RunTally
from fastformers.cluster.report.bill import BillItem, NodeTime
from fastformers.cluster.report.over_time import AgreementReport, CascadeReport, KindReport
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.errors import InputError

# A card that computes for less of its time waits for its host.
_FULL_SHARE = 0.9


def uses_gpus(sums: ReceiptSums) -> bool:
    """Whether any shard was scored on a GPU, whose seconds a profile of cores does not predict."""
    return any(device == "cuda" for device, _ in sums.kinds)


def free_seconds(use: NodeUse, nodes: Iterable[NodeUse]) -> float:
    """Seconds of a node in which the GPUs of its machine were paid for, and it with them."""
    if use.device != "cpu":
        return 0.0
    return math.fsum(
        max(0.0, min(use.left_s, other.left_s) - max(use.joined_s, other.joined_s))
        for other in nodes
        if other.device == "cuda" and other.machine == use.machine
    )


def cores_of_machines(nodes: Iterable[NodeUse]) -> dict[str, int]:
    """Physical cores of each machine, those of both of its nodes where it has GPUs."""
    parts = {(use.machine or use.node, use.device): use.num_cores for use in nodes}
    cores: Counter[str] = Counter()
    for (machine, _), num_cores in parts.items():
        cores[machine] += num_cores
    return cores


def summarize_kinds(
    job: ScoreJob, result: RunResult, times: Sequence[NodeTime], both: ReceiptSums
) -> tuple[KindReport, ...]:
    """What actors on each device did; some may have worked in earlier sessions alone.

    Args:
        job: What was to be done.
        result: What the last session did.
        times: Its nodes, and what they cost.
        both: Receipts of all sessions.
    """
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


def summarize_agreement(job: ScoreJob, tally: RunTally) -> AgreementReport | None:
    agreement = tally.agreement
    if not agreement.num_texts:
        return None
    return AgreementReport(
        precisions=tuple(scoring.precision for scoring in job.scorings),
        texts=agreement.num_texts,
        equal_labels=agreement.num_equal / agreement.num_texts,
        largest_difference=agreement.largest_difference,
    )


def summarize_quality(job: ScoreJob, sums: ReceiptSums) -> tuple[Quality | None, str | None]:
    """Predictions against labels; or why that is not known, where labels were given."""
    if job.label_column is None:
        return None, None
    try:
        quality = measure_quality(
            sums.labels,
            sums.numbers.items,
            label_column=job.label_column,
            task=job.bundle.task,
            names=job.bundle.labels,
        )
    except InputError as error:
        return None, str(error)
    return quality, None


def summarize_audit(
    job: ScoreJob, both: ReceiptSums, items: Sequence[BillItem]
) -> AuditReport | None:
    """How far the audit bundle agrees, and what that cost; None where no row was to be audited.

    Args:
        job: What was to be done.
        both: Receipts of all sessions.
        items: The bill.
    """
    audit, task = job.audit, job.bundle.task
    if audit is None:
        return None
    sums = AuditSums(counts=both.audit, numbers=both.audit_numbers.items)
    agreement, difference = measure_agreement(sums, task, share=audit.share)
    quality = unknown = None
    if job.label_column is not None:
        try:
            quality = measure_labels(
                sums,
                task,
                job.bundle.labels,
                share=audit.share,
                label_column=job.label_column,
                labels=both.labels,
            )
        except InputError as error:
            unknown = str(error)
    paid = next((item for item in items if item.heading == "audit"), None)
    return AuditReport(
        share=audit.share,
        bundle=str(audit),
        precision=audit.precision,
        digest=audit.digest,
        rows=both.audit.num_rows,
        failed_rows=both.audit.num_failed,
        measure=measure_of(task),
        agreement=agreement,
        difference=difference,
        min_agreement=audit.min_agreement,
        core_s=0.0 if paid is None else paid.core_s,
        usd=0.0 if paid is None else paid.usd,
        quality=quality,
        quality_unknown=unknown,
    )


def summarize_cascade(job: ScoreJob, sums: ReceiptSums) -> CascadeReport | None:
    """What the second graph of a cascade did; None where one graph scores all, or nothing was.

    The share that goes on was stored by length when the cascade was made, so that what is expected
    is that of this corpus's lengths.
    """
    cascade = job.bundle.cascade
    counts = np.array([row[:2] for row in sums.lengths.values()], np.float64).reshape(-1, 2)
    if cascade is None or not counts.sum():
        return None
    texts, tokens = counts.T
    expected = cascade.share_by_length.at(tokens / texts)
    return CascadeReport(
        threshold=cascade.threshold,
        texts=int(texts.sum()),
        second_texts=sums.second_texts,
        share=sums.second_texts / float(texts.sum()),
        expected_share=float((texts * expected).sum() / texts.sum()),
        share_of_compute=sums.second_share,
        precisions=(job.bundle.precision, cascade.precision),
    )
