"""The official SuperGLUE files as labeled examples, and marks around spans of a text.

    train.jsonl, val.jsonl -> [superglue] -> Examples -> finetune, compress

    BoolQ     question, passage                   true, false
    RTE, CB   premise, hypothesis                 entailment, ...
    COPA      premise and question, choice        the right one of two
    WiC       two sentences, the word marked      whether it means the same
    WSC       text, noun and pronoun marked       whether they mean the same
    MultiRC   passage, question and answer        whether the answer is right
    ReCoRD    passage, query with a candidate     whether the candidate fits the query

Wang et al. 2019, arXiv:1905.00537; ReCoRD: Zhang et al. 2018, arXiv:1810.12885. A task about spans
of a text becomes plain classification of a text with marks in it, so that its graph holds the whole
model; a corpus must be marked by `mark_spans` before such a model scores it. This module knows
nothing of models.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastformers.data.answers import is_exact, overlap
from fastformers.data.examples import Columns, Examples, choice_examples, load_examples
from fastformers.data.labeled_files import LabeledRows, read_rows, say_left_out
from fastformers.data.labels import load_label_map, map_label
from fastformers.errors import InputError
from fastformers.formats.readers import UnfitFileError
from fastformers.formats.text_file_config import PLAIN_TEXT_FILES, TextFileConfig

# One mark for each span of a text: single tokens of every vocabulary, and rare in text.
MARKS = ("*", "#")
# COPA's questions, as SuperGLUE's own baseline words them.
_COPA_QUESTIONS = {
    "cause": "What was the cause of this?",
    "effect": "What happened as a result?",
}

# Where ReCoRD's queries have a gap, and what stands between the parts of its passages.
_GAP = "@placeholder"
_HIGHLIGHT = re.compile(r"(?<=[.?!\"'])\n@highlight\n"), re.compile(r"\n@highlight\n")

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
    """Read official SuperGLUE files, or any files by the names of their columns.

    Raises:
        InputError: The files cannot be used, or columns are named for official ones.
    """
    task = columns.superglue
    if task is None:
        return load_examples(path, columns)
    if replace(columns, label="label", label_map=None, text_files=PLAIN_TEXT_FILES) != Columns(
        superglue=task
    ):
        raise InputError(f"--superglue {task}: its columns are known; leave --*-column out")
    examples = load_superglue(path, task, columns.text_files)
    if columns.label is None or columns.label_map is None:
        return examples
    classes = load_label_map(columns.label_map)
    labels = [map_label(label, classes, str(path)) for label in examples.labels]
    return replace(examples, labels=labels, cells=examples.labels)


def load_superglue(
    path: Path, name: str, text_files: TextFileConfig = PLAIN_TEXT_FILES
) -> Examples:
    """Read official files; BoolQ may also have its labels in a column `answer`.

    Args:
        path: JSON lines (or another format of a corpus) with labels.
        name: Name of the task, one of `READERS`.
        text_files: How text files are written.

    Raises:
        InputError: The task is unknown, or a field is missing or makes no sense.
    """
    if name not in READERS:
        raise InputError(f"--superglue {name}: not one of {', '.join(READERS)}")
    reader = READERS[name]
    try:
        rows = _read_fields(path, reader.fields, text_files)
        say_left_out(path, rows.left_out, rows.others.num_rows, "its fields")
        return reader.read(rows.others.to_pylist())
    except (UnfitFileError, _FieldError) as error:
        where = "" if isinstance(error, UnfitFileError) else f"{path}: "
        raise InputError(f"{where}{error}; is it an official {name} file with labels?") from error


def _read_fields(
    path: Path, fields: Sequence[tuple[str, ...]], text_files: TextFileConfig
) -> LabeledRows:
    """Read the fields of a task, in the first of their variants that the files have."""
    *others, last = fields
    for names in others:
        with contextlib.suppress(UnfitFileError):
            return read_rows(path, text_columns=(), other_columns=names, text_files=text_files)
    return read_rows(path, text_columns=(), other_columns=last, text_files=text_files)


class _FieldError(Exception):
    """A field is missing or of another kind; the text names the row and the field."""


def _boolq(records: Sequence[Record]) -> Examples:
    label = "answer" if "answer" in records[0] else "label"
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


def _record(records: Sequence[Record]) -> Examples:
    """Make one example for each entity of a passage and query; those of a query form a group."""
    passages: list[str] = []
    answered: list[str] = []
    labels: list[Any] = []
    groups: list[int] = []
    overlaps: list[float] = []
    group = 0
    for row, record in enumerate(records):
        passage = _get(record, row, "passage", dict)
        text = _get(passage, row, "text", str)
        spans = _get(passage, row, "entities", list)
        candidates = list(dict.fromkeys(_entity(text, span, row) for span in spans))
        if not candidates:
            raise _FieldError(f"row {row}: its passage has no entities")
        for query in _get(record, row, "qas", list):
            asked = _get(query, row, "query", str)
            if _GAP not in asked:
                raise _FieldError(f"row {row}: no {_GAP} in query {asked!r:.40}")
            rights = [_get(a, row, "text", str) for a in _get(query, row, "answers", list)]
            if not rights:
                raise _FieldError(f"row {row}: query {asked!r:.40} has no answers")
            passages += [_join_highlights(text)] * len(candidates)
            answered += [asked.replace(_GAP, candidate) for candidate in candidates]
            labels += [is_exact(candidate, rights) for candidate in candidates]
            overlaps += [overlap(candidate, rights) for candidate in candidates]
            groups += [group] * len(candidates)
            group += 1
    return Examples(
        texts=passages, text_pairs=answered, labels=labels, groups=groups, overlaps=overlaps
    )


@dataclass(frozen=True, kw_only=True)
class OfficialReader:
    """Reads the official files of one task.

    Attributes:
        fields: Variants of the fields that its records have, the rarer one first.
        read: Function that makes examples of at least one record.
    """

    fields: tuple[tuple[str, ...], ...]
    read: Callable[[Sequence[Record]], Examples]


_ENTAILMENT = OfficialReader(fields=(("premise", "hypothesis", "label"),), read=_entailment)
READERS: dict[str, OfficialReader] = {
    "BoolQ": OfficialReader(
        fields=(("question", "passage", "answer"), ("question", "passage", "label")), read=_boolq
    ),
    "RTE": _ENTAILMENT,
    "CB": _ENTAILMENT,
    "COPA": OfficialReader(
        fields=(("premise", "choice1", "choice2", "question", "label"),), read=_copa
    ),
    "WiC": OfficialReader(
        fields=(("sentence1", "sentence2", "start1", "end1", "start2", "end2", "label"),),
        read=_wic,
    ),
    "WSC": OfficialReader(fields=(("text", "target", "label"),), read=_wsc),
    "MultiRC": OfficialReader(fields=(("passage",),), read=_multirc),
    "ReCoRD": OfficialReader(fields=(("passage", "qas"),), read=_record),
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


def _entity(text: str, span: Record, row: int) -> str:
    """Text of an entity of ReCoRD, whose end is its last character."""
    start, end = _get(span, row, "start", int), _get(span, row, "end", int) + 1
    if not 0 <= start < end <= len(text):
        raise _FieldError(f"row {row}: entity {start}-{end - 1} is empty or beyond the text")
    return text[start:end]


def _join_highlights(text: str) -> str:
    """A passage of ReCoRD without the marks of its highlights, which become sentences of it."""
    after_sentence, elsewhere = _HIGHLIGHT
    return elsewhere.sub(". ", after_sentence.sub(" ", text))
