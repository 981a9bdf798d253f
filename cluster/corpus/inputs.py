"""Open a corpus for a bundle, and check that they fit together.

    command line, bundle -> [inputs] -> corpus -> job, cost

This module knows nothing of Ray, shards or prices.
"""

from collections.abc import Sequence

from fastformers.cluster.corpus.slices import Corpus, open_corpus
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.storage.directory import Directory
from fastformers.cluster.storage.filesystems import connect
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle


def open_corpus_for(
    bundle: Bundle,
    uri: str,
    settings: CorpusSettings,
    *,
    storage: StorageOptions = NO_OPTIONS,
    output: Directory | None = None,
) -> Corpus:
    """Open a corpus that a bundle can score.

    Args:
        bundle: The bundle.
        uri: A file, a directory, a glob, or a URI of one of them.
        settings: Which part of it is read.
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
    corpus = open_corpus(
        uri,
        text_columns=columns,
        keep_columns=settings.keep_columns,
        options=settings.read_options,
        storage=storage,
        output=output.path if output is not None and output.store == store else None,
    )
    check_kept(bundle, corpus.reader.kept_schema.names)
    return corpus


def check_kept(bundle: Bundle, keep_columns: Sequence[str]) -> None:
    """Refuse to keep a column that has the name of a prediction.

    Raises:
        InputError: A kept column has such a name.
    """
    for name in (*bundle.task.column_names, "error"):
        if name in keep_columns:
            raise InputError(
                f"--keep-columns {name}: the predictions have a column of that name; rename yours, "
                "or name the columns to keep"
            )
