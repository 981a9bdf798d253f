"""The official SuperGLUE files as labeled examples, and marks around spans of a text.

    train.jsonl, val.jsonl -> [superglue] -> Examples -> finetune, compress

    BoolQ     question, passage                   true, false
    RTE, CB   premise, hypothesis                 entailment, ...
    COPA      premise and question, choice        the right one of two
    WiC       two sentences, the word marked      whether it means the same
    WSC       text, noun and pronoun marked       whether they mean the same
    MultiRC   passage, question and answer        whether the answer is right

Wang et al. 2019, arXiv:1905.00537. ReCoRD is not supported. A task about spans of a text becomes
plain classification of a text with marks in it, so that its graph holds the whole model; a corpus
must be marked by `mark_spans` before such a model scores it. This module knows nothing of models.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastformers.data.examples import Columns, Examples, choice_examples, load_examples, read_table
from fastformers.errors import InputError

# One mark for each span of a text: single tokens of every vocabulary, and rare in text.
MARKS = ("*", "#")
# COPA's questions, as SuperGLUE's own baseline words them.
_COPA_QUESTIONS = {
    "cause": "What was the cause of this?",
    "effect": "What happened as a result?",
}

Record = Mapping[str, Any]


def mark_spans(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Put marks around spans of a text: `the * cat * sat`.

    Args:
        text: The text.
        spans: Start and end, in characters, of at most two spans; the first is marked by `*`, the
            second by `#`. They may overlap.

    Raises:
        InputError: A span is empty or beyond the text, or there are more than two.

    Source:
        Entity markers of Baldini Soares et al. 2019, arXiv:1906.03158, with signs that any
        vocabulary has in place of new tokens.
    """
    if len(spans) > len(MARKS):
        raise InputError(f"{len(spans)} spans to mark; at most {len(MARKS)}")
    marks: list[tuple[int, int, int, str]] = []
    for (start, end), mark in zip(spans, MARKS, strict=False):
        if not 0 <= start < end <= len(text):
            raise InputError(f"span {start}-{end} is empty or beyond the text: {text!r:.60}")
        marks += [(start, 1, -end, mark), (end, 0, -start, mark)]
    parts: list[str] = []
    last = 0
    # A span that ends at a place comes before one that starts there; a nested span stays nested.
    for place, _, _, mark in sorted(marks):
        parts += [text[last:place], mark]
        last = place
    parts.append(text[last:])
    # Each mark gets one space on either side, even where the text had none.
    return " ".join(stripped for part in parts if (stripped := part.strip(" ")))


def load_labeled(path: Path, columns: Columns) -> Examples:
    """Read an official SuperGLUE file, or any file by the names of its columns.

    Raises:
        InputError: The file cannot be used, or columns are named for an official file.
    """
    task = columns.superglue
    if task is None:
        return load_examples(path, columns)
    if columns not in (Columns(superglue=task), Columns(superglue=task, label=None)):
        raise InputError(f"--superglue {task}: its columns are known; leave --*-column out")
    return load_superglue(path, task)


def load_superglue(path: Path, name: str) -> Examples:
    """Read an official file; BoolQ may also be Parquet with its column `answer`.

    Args:
        path: .jsonl (or .parquet) with labels.
        name: Name of the task, one of `READERS`.

    Raises:
        InputError: The task is unknown, or a field is missing or makes no sense.
    """
    if name not in READERS:
        raise InputError(f"--superglue {name}: not one of {', '.join(READERS)}")
    records: list[Record] = read_table(path).to_pylist()
    try:
        return READERS[name](records)
    except _FieldError as error:
        raise InputError(f"{path}: {error}; is it an official {name} file with labels?") from error


class _FieldError(Exception):
    """A field is missing or of another kind; the text names the row and the field."""


def _boolq(records: Sequence[Record]) -> Examples:
    label = "answer" if records and "answer" in records[0] else "label"
    return _pairs(records, "question", "passage", label=label)


def _entailment(records: Sequence[Record]) -> Examples:
    return _pairs(records, "premise", "hypothesis", label="label")


def _pairs(records: Sequence[Record], first: str, second: str, *, label: str) -> Examples:
    return Examples(
        texts=[_get(r, row, first, str) for row, r in enumerate(records)],
        text_pairs=[_get(r, row, second, str) for row, r in enumerate(records)],
        labels=[_get(r, row, label, (str, bool)) for row, r in enumerate(records)],
    )


