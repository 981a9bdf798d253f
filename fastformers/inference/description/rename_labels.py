"""Give the labels of a bundle names, where it lies: 0 and LABEL_1 become negative and positive.

    bundle + names -> [rename_labels] -> the same bundle, whose predictions have these names

The graph knows outputs by their places alone, so only bundle.json changes, in one step, and the
digests with it: the predictions of a run that began under other names are not continued. The card
is written again unless it was edited. This module knows nothing of commands.
"""

from collections.abc import Sequence
from dataclasses import replace

from fastformers.atomic_file import whole_file
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle, write_manifest
from fastformers.inference.description.label_names import TEACHER_LABELS, check_label_names
from fastformers.inference.description.model_card import has_own_card, render_card
from fastformers.inference.manifest import CARD_FILE


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
        InputError: The names cannot stand for the labels, or the directory is a cache's.
    """
    if bundle.source is not None:
        raise InputError(
            f"{bundle}: is a copy in a cache; name the labels of a directory of your own"
        )
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
