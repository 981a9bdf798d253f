"""Set rows apart that train nothing, for whatever chooses: epochs, recipes, thresholds, precision.

    training rows -> [splitting] -> train (weights), select (choices)
    evaluation rows -> the number: they train and choose nothing

Which rows of a training file choose depends on the hash of what they are about, so that these rows
are on one side: equal texts, questions of one first text (the passage of MultiRC and ReCoRD), and
pairs that share the text of the longer column (BoolQ's passage, an NLI pair's premise). The shorter
column does not count: a hypothesis such as "yes" would tie together what has nothing in common. Nor
does a text that is everywhere, such as the same question in each row.

The same file is always split alike, however it is ordered, whatever is evaluated and whatever a
label map calls its classes: `compress` chooses on rows that `finetune` did not train on, and a
student's loss to a teacher that knows the rows by heart would say nothing. Each class gives its
share. This module knows nothing of models.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fastformers.data.examples import LABEL_SEPARATOR, Examples, task_of_cells
from fastformers.errors import InputError
from fastformers.inference.tasks import TEXT_CLASSIFICATION
from fastformers.options import check_option, option

logger = logging.getLogger(__name__)

# One row in fewer is more than 5 points: a choice by so few would be one by chance.
MIN_SELECT_ROWS = 20
_MAX_SHARE = 0.5
# What more rows, or questions, than these have is wording that they share and no passage.
_MAX_SHARED_ROWS, _MAX_SHARED = 20, 0.05


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Where the rows are from that choose and train nothing."""

    share: float = field(
        default=0.1,
        metadata=option(
            "share of the training rows that train nothing and choose instead, the same rows each "
            f"time, each class by its share; 0 for none, and none if fewer than {MIN_SELECT_ROWS} "
            "rows",
            name="select_share",
            metavar="SHARE",
        ),
    )
    file: Path | None = field(
        default=None,
        metadata=option(
            "labeled files whose rows choose, best of rows that the teacher was not trained on (a "
            "share of --train)",
            name="select",
            metavar="FILE",
        ),
    )

    def __post_init__(self) -> None:
        check_option(self, "share", 0 <= self.share <= _MAX_SHARE, f"0 to {_MAX_SHARE:g}")


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """The rows that train, and those that choose.

    Attributes:
        train: Examples that models learn from.
        select: Examples that choices are made on; None where there are none.
        select_path: The file that these come from.
        whole: Examples of the training file, those that choose included if they are from it.
        meaning: How many there are of either, and why, in one line.
    """

    train: Examples
    select: Examples | None
    select_path: Path
    whole: Examples
    meaning: str


def split_rows(
    config: SelectConfig,
    train: Examples,
    path: Path,
    *,
    given: Examples | None,
    evaluation: Examples | None,
) -> SplitRows:
    """Decide which rows choose; none of them trains, and none is evaluated.

    Args:
        config: Where they are from.
        train: Examples of the training file.
        path: That file, for messages.
        given: Examples of the file that the config names; None if it names none.
        evaluation: Examples of the evaluation file; None if there is none.

    Raises:
        InputError: Each text of the given examples trains or is evaluated, too.
    """
    evaluated = () if evaluation is None else (evaluation,)
    for one in evaluated:
        _warn_of_evaluated(train, one, path)
    rest = train
    select: Examples | None
    if given is not None:
        assert config.file is not None
        select = leave_out_known(given, train, *evaluated, path=config.file)
        if (number := _num_judged(select)) < MIN_SELECT_ROWS:
            logger.warning(
                "--select %s: %d rows choose; so few choose by chance, so give %d or more",
                config.file,
                number,
                MIN_SELECT_ROWS,
            )
        meaning = f"{len(train):,} train, {len(select):,} of {config.file} choose"
    else:
        rest, select = split_off(train, config.share, but=evaluated)
        meaning = f"{len(rest):,} train, {len(select):,} others of {path} choose"
        if (number := _num_judged(select)) < MIN_SELECT_ROWS:
            meaning = f"{len(train):,} train, none choose"
            if config.share:
                what = "" if number == len(select) else "questions "
                few = f"gives {number} {what}that --eval has not: too few"
                meaning += f" (--select-share {config.share:g} {few})"
            rest, select = train, None
    return SplitRows(
        train=rest,
        select=select,
        select_path=config.file or path,
        whole=train,
        meaning=meaning,
    )


