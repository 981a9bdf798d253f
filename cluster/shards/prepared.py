"""Whether shards that an earlier `prepare` made suit a bundle and settings.

    prepared.json + bundle, settings -> [prepared] -> kept columns, identity -> job

This module knows nothing of how shards are made or scored.
"""

from typing import Any

from fastformers.cluster.corpus.inputs import LABEL_FLAG
from fastformers.cluster.settings import CorpusSettings, PredictionSettings
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import InputError
from fastformers.formats.kept_columns import choose_names
from fastformers.formats.readers import KEEP_FLAG
from fastformers.inference.bundle import Bundle


def prepared_columns(
    source: Directory,
    prepared: dict[str, Any],
    settings: CorpusSettings,
    written: PredictionSettings,
) -> tuple[str, ...]:
    """Columns of prepared shards that the settings keep; that of the labels must be among them.

    Args:
        source: Directory of the shards.
        prepared: Identity of the work that made them.
        settings: Which columns are kept.
        written: Which column has the labels.

    Raises:
        InputError: One of them was not prepared.
    """
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


def prepared_identity(
    source: Directory, prepared: dict[str, Any], bundle: Bundle, settings: CorpusSettings
) -> dict[str, Any]:
    """Identity of prepared shards, after checking that they suit the bundle and settings.

    Raises:
        InputError: They were made for another tokenizer, or the settings ask for a part of them.
    """
    if prepared["tokenizer"] != bundle.preparation_digest:
        raise InputError(
            f"{source}: prepared for another tokenizer, maximum length or kind of input than "
            f"{bundle} has; prepare the corpus with this bundle"
        )
    if settings.limit is not None:
        raise InputError(f"{source}: --limit applies when a corpus is prepared, not to its shards")
    return dict(prepared)
