"""Open the corpus, bundle and output of a run, and check that they fit together.

    settings -> [job] -> ScoreJob -> run

A job is a value. Opening one reads directories, and times the engine where neither the caller nor
an earlier run has chosen; it does none of the work, writes no output, and knows nothing of Ray. The
identity of the work is what must not change between two runs of the same command: the files of the
corpus, the bundle, and every setting that decides a prediction.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastformers.cluster.corpus.inputs import check_kept, open_corpus_for
from fastformers.cluster.corpus.slices import Corpus
from fastformers.cluster.delivery.bundle_delivery import PinnedBundle, pin_bundle
from fastformers.cluster.devices.scoring import (
    Scoring,
    choose_gpu_budget,
    choose_precisions,
    plan_scorings,
)
from fastformers.cluster.execution.worker import WorkerSpec
from fastformers.cluster.records.slice_table import SLICE_LOG, CutSlices
from fastformers.cluster.records.tally import ReceiptSums
from fastformers.cluster.settings import SCORING_ON_CORES, CorpusSettings, ScoringSettings
from fastformers.cluster.shards.identity import PREPARED_FILE, RUN_FILE, read_record
from fastformers.cluster.shards.layout import MAX_SHARD_SECONDS, plan_shard_seconds
from fastformers.cluster.shards.preparation import Preparation
from fastformers.cluster.shards.shard_set import ShardSet
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError
from fastformers.formats.kept_columns import choose_names
from fastformers.formats.readers import KEEP_FLAG
from fastformers.inference.autotune import EngineChoice, tune
from fastformers.inference.bundle import Bundle
from fastformers.inference.description.further_graph import choose_graph
from fastformers.inference.engines import AUTO, REFERENCE_ENGINE, check_installed

_GPU_BUDGET = "max batch tokens on GPUs"


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
        keep_columns: Names of the columns that pass through.
        scorings: How each kind of actor scores, those on cores first where both do.
        identity: Values that are equal when the same work is run again.
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
    def gpu_shard_s(self) -> float:
        """Core-seconds of a shard for GPUs; prepared shards are what they are."""
        preparation = self.preparation
        return MAX_SHARD_SECONDS if preparation is None else preparation.shard_seconds

    @property
    def predictions(self) -> Directory | None:
        """Directory of the predictions; None to prepare only."""
        return None if self.output is None else self.output.child("predictions")

    @property
    def receipts_log(self) -> Directory | None:
        """Directory of the log of the predictions' receipts; None to prepare only."""
        return None if self.output is None else self.output.child("receipts")

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
        )


