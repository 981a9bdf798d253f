"""Measure our whole job beside its engine alone.

    corpus + bundle -> [whole_jobs] -> JobPart

Both take turns, so that other work on the machine affects both; the medians count. Our job beside
those of others is in `peers`.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from fastformers.cluster.execution.engine_alone import measure_engine_alone
from fastformers.cluster.execution.job import ScoreJob, open_prepare_job, open_score_job
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.jobs.benchmarks.parts import JobPart
from fastformers.jobs.console.execute import connect_ray, execute


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """How our jobs run.

    Attributes:
        bundle: Directory or URI of the bundle.
        engine: What runs its graph.
        actors: Who works.
        price: Price of a machine.
        repeats: How many times every job runs.
    """

    bundle: str
    engine: str
    actors: ActorSettings
    price: HourlyPrice
    repeats: int


def measure_whole_job(
    corpus: str,
    corpus_settings: CorpusSettings,
    settings: JobSettings,
    *,
    output: str,
    log: Callable[[str], None],
) -> JobPart:
    """Score a corpus from start to end, and its batches by the engine alone, in turns.

    Args:
        corpus: File, directory, glob or URI.
        corpus_settings: What to read of it.
        settings: How our jobs run.
        output: Directory or URI that is filled with shards and predictions.
        log: Shows a line to the user.
    """
    prepared = open_prepare_job(corpus, settings.bundle, f"{output}/shards", corpus_settings)
    execute(prepared, replace(settings.actors, cores_per_actor=1), settings.price)
    jobs: list[RunReport] = []
    engines: list[float] = []
    for repeat in range(settings.repeats):
        job = plan_ours(corpus, f"{output}/scored-{repeat}", corpus_settings, settings)
        jobs.append(execute(job, settings.actors, settings.price))
        alone = replace(job, shards=prepared.shards)
        engines.append(measure_engine_alone(alone, settings.actors, connect_ray, log))
        rate = jobs[-1].rows_per_second
        log(f"job {rate:,.1f} rows/s, engine alone {engines[-1]:,.1f} rows/s")
    return _describe_jobs(jobs, statistics.median(engines))


def plan_ours(
    corpus: str,
    output: str,
    corpus_settings: CorpusSettings,
    settings: JobSettings,
    *,
    bundle: str | None = None,
) -> ScoreJob:
    """Our job on a corpus, by the bundle of the settings or another."""
    return open_score_job(
        corpus,
        bundle or settings.bundle,
        output,
        corpus_settings,
        max_batch_tokens=None,
        engine=settings.engine,
    )


def _describe_jobs(jobs: Sequence[RunReport], engine_rows_per_second: float) -> JobPart:
    """What the reports of equal runs say together; counts are those of the first."""
    first = jobs[0]
    return JobPart(
        job_rows_per_second=statistics.median(job.rows_per_second for job in jobs),
        engine_rows_per_second=engine_rows_per_second,
        job_wall_s=tuple(job.wall_s for job in jobs),
        rows=first.rows,
        unique_rows=first.unique_rows,
        tokens=first.tokens,
        saved_by_scoring_equal_texts_once=1 - first.unique_tokens / first.tokens,
        padding_efficiency=first.padding_efficiency,
        phase_s=asdict(first.phase_s),
        predicted_over_inferred=statistics.median(
            job.predicted_s / job.phase_s.infer for job in jobs
        ),
        num_actors=first.num_actors,
    )
