"""Open a corpus for a bundle, and check that they fit together.

    command line, bundle -> [inputs] -> corpus -> job, cost

This module knows nothing of Ray, shards or prices.
"""

from fastformers.cluster.corpus.slices import Corpus, open_corpus
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.storage.directory import Directory
from fastformers.cluster.storage.filesystems import connect
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError
from fastformers.formats.kept_columns import ALL_COLUMNS, candidates
from fastformers.formats.readers import KEEP_FLAG
from fastformers.inference.bundle import Bundle

LABEL_FLAG = "--label-column"


def open_corpus_for(
    bundle: Bundle,
    uri: str,
    settings: CorpusSettings,
    *,
    label_column: str | None = None,
    storage: StorageOptions = NO_OPTIONS,
    output: Directory | None = None,
) -> Corpus:
    """Open a corpus that a bundle can score.

    Args:
        bundle: The bundle.
        uri: A file, a directory, a glob, or a URI of one of them.
        settings: Which part of it is read.
        label_column: Column to pass through beside the kept ones, or None.
        storage: How to reach a bucket.
        output: Directory that the run writes to, which may be inside the corpus.

    Raises:
        InputError: The corpus cannot be read, or does not hold what the bundle scores.
    """
    if bundle.text_pairs and settings.text_pair_column is None:
        raise InputError(f"{bundle} scores text pairs: give --text-pair-column")
    if not bundle.text_pairs and settings.text_pair_column is not None:
        raise InputError(f"{bundle} scores single texts: leave --text-pair-column out")
    columns = tuple(c for c in (settings.text_column, settings.text_pair_column) if c is not None)
    store, _ = connect(uri, storage)
    return open_corpus(
        uri,
        text_columns=columns,
        keep_columns=_passengers(settings.keep_columns, label_column),
        keep_flag=KEEP_FLAG if label_column is None else f"{KEEP_FLAG} or {LABEL_FLAG}",
        options=settings.read_options,
        storage=storage,
        output=output.path if output is not None and output.store == store else None,
    )


def is_kept(label_column: str, keep_columns: tuple[str, ...]) -> bool:
    """Whether the user keeps the column of labels, too."""
    return ALL_COLUMNS in keep_columns or label_column in candidates(keep_columns, ())


def _passengers(keep_columns: tuple[str, ...], label_column: str | None) -> tuple[str, ...]:
    """Names of all columns that pass through, as `choose_names` reads them."""
    if label_column is None or is_kept(label_column, keep_columns):
        return keep_columns
    return (*keep_columns, label_column)