@dataclass(frozen=True, kw_only=True)
class EarlierWork:
    """What earlier runs of a job left on disk.

    Attributes:
        done: Shards whose predictions are there and whole.
        with_errors: Those of them with rows that have no prediction.
        receipts: Sums over their receipts.
        cut: Slices that are cut, the shards of them that are still to be scored, and the slices
            still to cut.
        num_slices: Number of slices of the corpus, cut or not.
    """

    done: ShardSet
    with_errors: ShardSet
    receipts: ReceiptSums
    cut: CutSlices
    num_slices: int

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to do."""
        return not self.cut.slices and not self.cut.shards


def describe(job: ScoreJob, earlier: EarlierWork) -> dict[str, Any]:
    """What a job would do, as plain values."""
    plan: dict[str, Any] = {
        "bundle": str(job.bundle),
        "output": str(job.output or job.shards),
        "max_batch_tokens": job.max_batch_tokens,
        "engine": job.engine,
        **_describe_gpus(job),
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
) -> ScoreJob:
    """Open a corpus and a bundle, for a job that only prepares shards.

    Args:
        corpus_uri, bundle_source, output_uri: Where they are.
        settings: What is read.
        for_gpus: Whether actors on GPUs will score the shards, which then are larger.
        storage: How to reach a bucket.

    Raises:
        BundleError: The bundle cannot be used.
        InputError: The corpus or the settings do not fit the bundle.
    """
    pinned = pin_bundle(bundle_source, storage)
    bundle = pinned.open()
    output = open_directory(output_uri, storage)
    corpus = open_corpus_for(bundle, corpus_uri, settings, storage=storage, output=output)
    corpus = replace(corpus, for_gpus=for_gpus)
    return ScoreJob(
        bundle=bundle,
        pinned=pinned,
        output=None,
        shards=output,
        corpus=corpus,
        settings=settings,
        keep_columns=tuple(corpus.reader.kept_schema.names),
        scorings=(
            Scoring(
                device="cpu",
                engine=REFERENCE_ENGINE,
                precision=bundle.precision,
                max_batch_tokens=bundle.cost_profile.max_batch_tokens,
            ),
        ),
        identity=_corpus_identity(bundle, corpus, settings),
    )


def open_score_job(
    corpus_uri: str,
    bundle_source: str | Path,
    output_uri: str,
    settings: CorpusSettings,
    *,
    max_batch_tokens: int | None,
    engine: str = REFERENCE_ENGINE,
    scoring: ScoringSettings = SCORING_ON_CORES,
    storage: StorageOptions = NO_OPTIONS,
) -> ScoreJob:
    """Open a bundle and a corpus, or shards that `prepare` made of one, for a job that scores.

    Engine and token budget, where not given, are those of an earlier run into the same output, or
    the fastest on this machine.

    Raises:
        BundleError: The bundle cannot be used.
        InputError: The corpus, the shards or the settings do not fit the bundle.
        ChangedWorkError: The output or the shards are of another version of fastformers.
    """
    if max_batch_tokens is not None and max_batch_tokens < 1:
        raise InputError(f"--max-batch-tokens {max_batch_tokens}: give at least 1")
    output = open_directory(output_uri, storage)
    source = open_directory(corpus_uri, storage)
    prepared = read_record(source, PREPARED_FILE, named=str(source))
    corpus: Corpus | None = None
    pinned = pin_bundle(bundle_source, storage)
    bundle = pinned.open()
    precisions = choose_precisions(bundle, scoring)
    bundle, *further = (choose_graph(bundle, precision) for precision in precisions.values())
    if prepared is not None:
        keep_columns = _prepared_columns(source, prepared["identity"], settings)
        check_kept(bundle, keep_columns)
        identity = _prepared_identity(source, prepared["identity"], bundle, settings)
    else:
        corpus = open_corpus_for(bundle, corpus_uri, settings, storage=storage, output=output)
        corpus = replace(corpus, for_gpus=scoring.uses_gpus)
        keep_columns = tuple(corpus.reader.kept_schema.names)
        identity = _corpus_identity(bundle, corpus, settings)
    choice = None
    if scoring.device != "cuda":
        choice = _recorded_choice(output, engine, max_batch_tokens) or tune(
            bundle, engine=engine, max_batch_tokens=max_batch_tokens
        )
    gpu_budget = None
    if scoring.uses_gpus:
        own = max_batch_tokens if scoring.device == "cuda" else None
        for_gpus = (bundle, *further)[-1]
        gpu_budget = own or _recorded_gpu_budget(output) or choose_gpu_budget(for_gpus)
    scorings = plan_scorings(precisions, choice, gpu_budget=gpu_budget)
    identity = {
        "device": scoring.device,  # named first where all that follows from it changes, too
        "precision": [scoring.precision for scoring in scorings],
        **identity,
        "bundle": [graph.digest for graph in (bundle, *further)],
        "max batch tokens": scorings[0].max_batch_tokens,
        "engine": scorings[0].engine,
        "keep columns": list(keep_columns),
        **({_GPU_BUDGET: gpu_budget} if scoring.uses_gpus else {}),
    }
    return ScoreJob(
        bundle=bundle,
        pinned=pinned,
        output=output,
        shards=output.child("shards") if prepared is None else source,
        corpus=corpus,
        settings=settings,
        keep_columns=keep_columns,
        scorings=scorings,
        identity=identity,
    )


def _recorded_gpu_budget(output: Directory) -> int | None:
    """The token budget on GPUs of an interrupted run into this output; None without one."""
    record = read_record(output, RUN_FILE, named=f"--output {output}")
    return None if record is None else record["identity"].get(_GPU_BUDGET)


def _recorded_choice(
    output: Directory, engine: str, max_batch_tokens: int | None
) -> EngineChoice | None:
    """What an interrupted run into this output chose, where the user leaves it open; else None."""
    record = read_record(output, RUN_FILE, named=f"--output {output}")
    if record is None:
        return None
    recorded = record["identity"]
    if not {"engine", "max batch tokens"} <= recorded.keys():
        return None
    if engine not in (AUTO, recorded["engine"]):
        return None
    check_installed(recorded["engine"])
    return EngineChoice(
        engine=recorded["engine"],
        max_batch_tokens=max_batch_tokens or recorded["max batch tokens"],
    )


def _corpus_identity(bundle: Bundle, corpus: Corpus, settings: CorpusSettings) -> dict[str, Any]:
    return {
        "corpus files": corpus.digest,
        "tokenizer": bundle.preparation_digest,
        "text columns": list(corpus.reader.text_columns),
        "keep columns": corpus.reader.kept_schema.names,
        "binary text": settings.binary_text,
        "text files": settings.text_files.identity,
        "limit": settings.limit,
        "slice bytes": corpus.slice_bytes,
        "shard seconds": settings.shard_seconds,
        "cost profile": list(bundle.cost_profile.seconds_per_row),
    }


def _prepared_columns(
    source: Directory, prepared: dict[str, Any], settings: CorpusSettings
) -> tuple[str, ...]:
    """Columns of prepared shards that the settings keep."""
    known = prepared["keep columns"]
    names, missing = choose_names(settings.keep_columns, known, flag=KEEP_FLAG)
    if missing:
        raise InputError(
            f"{source}: --keep-columns {','.join(missing)}: not prepared (kept columns: "
            f"{', '.join(known) or 'none'}); prepare again with it"
        )
    return tuple(names)


def _prepared_identity(
    source: Directory, prepared: dict[str, Any], bundle: Bundle, settings: CorpusSettings
) -> dict[str, Any]:
    """Identity of prepared shards, after checking that they suit the bundle and settings."""
    if prepared["tokenizer"] != bundle.preparation_digest:
        raise InputError(
            f"{source}: prepared for another tokenizer, maximum length or kind of input than "
            f"{bundle} has; prepare the corpus with this bundle"
        )
    if settings.limit is not None:
        raise InputError(f"{source}: --limit applies when a corpus is prepared, not to its shards")
    return dict(prepared)
