"""Open the corpus, bundle and output of a run, and check that they fit together.

    settings -> [job] -> ScoreJob -> run

A job is a value. Opening one reads directories, and times the engine where neither the caller nor
an earlier run has chosen; it does none of the work, writes no output, and knows nothing of Ray. The
identity of the work is what must not change between two runs of the same command: the files of the
corpus, the bundle, and every setting that decides a prediction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastformers.cluster.corpus.inputs import open_corpus_for
from fastformers.cluster.corpus.slices import Corpus
from fastformers.cluster.delivery.audit_bundle import PinnedAudit, pin_audit
from fastformers.cluster.delivery.bundle_delivery import PinnedBundle, pin_bundle
from fastformers.cluster.devices.scoring import (
    Scoring,
    choose_precisions,
    choose_scorings,
    identify_scorings,
)
from fastformers.cluster.execution.result import EarlierWork
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.records.slice_table import SLICE_LOG
from fastformers.cluster.settings import (
    ITS_TASKS_COLUMNS,
    NO_AUDIT,
    SCORING_ON_CORES,
    AuditSettings,
    CorpusSettings,
    PredictionSettings,
    ScoringSettings,
)
from fastformers.cluster.shards.columns import check_kept, check_label_column
from fastformers.cluster.shards.identity import (
    PREPARED_FILE,
    RUN_DIRECTORY,
    RUN_FILE,
    check_output,
    open_output,
    read_record,
)
from fastformers.cluster.shards.layout import MAX_SHARD_SECONDS, plan_shard_seconds
from fastformers.cluster.shards.preparation import Preparation
from fastformers.cluster.shards.row_source import (
    RowSource,
    source_of_corpus,
    source_of_shards,
)
from fastformers.cluster.storage.ahead import side_by_side
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.inference.description.further_graph import choose_graph
from fastformers.inference.engines import AUTO, REFERENCE_ENGINE, check_installed
from fastformers.inference.outputs.columns import choose_columns
from fastformers.options import split_names


@dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """A job that is opened and not started.

    Attributes:
        bundle: Bundle that scores.
        pinned: Where its files are, whatever happens to the path that the user gave.
        output: Directory of the output; None to prepare only.
        shards: Directory where prepared shards are or go.
        corpus: Corpus to prepare, or None if `shards` is complete.
        settings: Which part of the corpus is read, and how it is cut.
        keep_columns: Names of the columns that pass through to the predictions.
        scorings: How each kind of actor scores, those on cores first where both do.
        identity: Values that are equal when the same work is run again.
        columns: Names of the columns of predictions; empty for those of the task.
        label_column: Column of the corpus that predictions are compared with, or None.
        asked: What the user asked for, by name of the flag: recorded beside the identity, and
            without an influence on anything.
        audit: Second bundle that scores some rows, too, or None.
    """

    bundle: Bundle
    pinned: PinnedBundle
    output: Directory | None
    shards: Directory
    corpus: Corpus | None
    settings: CorpusSettings
    keep_columns: tuple[str, ...]
    scorings: tuple[Scoring, ...]
    identity: dict[str, Any]
    columns: tuple[str, ...] = ()
    label_column: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    audit: PinnedAudit | None = None

    @property
    def engine(self) -> str:
        """Name of the engine of the first kind of actors."""
        return self.scorings[0].engine

    @property
    def max_batch_tokens(self) -> int:
        """Token budget of a batch of the first kind of actors."""
        return self.scorings[0].max_batch_tokens

    @property
    def uses_gpus(self) -> bool:
        """Whether actors on GPUs score."""
        return any(scoring.device == "cuda" for scoring in self.scorings)

    @property
    def preparation(self) -> Preparation | None:
        """How slices become shards, or None if all are there."""
        if self.corpus is None:
            return None
        profile = self.bundle.cost_profile
        return Preparation(
            directory=self.shards,
            reader=self.corpus.reader,
            cost_profile=profile,
            shard_seconds=self.settings.shard_seconds
            or plan_shard_seconds(
                self.corpus.text_bytes,
                profile.estimate_seconds_per_token(),
                for_gpus=self.corpus.for_gpus,
            ),
        )

    @property
    def slowness(self) -> float:
        """Seconds of the bundle for one of the bundle that prepared the shards, 1 at least.

        It is that of the length at which they differ most, by both cost profiles. A profile of
        other lengths has the longest in common, because bundles that share shards cut texts alike.
        """
        own = self.bundle.cost_profile.seconds_per_row
        others: tuple[float, ...] = (*self.identity.get("cost profile", own),)
        if len(others) != len(own):
            own, others = own[-1:], others[-1:]
        return max(1.0, *(mine / theirs for mine, theirs in zip(own, others, strict=True)))

    @property
    def gpu_shard_s(self) -> float:
        """Core-seconds of a shard for GPUs; prepared shards are what they are."""
        preparation = self.preparation
        return MAX_SHARD_SECONDS if preparation is None else preparation.shard_seconds

    @property
    def home(self) -> Directory:
        """Directory of what is no prediction: records, logs, report; or of the shards alone."""
        return self.shards if self.output is None else self.output.child(RUN_DIRECTORY)

    @property
    def place(self) -> Directory:
        """Directory that the user named for the output."""
        return self.output or self.shards

    @property
    def predictions(self) -> Directory | None:
        """Directory of the predictions; None to prepare only."""
        return None if self.output is None else self.output.child("predictions")

    @property
    def receipts_log(self) -> Directory | None:
        """Directory of the log of the predictions' receipts; None to prepare only."""
        return None if self.output is None else self.home.child("receipts")

    @property
    def slices_log(self) -> Directory:
        """Directory of the log of the slices' receipts."""
        return self.shards.child(SLICE_LOG)

    def worker_spec(self) -> WorkerSpec:
        """What all workers of this job share."""
        return WorkerSpec(
            bundle=self.pinned,
            shards=self.shards,
            preparation=self.preparation,
            predictions=self.predictions,
            keep_columns=self.keep_columns,
            scorings={scoring.device: scoring for scoring in self.scorings},
            columns=self.columns,
            label_column=self.label_column,
            audit=self.audit,
            slowness=self.slowness,
        )


