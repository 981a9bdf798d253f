"""Names for the labels of a model: what they may be.

    names of the user -> [label_names] -> finetune, compress, rename_labels

This module knows nothing of models or bundles.
"""

from collections import Counter
from collections.abc import Sequence

from fastformers.errors import InputError
from fastformers.formatting import format_count

TEACHER_LABELS = "teacher_labels"  # field of a bundle's `provenance`: its labels before the names
_SHOWN = 8


def check_label_names(names: Sequence[str], labels: Sequence[str], *, flag: str) -> None:
    """Refuse names that cannot stand for the labels of a model.

    Args:
        names: A name for each label.
        labels: The labels, in the order of the model's outputs; none where it has none.
        flag: What the names were given by, for the message.

    Raises:
        InputError: The model has no labels or another number of them, or a name is empty, repeated
            or cannot be written to a file.
    """
    if not labels:
        raise InputError(f"{flag}: the model has no labels; leave it out")
    if len(names) != len(labels):
        shown = ", ".join(map(repr, labels[:_SHOWN])) + (", ..." if len(labels) > _SHOWN else "")
        raise InputError(
            f"{flag}: {format_count(len(names), 'name')} for {len(labels)} labels ({shown}); give "
            "one for each, in this order"
        )
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{flag}: {name!r} names {count} labels; give each its own")
        if not name.strip() or not _can_be_written(name):
            raise InputError(f"{flag}: {name!r} is no name; give one with letters, in UTF-8")


def _can_be_written(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
