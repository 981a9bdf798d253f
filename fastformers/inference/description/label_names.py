"""Give the labels of a model names that people understand: 0 and LABEL_1 become negative, positive.

    bundle + names -> [label_names] -> the same bundle, whose predictions have these names

The graph knows outputs by their places alone, so only bundle.json changes, in one step, and the
digests with it: the predictions of a run that began under other names are not continued. The card
is written again unless it was edited. This module knows nothing of commands.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fastformers.atomic_file import whole_file
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle, write_manifest
from fastformers.inference.description.model_card import has_own_card, render_card
from fastformers.inference.manifest import CARD_FILE

TEACHER_LABELS = "teacher_labels"  # field of `provenance`: the labels before they got names
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
            f"{flag}: {len(names)} names for {len(labels)} labels ({shown}); give one for each, in "
            "this order"
        )
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{flag}: {name!r} names {count} labels; give each its own")
        if not name.strip() or not _can_be_written(name):
            raise InputError(f"{flag}: {name!r} is no name; give one with letters, in UTF-8")


def name_labels(
    bundle: Bundle, names: Sequence[str], *, flag: str = "names"
) -> tuple[Bundle, bool]:
    """Rename the labels of a bundle where it lies.

    Args:
        bundle: The bundle, in a directory of its own.
        names: A name for each label, in the order of the outputs.
        flag: What the names were given by, for messages.

    Returns:
        The bundle under its new names, and whether its card names them: not if it was edited.

    Raises:
        InputError: The names cannot stand for the labels.
    """
    check_label_names(names, bundle.labels, flag=flag)
    is_own = has_own_card(bundle)
    provenance = {TEACHER_LABELS: list(bundle.labels), **bundle.provenance}
    renamed = write_manifest(
        replace(bundle, labels=tuple(names), provenance=provenance), bundle.path
    )
    if is_own:
        with whole_file(bundle.path / CARD_FILE) as unfinished:
            unfinished.write_text(render_card(renamed), encoding="utf-8")
    return renamed, is_own


def _can_be_written(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