def describe(job: ScoreJob, earlier: EarlierWork) -> dict[str, Any]:
    """What a job would do, as plain values."""
    plan: dict[str, Any] = {
        "bundle": str(job.bundle),
        "output": str(job.place),
        "max_batch_tokens": job.max_batch_tokens,
        "engine": job.engine,
        **_describe_gpus(job),
        **({} if job.audit is None else job.audit.describe()),
        "shards_done": len(earlier.done),
    }
    if job.corpus is None:
        return {**plan, "shards": earlier.cut.known.num_shards}
    assert job.preparation is not None
    return {
        **plan,
        "files": len(job.corpus.files),
        "file_bytes": sum(file.size_bytes for file in job.corpus.files),
        "slices": earlier.num_slices,
        "shard_seconds": job.preparation.shard_seconds,
        "skipped_files": job.corpus.skipped,
        "left_out": list(job.corpus.left_out),
    }


def _describe_gpus(job: ScoreJob) -> dict[str, Any]:
    """What actors on GPUs would score with; nothing where none does."""
    if not job.uses_gpus:
        return {}
    gpus = job.scorings[-1]
    return {
        "gpu_engine": gpus.engine,
        "gpu_max_batch_tokens": gpus.max_batch_tokens,
        "precision": {scoring.device: scoring.precision for scoring in job.scorings},
    }


def open_prepare_job(
    corpus_uri: str,
    bundle_source: str | Path,
    output_uri: str,
    settings: CorpusSettings,
    *,
    for_gpus: bool = False,
    storage: StorageOptions = NO_OPTIONS,
    asked: Mapping[str, Any] = MappingProxyType({}),
    on_step: Callable[[str], None] = lambda step: None,
) -> ScoreJob:
    """Open a corpus and a bundle, for a job that only prepares shards.

    Args:
        corpus_uri, bundle_source, output_uri: Paths or URIs.
        settings: Which part of the corpus is read, and how it is cut.
        for_gpus: Whether actors on GPUs will score the shards, which then are larger.
        storage: How to reach buckets.
        asked: See `ScoreJob`.
        on_step: Function that is told what is done next, if that may take long.

    Raises:
        BundleError: The bundle cannot be used.
        InputError: The corpus or the settings do not fit the bundle.
    """
    output = open_output(output_uri, corpus_uri, bundle_source, storage)
    on_step(f"checking the output {output} and reading the bundle {bundle_source}")
    _, pinned = side_by_side(
        lambda: check_output(output, PREPARED_FILE), lambda: pin_bundle(bundle_source, storage)
    )
    bundle: Bundle = pinned.open()
    on_step(f"listing the corpus {corpus_uri}")
    corpus = open_corpus_for(bundle, corpus_uri, settings, storage=storage, output=output)
    rows = source_of_corpus(replace(corpus, for_gpus=for_gpus), bundle, settings)
    return ScoreJob(
        bundle=bundle,
        pinned=pinned,
        output=None,
        shards=output,
        corpus=rows.corpus,
        settings=settings,
        keep_columns=rows.keep_columns,
        scorings=(
            Scoring(
                device="cpu",
                engine=REFERENCE_ENGINE,
                precision=bundle.precision,
                max_batch_tokens=bundle.cost_profile.max_batch_tokens,
            ),
        ),
        identity=rows.identity,
        asked=asked,
    )


