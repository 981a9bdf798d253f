"""Split examples off a training file that then train nothing, chosen by their content.

    Examples of --train -> [splitting] -> those that train, those that set a threshold

Whether an example is split off depends on the hash of its text, so that equal texts, and the rows
of one question, are on one side, and the same file is always split alike, however it is ordered.
This module knows nothing of models.
"""

import hashlib
import logging

from fastformers.data.examples import Examples
from fastformers.errors import InputError

logger = logging.getLogger(__name__)

# Of the training rows: enough to tell a loss of a few tenths of a point, and few enough to miss.
HELD_OUT_SHARE, MIN_HELD_OUT, MOST_HELD_OUT_SHARE = 0.1, 1000, 0.25


def split_off(examples: Examples, *, but: Examples, path: str) -> tuple[Examples, Examples]:
    """Split held-out examples off.

    They are a tenth of the examples, 1,000 at least, and a quarter of them at most.

    Args:
        examples: Training examples.
        but: Examples whose texts are not held out: those of the evaluation file.
        path: The file that the examples come from, for messages.

    Returns:
        The other examples, and those held out, each in the order of the file.

    Raises:
        InputError: No examples are left on one side.
    """
    keys = _keys(examples)
    excluded = {*_keys(but)}
    wanted = max(HELD_OUT_SHARE * len(keys), MIN_HELD_OUT)
    wanted = min(wanted, MOST_HELD_OUT_SHARE * len(keys))
    counts: dict[bytes, int] = {}
    for key in keys:
        if key not in excluded:
            counts[key] = counts.get(key, 0) + 1
    chosen: set[bytes] = set()
    num_rows = 0
    for key in sorted(counts):
        if num_rows + counts[key] <= wanted:
            chosen.add(key)
            num_rows += counts[key]
    if not chosen:
        raise InputError(
            f"{path}: {len(keys):,} rows are too few to hold some out for the cascade; give "
            "--cascade-held-out"
        )
    held_out = [row for row, key in enumerate(keys) if key in chosen]
    rest = [row for row, key in enumerate(keys) if key not in chosen]
    return examples.take(rest), examples.take(held_out)


def leave_out_known(held_out: Examples, *others: Examples, path: str) -> Examples:
    """The held-out examples whose texts are not among others; a line says how many are left out.

    Args:
        held_out: Held-out examples.
        others: Examples of the training and the evaluation file.
        path: The file that the held-out examples come from, for messages.

    Raises:
        InputError: None are left.
    """
    new = without_texts_of(held_out, *others)
    if len(new) == 0:
        raise InputError(
            f"{path}: each of its texts is in --train or --eval, too; give others by "
            "--cascade-held-out"
        )
    if len(new) < len(held_out):
        logger.warning(
            "%s: %s of %s rows are left out: their texts are in --train or --eval, too",
            path,
            f"{len(held_out) - len(new):,}",
            f"{len(held_out):,}",
        )
    return new


def without_texts_of(examples: Examples, *others: Examples) -> Examples:
    """The examples whose texts are not among those of others."""
    excluded = {key for one in others for key in _text_keys(one)}
    return examples.take(
        [row for row, key in enumerate(_text_keys(examples)) if key not in excluded]
    )


def _keys(examples: Examples) -> list[bytes]:
    """Hash of what must be on one side: of the text, or of the first text of a question."""
    if examples.groups is None:
        return _text_keys(examples)
    first_of: dict[int, str] = {}
    for group, text in zip(examples.groups, examples.texts, strict=True):
        first_of.setdefault(group, text)
    return [_hash(first_of[group]) for group in examples.groups]


def _text_keys(examples: Examples) -> list[bytes]:
    if examples.text_pairs is None:
        return [_hash(text) for text in examples.texts]
    return [_hash(*pair) for pair in zip(examples.texts, examples.text_pairs, strict=True)]


def _hash(*texts: str) -> bytes:
    content = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16, person=b"held out").digest()
