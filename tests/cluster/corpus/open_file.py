"""Open a corpus as most tests do: texts in the column "text", and few options."""

from fastformers.cluster.corpus.slices import open_corpus
from fastformers.formats.readers import ReadOptions


def open_file(path, *, keep=(), text=("text",), skip=False):
    """The corpus at a path; `skip` leaves out what cannot be read."""
    return open_corpus(
        str(path), text_columns=text, keep_columns=keep, options=ReadOptions(skip_unreadable=skip)
    )
