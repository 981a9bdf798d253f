"""Decide what a run is: which corpus, which bundle, where to, and whether that fits together.

    settings -> [job] -> ScoreRun -> run

Nothing of the work is written here. The identity of the work is what must not change between two
runs of the same command: the files of the corpus, the bundle, and every setting that decides a
prediction.
"""

from pathlib import Path
from typing import Any

from cluster.corpus.inputs import check_kept, open_both
from cluster.corpus.slices import Corpus
from cluster.execution.run import RUN_FILE, ScoreRun
from cluster.settings import CorpusSettings
from cluster.shards.preparation import IDENTITY_FILE
from cluster.storage import Directory, open_directory
from fastformers.errors import InputError
from fastformers.inference.autotune import EngineChoice, EngineOption, check_installed, tune
from fastformers.inference.bundle import Bundle, open_bundle


def plan_prepare(
    corpus_uri: str, bundle_path: Path, output_uri: str, settings: CorpusSettings
) -> ScoreRun:
    """Decide on a run that only prepares shards."""
    bundle, corpus = open_both(corpus_uri, bundle_path, settings)
    return ScoreRun(
        bundle=bundle,
        output=None,
        shards=open_directory(output_uri),
        corpus=corpus,
        settings=settings,
        max_batch_tokens=bundle.cost_profile.max_batch_tokens,
        fail_on_bad_row=False,
        identity=_corpus_identity(bundle, corpus, settings),
    )


def plan_score(
    corpus_uri: str,
    bundle_path: Path,
    output_uri: str,
    settings: CorpusSettings,
    *,
    max_batch_tokens: int | None,
    fail_on_bad_row: bool,
    engine: EngineOption = "onnxruntime",
) -> ScoreRun:
    """Decide on a run that scores a corpus, or shards that `prepare` made of one.

    Engine and token budget, where not given, are those of an earlier run into the same output, or
    the fastest on this machine.

    Raises:
        InputError: The corpus, the shards or the settings do not fit the bundle.
    """
    if max_batch_tokens is not None and max_batch_tokens < 1:
        raise InputError(f"--max-batch-tokens {max_batch_tokens}: give at least 1")
    output = open_directory(output_uri)
    source = open_directory(corpus_uri)
    is_prepared = "*" not in corpus_uri and source.read_json(IDENTITY_FILE) is not None
    corpus: Corpus | None = None
    if is_prepared:
        bundle = open_bundle(bundle_path)
        check_kept(bundle, settings)
        identity = _prepared_identity(source, bundle, settings)
    else:
        bundle, corpus = open_both(corpus_uri, bundle_path, settings)
        identity = _corpus_identity(bundle, corpus, settings)
    choice = _recorded_choice(output, engine, max_batch_tokens) or tune(
        bundle, engine=engine, max_batch_tokens=max_batch_tokens
    )
    identity.update(
        {
            "bundle": bundle.digest,
            "max batch tokens": choice.max_batch_tokens,
            "engine": choice.engine,
            "keep columns": list(settings.keep_columns),
        }
    )
    return ScoreRun(
        bundle=bundle,
        output=output,
        shards=source if is_prepared else output.child("shards"),
        corpus=corpus,
        settings=settings,
        max_batch_tokens=choice.max_batch_tokens,
        engine=choice.engine,
        fail_on_bad_row=fail_on_bad_row,
        identity=identity,
    )


def _recorded_choice(
    output: Directory, engine: EngineOption, max_batch_tokens: int | None
) -> EngineChoice | None:
    """What an interrupted run into this output chose, where the user leaves it open; else None."""
    record = output.read_json(RUN_FILE)
    identity = record.get("identity") if isinstance(record, dict) else None
    if not isinstance(identity, dict) or not {"engine", "max batch tokens"} <= identity.keys():
        return None
    if engine not in ("auto", identity["engine"]):
        return None
    check_installed(identity["engine"])
    return EngineChoice(
        engine=identity["engine"],
        max_batch_tokens=max_batch_tokens or identity["max batch tokens"],
    )


def _corpus_identity(bundle: Bundle, corpus: Corpus, settings: CorpusSettings) -> dict[str, Any]:
    return {
        "corpus files": corpus.digest,
        "tokenizer": bundle.preparation_digest,
        "text columns": list(corpus.reader.text_columns),
        "keep columns": list(settings.keep_columns),
        "limit": settings.limit,
        "slice bytes": corpus.slice_bytes,
        "shard seconds": settings.shard_seconds,
        "cost profile": list(bundle.cost_profile.seconds_per_row),
    }


def _prepared_identity(
    source: Directory, bundle: Bundle, settings: CorpusSettings
) -> dict[str, Any]:
    """Identity of prepared shards, after checking that they suit the bundle and settings."""
    identity: dict[str, Any] = dict(source.read_json(IDENTITY_FILE)["identity"])
    if identity["tokenizer"] != bundle.preparation_digest:
        raise InputError(
            f"{source}: prepared for another tokenizer, maximum length or kind of input than "
            f"{bundle.path} has; prepare the corpus with this bundle"
        )
    missing = [name for name in settings.keep_columns if name not in identity["keep columns"]]
    if missing:
        kept = ", ".join(identity["keep columns"]) or "none"
        raise InputError(
            f"{source}: --keep-columns {','.join(missing)}: not prepared (kept columns: {kept}); "
            "prepare again with it"
        )
    if settings.limit is not None:
        raise InputError(f"{source}: --limit applies when a corpus is prepared, not to its shards")
    return identity