def split_off(
    examples: Examples, share: float, *, but: Iterable[Examples] = ()
) -> tuple[Examples, Examples]:
    """Split a share of the examples off, of each class alike where the labels are classes.

    Args:
        examples: Training examples.
        share: Share of them, 0 to 1; the rows of equal texts, or of one passage, stay together.
        but: Examples whose texts are not split off: they are left with the others, with all that
            must be on their side, and are not replaced, so that the same texts are split off
            whatever is evaluated.

    Returns:
        The other examples, and those split off, each in the order of the file.
    """
    hashed = _Hashed.of(examples)
    shared = _shared_wording(hashed)
    keys = hashed.keys(shared)
    rows_of: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    class_of_row = _classes(examples)
    num_rows = Counter(class_of_row)
    classes: dict[str, list[bytes]] = {}
    for key in sorted(rows_of):
        of_key = {class_of_row[row] for row in rows_of[key]}
        rarest = min(of_key, key=lambda name: (num_rows[name], name))
        classes.setdefault(rarest, []).append(key)
    # The place of each key in its class, 0 to 1: the lowest of all classes are taken together.
    places = {
        key: (place + 0.5) / len(of_class)
        for of_class in classes.values()
        for place, key in enumerate(of_class)
    }
    wanted, chosen, num_chosen = round(share * len(keys)), set[bytes](), 0
    for key in sorted(places, key=lambda key: (places[key], key)):
        if num_chosen + len(rows_of[key]) <= wanted:
            chosen.add(key)
            num_chosen += len(rows_of[key])
    known = {identity for one in but for identity in _Hashed.of(one).identities(shared)}
    identities = hashed.identities(shared)
    chosen -= {key for key, one in zip(keys, identities, strict=True) if one in known}
    select = [row for row, key in enumerate(keys) if key in chosen]
    rest = [row for row, key in enumerate(keys) if key not in chosen]
    return examples.take(rest), examples.take(select)


def leave_out_known(given: Examples, *others: Examples, path: Path) -> Examples:
    """The examples whose texts are not among others; a line says how many are left out.

    Args:
        given: Examples that are to choose.
        others: Examples of the training and the evaluation file.
        path: The file that the given examples come from, for messages.

    Raises:
        InputError: None are left.
    """
    hashed, hashed_others = _Hashed.of(given), [_Hashed.of(one) for one in others]
    shared = _shared_wording(hashed, *hashed_others)
    known = {identity for one in hashed_others for identity in one.identities(shared)}
    new = given.take([row for row, one in enumerate(hashed.identities(shared)) if one not in known])
    if len(new) == 0:
        raise InputError(
            f"--select {path}: each of its texts is in --train or --eval, too; give others"
        )
    if len(new) < len(given):
        logger.warning(
            "--select %s: %s of %s rows are left out: their texts are in --train or --eval, too",
            path,
            f"{len(given) - len(new):,}",
            f"{len(given):,}",
        )
    return new


def _warn_of_evaluated(train: Examples, evaluation: Examples, path: Path) -> None:
    """Log one line where texts that say how good a model is train it, too."""
    known = set(_text_keys(train))
    if number := sum(key in known for key in _text_keys(evaluation)):
        logger.warning(
            "%s: has the texts of %s of %s rows of --eval; models are trained on them, and seem "
            "better than they are: take them out of one of the two",
            path,
            f"{number:,}",
            f"{len(evaluation):,}",
        )


