"""Say which class each label of a file is: a name, a place, a star, true or false.

    label column, class names of a model -> [labels] -> class of each label, and how it was told

A column of numbers does not say what they mean: `1` may be the class called 1, the second of all
or the first. Each reading here takes all labels or none; a name beats a number, and where two
readings of numbers would give different classes, the user decides (`--label-map`). This module
knows nothing of files but their names, and nothing of models but the names of their classes.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastformers.errors import InputError

# Cell of a label column; None where a task needs no labels.
Label = str | int | bool | float | list[str | int] | None

_TRUE_WORDS = frozenset(["true", "t", "yes", "y", "positive", "pos"])
_FALSE_WORDS = frozenset(["false", "f", "no", "n", "negative", "neg"])
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
_GENERIC_NAME = re.compile(r"LABEL_\d+")  # what transformers calls classes without names
SHOWN_NAMES = 8  # in a message or a line
_MAP_ADVICE = 'with --label-map FILE, a JSON object such as {"1": "name of its class"}'


@dataclass(frozen=True, kw_only=True)
class LabelReading:
    """What the labels of some files were taken for.

    Attributes:
        class_of: Class index of each distinct label.
        how: How they were read, for the user: "by name".
    """

    class_of: dict[Label, int]
    how: str


def read_labels(
    labels: Iterable[Label], names: Sequence[str], where: str, *, has_places: bool = True
) -> LabelReading:
    """Find the one reading of some labels that suits the classes of a model.

    Args:
        labels: Labels of all files that must be read alike; none is a list.
        names: The C class names, by class index.
        where: The files, for the message.
        has_places: Whether the order of the classes is known to who wrote the labels, so that a
            number may be the place of a class.

    Raises:
        InputError: No reading takes all labels, or two take them for different classes.
    """
    distinct = list(dict.fromkeys(labels))
    if len(set(names)) < len(names):
        raise InputError(f"{where}: two of the model's classes have one name; mend its id2label")
    exact = {name: index for index, name in enumerate(names)}
    folded = _unique({_fold(name): index for index, name in enumerate(names)}, names)
    truths = _truths(names)
    by_name = [_class_by_spelling(label, exact) for label in distinct]
    for how, found in (
        ("by name", by_name),
        ("by name, whatever case and spaces", [folded.get(_fold(text_of(x))) for x in distinct]),
        ("as true and false", [truths.get(truth_of(x)) for x in distinct]),
    ):
        if None not in found:
            return _reading(distinct, found, how)
    named = {x: index for x, index in zip(distinct, by_name, strict=True) if index is not None}
    readings = [  # a number that is a name is no place
        reading
        for reading in _number_readings(distinct, names, has_places)
        if named.items() <= reading.class_of.items()
    ]
    if not readings:
        is_place = has_places and not named
        unread = [x for x in distinct if not (x in named or (is_place and _is_place(x, names)))]
        raise _unknown((unread or distinct)[0], names, where)
    first, *others = readings
    for other in others:
        differing = [x for x in distinct if other.class_of[x] != first.class_of[x]]
        if differing:
            label = differing[0]
            raise InputError(
                f"{where}: label {label!r} may be class {names[first.class_of[label]]!r} "
                f"({first.how}) or {names[other.class_of[label]]!r} ({other.how}); "
                f"say which {_MAP_ADVICE}"
            )
    return first


def load_label_map(path: Path) -> dict[str, str]:
    """Read a JSON object that names the class of each value of a label column.

    Raises:
        InputError: The file is missing or holds something else.
    """
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--label-map {path}: cannot be read: {error}".splitlines()[0]) from error
    if not isinstance(classes, dict) or not all(isinstance(c, str) for c in classes.values()):
        raise InputError(
            f'--label-map {path}: expected an object of class names, such as {{"1": "good"}}'
        )
    return classes


def map_label(label: Label, classes: Mapping[str, str], where: str) -> Label:
    """The class name that the user gave a label, or each label of a list.

    Raises:
        InputError: The map leaves the label out.
    """
    if isinstance(label, list):
        return [str(map_label(part, classes, where)) for part in label]
    for spelling in _spellings(label):
        if spelling in classes:
            return classes[spelling]
    raise InputError(f"{where}: label {label!r} is not in --label-map; add it")


def number_of(label: object) -> int | None:
    """The whole number that a label is or spells; None for any other label, truth included."""
    if isinstance(label, str):
        text = label.strip()
        return int(text.partition(".")[0]) if _WHOLE_NUMBER.fullmatch(text) else None
    if isinstance(label, bool) or not isinstance(label, int | float):
        return None
    return int(label) if label == label // 1 else None


def truth_of(label: Label) -> bool | None:
    """Whether a label says true or false; None if it says neither."""
    if isinstance(label, bool) or not isinstance(label, str):
        return label if isinstance(label, bool) else None
    word = _fold(label)
    return True if word in _TRUE_WORDS else False if word in _FALSE_WORDS else None


def text_of(label: Label) -> str:
    """The name of the class that a label makes: that of 1.0 is 1."""
    return _spellings(label)[0]


def _show_names(names: Sequence[object]) -> str:
    """The first names of many, for a message."""
    return ", ".join(map(str, names[:SHOWN_NAMES])) + (", ..." if len(names) > SHOWN_NAMES else "")


def _reading(labels: Sequence[Label], found: Sequence[int | None], how: str) -> LabelReading:
    pairs = zip(labels, found, strict=True)
    return LabelReading(class_of={x: index for x, index in pairs if index is not None}, how=how)


def _number_readings(
    labels: Sequence[Label], names: Sequence[str], has_places: bool
) -> list[LabelReading]:
    """Every way to read all labels as numbers."""
    numbers = [number_of(label) for label in labels]
    in_names, truths = _numbers_in(names), _truths(names)
    ways: list[tuple[str, Callable[[int], int | None]]] = [
        ("by the numbers in the names", in_names.get)
    ]
    if has_places:
        ways += [
            ("by place from 0", lambda n: n if 0 <= n < len(names) else None),
            ("by place from 1", lambda n: n - 1 if 1 <= n <= len(names) else None),
            ("1 for true", lambda n: truths.get(n == 1) if n in (0, 1) else None),
        ]
    readings = []
    for how, class_of in ways:
        found = [None if number is None else class_of(number) for number in numbers]
        if None not in found:
            readings.append(_reading(labels, found, how))
    return readings


def _is_place(label: Label, names: Sequence[str]) -> bool:
    number = number_of(label)
    return number is not None and 0 <= number < len(names)


def _unknown(label: Label, names: Sequence[str], where: str) -> InputError:
    """The error that refuses a label; the caller raises it."""
    return InputError(
        f"{where}: label {label!r} is not one of the model's {len(names)} labels "
        f"({_show_names(names)}); fix the label column or the model's id2label, or name the class "
        f"of each value {_MAP_ADVICE}"
    )


def _class_by_spelling(label: Label, exact: Mapping[str, int]) -> int | None:
    return next((exact[text] for text in _spellings(label) if text in exact), None)


def _spellings(label: Label) -> list[str]:
    """How a file of text may spell a label, the usual way first."""
    text = str(label)
    if isinstance(label, bool):
        return [text, text.lower()]
    if isinstance(label, float) and (number := number_of(label)) is not None:
        return [str(number), text]
    return [text]


def _fold(name: str) -> str:
    """A name without its case and spaces; dashes and underscores between words are spaces."""
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", name.strip()).casefold()


def _unique(index_of: dict[str, int], names: Sequence[str]) -> dict[str, int]:
    """The same, or nothing if two names share a key."""
    return index_of if len(index_of) == len(names) else {}


def _truths(names: Sequence[str]) -> dict[bool | None, int]:
    """The class that means true, and the one that means false; nothing if the names do not say."""
    if len(names) == 2 and all(map(_GENERIC_NAME.fullmatch, names)):
        return {False: 0, True: 1}
    found: dict[bool | None, int] = {truth_of(name): index for index, name in enumerate(names)}
    return found if set(found) == {False, True} and len(names) == 2 else {}


def _numbers_in(names: Sequence[str]) -> dict[int, int]:
    """Class by the one number in its name, as in `4 stars`; nothing if a name has no or more.

    The numbers of generic names are places.
    """
    if all(map(_GENERIC_NAME.fullmatch, names)):
        return {}
    numbers = [
        [number] if (number := number_of(name)) is not None else re.findall(r"\d+", name)
        for name in names
    ]
    if any(len(found) != 1 for found in numbers):
        return {}
    index_of = {int(found[0]): index for index, found in enumerate(numbers)}
    return index_of if len(index_of) == len(names) else {}