def open_score_job(
    corpus_uri: str,
    bundle_source: str | Path,
    output_uri: str,
    settings: CorpusSettings,
    *,
    max_batch_tokens: int | None,
    written: PredictionSettings = ITS_TASKS_COLUMNS,
    engine: str = REFERENCE_ENGINE,
    scoring: ScoringSettings = SCORING_ON_CORES,
    audit: AuditSettings = NO_AUDIT,
    storage: StorageOptions = NO_OPTIONS,
    asked: Mapping[str, Any] = MappingProxyType({}),
    on_step: Callable[[str], None] = lambda step: None,
) -> ScoreJob:
    """Open a bundle and a corpus, or shards that `prepare` made of one, for a job that scores.

    Engine and token budget, where not given, are those of an earlier run into the same output, or
    the fastest on this machine; that is measured last, after all that can be refused without it.

    Args:
        corpus_uri, bundle_source, output_uri: Paths or URIs.
        settings: Which part of the corpus is read, and how it is cut.
        max_batch_tokens: Token budget of a batch; None to leave it open.
        engine: Name of the engine, or "auto" to leave it open.
        audit: Which rows a second bundle scores, too.
        storage: How to reach buckets.
        asked: See `ScoreJob`.
        on_step: Function that is told what is done next, if that may take long.

    Raises:
        BundleError: The bundle cannot be used.
        InputError: The corpus, the shards or the settings do not fit the bundle.
        ChangedWorkError: The output or the shards are of another version of fastformers.
    """
    if max_batch_tokens is not None and max_batch_tokens < 1:
        raise InputError(f"--max-batch-tokens {max_batch_tokens}: give at least 1")
    if engine != AUTO:
        check_installed(engine)
    output = open_output(output_uri, corpus_uri, bundle_source, storage)
    source = open_directory(corpus_uri, storage)
    on_step(f"checking the output {output} and reading the bundle {bundle_source}")
    record, prepared, pinned = side_by_side(
        lambda: check_output(output, RUN_FILE),
        lambda: read_record(source, PREPARED_FILE, named=str(source)),
        lambda: pin_bundle(bundle_source, storage),
    )
    bundle: Bundle = pinned.open()
    precisions = choose_precisions(bundle, scoring)
    graphs = {choose_graph(bundle, precision).digest for precision in precisions.values()}
    pinned_audit = pin_audit(audit, bundle, storage, scored_by=graphs)
    columns = choose_columns(written.columns, bundle.task, bundle.labels)
    check_label_column(written.label_column, bundle.task)
    if prepared is not None:
        rows = source_of_shards(source, prepared["identity"], bundle, settings, written)
    else:
        on_step(f"listing the corpus {corpus_uri}")
        label = written.label_column
        corpus = open_corpus_for(
            bundle, corpus_uri, settings, label_column=label, storage=storage, output=output
        )
        corpus = replace(corpus, for_gpus=scoring.uses_gpus)
        rows = source_of_corpus(corpus, bundle, settings, label_column=label)
    check_kept(rows.keep_columns, columns)
    on_step("measuring which engine and batches are fastest here")
    scorings = choose_scorings(
        bundle,
        scoring,
        engine=engine,
        max_batch_tokens=max_batch_tokens,
        recorded={} if record is None else record["identity"],
    )
    return ScoreJob(
        bundle=choose_graph(bundle, scorings[0].precision),
        pinned=pinned,
        output=output,
        shards=output.child(RUN_DIRECTORY).child("shards") if prepared is None else source,
        corpus=rows.corpus,
        settings=settings,
        keep_columns=rows.keep_columns,
        scorings=scorings,
        columns=written.columns,
        label_column=written.label_column,
        identity={
            "device": scoring.device,  # named first where all that follows from it changes, too
            **rows.identity,
            **identify_scorings(bundle, scorings),
            **_identify_predictions(rows, written, pinned_audit),
        },
        asked=asked,
        audit=pinned_audit,
    )


def _identify_predictions(
    rows: RowSource, written: PredictionSettings, audit: PinnedAudit | None
) -> dict[str, Any]:
    """What must not change of the columns of predictions, and of who else scores."""
    return {
        "keep columns": list(rows.keep_columns),
        "columns": [name for names in written.columns for name in split_names(names)],
        "label column": written.label_column,
        "audit": audit and [audit.share, audit.digest],
    }
