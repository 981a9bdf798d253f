"""Where the rows of a job come from: a corpus, or shards that an earlier `prepare` made of one.

    corpus, or prepared.json + bundle, settings -> [row_source] -> RowSource -> job

Shards must suit the bundle and the settings. This module knows nothing of how shards are made or
scored.
"""

from dataclasses import dataclass
from typing import Any

from fastformers.cluster.corpus.inputs import LABEL_FLAG, is_kept
from fastformers.cluster.corpus.slices import Corpus
from fastformers.cluster.settings import CorpusSettings, PredictionSettings
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import InputError
from fastformers.formats.kept_columns import choose_names
from fastformers.formats.readers import KEEP_FLAG
from fastformers.inference.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """Where the rows of a job come from.

    Attributes:
        corpus: Corpus to prepare; None where all shards are there.
        keep_columns: Names of the columns that pass through to the predictions.
        identity: Values that are equal when the same rows are scored again.
    """

    corpus: Corpus | None
    keep_columns: tuple[str, ...]
    identity: dict[str, Any]


def source_of_corpus(
    corpus: Corpus, bundle: Bundle, settings: CorpusSettings, *, label_column: str | None = None
) -> RowSource:
    """The rows of a corpus.

    Args:
        corpus: The corpus, opened for the bundle.
        bundle: The bundle.
        settings: Which part of the corpus is read, and how it is cut.
        label_column: Column that is read for its labels, and kept only where the settings say so.
    """
    read = corpus.reader.kept_schema.names
    is_own = label_column is None or is_kept(label_column, settings.keep_columns)
    return RowSource(
        corpus=corpus,
        keep_columns=tuple(name for name in read if is_own or name != label_column),
        identity={
            "corpus files": corpus.digest,
            "tokenizer": bundle.preparation_digest,
            "text columns": list(corpus.reader.text_columns),
            "keep columns": read,
            "binary text": settings.binary_text,
            "text files": settings.text_files.identity,
            "limit": settings.limit,
            "slice bytes": corpus.slice_bytes,
            "shard seconds": settings.shard_seconds,
            "cost profile": list(bundle.cost_profile.seconds_per_row),
        },
    )


def source_of_shards(
    source: Directory,
    prepared: dict[str, Any],
    bundle: Bundle,
    settings: CorpusSettings,
    written: PredictionSettings,
) -> RowSource:
    """The rows of prepared shards.

    Args:
        source: Directory of the shards.
        prepared: Identity of the work that made them.
        bundle: The bundle that scores them.
        settings: Which columns are kept; which part of a corpus is read must be left open.
        written: Which column has the labels.

    Raises:
        InputError: They do not suit the bundle or the settings.
    """
    keep_columns = _prepared_columns(source, prepared, settings, written)
    _check_prepared(source, prepared, bundle, settings)
    return RowSource(corpus=None, keep_columns=keep_columns, identity=dict(prepared))


def _prepared_columns(
    source: Directory,
    prepared: dict[str, Any],
    settings: CorpusSettings,
    written: PredictionSettings,
) -> tuple[str, ...]:
    """Columns of prepared shards that the settings keep; that of the labels must be among them."""
    known = prepared["keep columns"]
    if written.label_column not in (None, *known):
        raise InputError(
            f"{source}: {LABEL_FLAG} {written.label_column}: not prepared (kept columns: "
            f"{', '.join(known) or 'none'}); prepare again with {KEEP_FLAG} {written.label_column}"
        )
    names, missing = choose_names(settings.keep_columns, known, flag=KEEP_FLAG)
    if missing:
        raise InputError(
            f"{source}: --keep-columns {','.join(missing)}: not prepared (kept columns: "
            f"{', '.join(known) or 'none'}); prepare again with it"
        )
    return tuple(names)


def _check_prepared(
    source: Directory, prepared: dict[str, Any], bundle: Bundle, settings: CorpusSettings
) -> None:
    """Refuse shards of another tokenizer, and settings that ask for a part of them."""
    if prepared["tokenizer"] != bundle.preparation_digest:
        raise InputError(
            f"{source}: prepared for another tokenizer, maximum length or kind of input than "
            f"{bundle} has; prepare the corpus with this bundle"
        )
    if settings.limit is not None:
        raise InputError(f"{source}: --limit applies when a corpus is prepared, not to its shards")