def _num_judged(examples: Examples) -> int:
    """Rows that are right or wrong, or questions where one of their rows is the answer."""
    is_choice = examples.task is not None and examples.task.is_choice
    if examples.groups is None or not (is_choice or examples.overlaps is not None):
        return len(examples)
    return len(set(examples.groups))


def _classes(examples: Examples) -> list[str]:
    """The class that each row counts for, by its cell; one for all where these are no classes."""
    cells = examples.labels if examples.cells is None else examples.cells
    has_several = any(isinstance(cell, str) and LABEL_SEPARATOR in cell for cell in cells)
    is_of_classes = task_of_cells(cells) in (None, TEXT_CLASSIFICATION) and not has_several
    return [repr(cell) if is_of_classes and examples.groups is None else "" for cell in cells]


@dataclass(frozen=True, kw_only=True)
class _Hashed:
    """Hashes of rows, made once.

    Attributes:
        subjects: Of what each row is about.
        wholes: Of all texts of each row, or of its question.
        groups: As those of `Examples`.
    """

    subjects: list[bytes]
    wholes: list[bytes]
    groups: list[int] | None

    @classmethod
    def of(cls, examples: Examples) -> "_Hashed":
        wholes = _wholes(examples)
        is_single = examples.groups is None and examples.text_pairs is None
        subjects = wholes if is_single else _subjects(examples)
        return cls(subjects=subjects, wholes=wholes, groups=examples.groups)

    def keys(self, shared: set[bytes]) -> list[bytes]:
        """What must be on one side: what a row is about, or all its texts.

        Args:
            shared: Hashes of wording that says nothing of what a row is about.
        """
        pairs = zip(self.subjects, self.wholes, strict=True)
        return [whole if subject in shared else subject for subject, whole in pairs]

    def identities(self, shared: set[bytes]) -> list[bytes]:
        """What makes rows of two files the same: all their texts, or the same question."""
        return self.wholes if self.groups is None else self.keys(shared)


def _shared_wording(*files: _Hashed) -> set[bytes]:
    """Hashes of what so many rows, or questions, are about that it is no passage."""
    counts = Counter[bytes]()
    for one in files:
        units = range(len(one.subjects)) if one.groups is None else one.groups
        counts.update(subject for subject, _ in set(zip(one.subjects, units, strict=True)))
    most = max(_MAX_SHARED_ROWS, _MAX_SHARED * counts.total())
    return {subject for subject, count in counts.items() if count > most}


def _subjects(examples: Examples) -> list[bytes]:
    """Hash of what each row is about: its text, the longer column of pairs, a question's first."""
    texts = examples.texts
    if examples.groups is not None:
        first_of: dict[int, str] = {}
        for group, text in zip(examples.groups, texts, strict=True):
            first_of.setdefault(group, text)
        texts = [first_of[group] for group in examples.groups]
    elif examples.text_pairs is not None:
        texts = max(texts, examples.text_pairs, key=lambda column: sum(map(len, column)))
    return [_hash(text) for text in texts]


def _wholes(examples: Examples) -> list[bytes]:
    """Hash of all texts of each row, or of its question."""
    if examples.groups is None:
        return _text_keys(examples)
    parts: dict[int, list[str]] = {}
    for row, group in enumerate(examples.groups):
        parts.setdefault(group, []).append(examples.texts[row])
        if examples.text_pairs is not None:
            parts[group].append(examples.text_pairs[row])
    hashes = {group: _hash(*texts) for group, texts in parts.items()}
    return [hashes[group] for group in examples.groups]


def _text_keys(examples: Examples) -> list[bytes]:
    if examples.text_pairs is None:
        return [_hash(text) for text in examples.texts]
    return [_hash(*pair) for pair in zip(examples.texts, examples.text_pairs, strict=True)]


def _hash(*texts: str) -> bytes:
    """Hash of texts, whatever their case and white space."""
    content = "\0".join(" ".join(text.split()).casefold() for text in texts)
    encoded = content.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16, person=b"select").digest()