def _copa(records: Sequence[Record]) -> Examples:
    texts, rights = [], []
    for row, record in enumerate(records):
        question = _get(record, row, "question", str)
        if question not in _COPA_QUESTIONS:
            raise _FieldError(f"row {row}: question {question!r} is neither cause nor effect")
        texts.append(f"{_get(record, row, 'premise', str)} {_COPA_QUESTIONS[question]}")
        rights.append(_get(record, row, "label", int))
        if rights[-1] not in (0, 1):
            raise _FieldError(f"row {row}: label {rights[-1]} is neither 0 nor 1")
    choices = [
        [_get(record, row, name, str) for row, record in enumerate(records)]
        for name in ("choice1", "choice2")
    ]
    return choice_examples(texts, choices, rights)


def _wic(records: Sequence[Record]) -> Examples:
    def marked(record: Record, row: int, number: int) -> str:
        start, end = (_get(record, row, f"{name}{number}", int) for name in ("start", "end"))
        return _mark(_get(record, row, f"sentence{number}", str), [(start, end)], row)

    return Examples(
        texts=[marked(record, row, 1) for row, record in enumerate(records)],
        text_pairs=[marked(record, row, 2) for row, record in enumerate(records)],
        labels=[_get(record, row, "label", bool) for row, record in enumerate(records)],
    )


def _wsc(records: Sequence[Record]) -> Examples:
    texts = []
    for row, record in enumerate(records):
        text, target = _get(record, row, "text", str), _get(record, row, "target", dict)
        spans = [
            _find_words(
                text,
                _get(target, row, f"span{number}_index", int),
                _get(target, row, f"span{number}_text", str),
                row,
            )
            for number in (1, 2)
        ]
        texts.append(_mark(text, spans, row))
    labels = [_get(record, row, "label", bool) for row, record in enumerate(records)]
    return Examples(texts=texts, text_pairs=None, labels=labels)


def _multirc(records: Sequence[Record]) -> Examples:
    """Make one example for each answer; the answers to one question form a group."""
    passages: list[str] = []
    answers: list[str] = []
    labels: list[Any] = []
    groups: list[int] = []
    group = 0
    for row, record in enumerate(records):
        passage = _get(record, row, "passage", dict)
        text = _get(passage, row, "text", str)
        for question in _get(passage, row, "questions", list):
            asked = _get(question, row, "question", str)
            for answer in _get(question, row, "answers", list):
                passages.append(text)
                answers.append(f"{asked} {_get(answer, row, 'text', str)}")
                labels.append(bool(_get(answer, row, "label", int)))
                groups.append(group)
            group += 1
    return Examples(texts=passages, text_pairs=answers, labels=labels, groups=groups)


READERS: dict[str, Callable[[Sequence[Record]], Examples]] = {
    "BoolQ": _boolq,
    "RTE": _entailment,
    "CB": _entailment,
    "COPA": _copa,
    "WiC": _wic,
    "WSC": _wsc,
    "MultiRC": _multirc,
}


def _get(record: Record, row: int, field: str, kind: type | tuple[type, ...]) -> Any:
    value = record.get(field)
    if not isinstance(value, kind):
        raise _FieldError(f"row {row}: field {field!r} holds {value!r:.40}")
    return value


def _find_words(text: str, index: int, span: str, row: int) -> tuple[int, int]:
    """Start and end, in characters, of a span that is given by the index of its first word."""
    words = text.split()
    last = index + len(span.split()) - 1
    if not 0 <= index <= last < len(words):
        raise _FieldError(f"row {row}: no words {index} to {last} in its text")
    place = 0
    places: list[tuple[int, int]] = []
    for word in words[: last + 1]:
        start = text.index(word, place)
        place = start + len(word)
        places.append((start, place))
    start, end = places[index][0], places[last][1]
    # The words may carry punctuation that is no part of the span.
    if text[start:end].lower().startswith(span.lower()):
        end = start + len(span)
    return start, end


def _mark(text: str, spans: Sequence[tuple[int, int]], row: int) -> str:
    try:
        return mark_spans(text, spans)
    except InputError as error:
        raise _FieldError(f"row {row}: {error}") from error
