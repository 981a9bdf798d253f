import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.data.examples import SUPERGLUE_TASKS, Columns
from fastformers.data.superglue import READERS, load_labeled, load_superglue, mark_spans
from fastformers.errors import InputError
from fastformers.inference.tasks import MULTIPLE_CHOICE, TEXT_CLASSIFICATION

WIC = {
    "word": "place",
    "sentence1": "Come to my place.",
    "sentence2": "No place for it",
    "start1": 11,
    "end1": 16,
    "start2": 3,
    "end2": 8,
    "version": 1.1,
}
WSC = {
    "text": "Mark told  Pete lies, and he believed Mark.",
    "target": {"span1_index": 0, "span1_text": "mark", "span2_index": 5, "span2_text": "he"},
}
COPA = {"premise": "It rained.", "choice1": "I got wet.", "choice2": "I sang."}
MULTIRC = {
    "passage": {
        "text": "A cat sat.",
        "questions": [
            {
                "question": "Who sat?",
                "idx": 0,
                "answers": [
                    {"text": "A dog", "idx": 0, "label": 0},
                    {"text": "A cat", "idx": 1, "label": 1},
                ],
            },
            {"question": "Sat?", "idx": 1, "answers": [{"text": "Yes", "idx": 2, "label": 1}]},
        ],
    }
}


def write(path, *records):
    path.write_text("".join(json.dumps({**r, "idx": i}) + "\n" for i, r in enumerate(records)))
    return path


@pytest.mark.parametrize(
    ("text", "spans", "expected"),
    [
        ("the cat sat", [(4, 7)], "the * cat * sat"),
        ("the cat sat", [(8, 11), (0, 3)], "# the # cat * sat *"),
        ("a (cat).", [(3, 6)], "a ( * cat * )."),
        ("ab", [(0, 1), (1, 2)], "* a * # b #"),
        # One span within the other, with the same start, with the same end.
        ("their mothers", [(0, 13), (0, 5)], "* # their # mothers *"),
        ("old cats", [(4, 8), (0, 8)], "# old * cats * #"),
        ("as is", [], "as is"),
    ],
)
def test_spans_are_marked(text, spans, expected):
    assert mark_spans(text, spans) == expected


@given(st.text("ab c", min_size=2, max_size=30), st.data())
def test_marks_change_nothing_but_spaces(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    marked = mark_spans(text, [(start, end)])
    assert marked.count("*") == 2
    before, inside, after = (part.replace(" ", "") for part in marked.split("*"))
    assert before == text[:start].replace(" ", "")
    assert inside == text[start:end].replace(" ", "")
    assert after == text[end:].replace(" ", "")


@pytest.mark.parametrize(
    "spans", [[(0, 0)], [(2, 1)], [(-1, 2)], [(0, 99)], [(0, 1), (1, 2), (2, 3)]]
)
def test_spans_that_make_no_sense_are_refused(spans):
    with pytest.raises(InputError, match="span"):
        mark_spans("the cat", spans)


@pytest.mark.parametrize(
    ("name", "record", "texts", "pairs", "labels"),
    [
        pytest.param(
            "BoolQ",
            {"question": "is it", "passage": "It is.", "label": True},
            ["is it"],
            ["It is."],
            [True],
            id="BoolQ",
        ),
        pytest.param(
            "RTE",
            {"premise": "p", "hypothesis": "h", "label": "not_entailment"},
            ["p"],
            ["h"],
            ["not_entailment"],
            id="RTE",
        ),
        pytest.param(
            "CB",
            {"premise": "p", "hypothesis": "h", "label": "neutral"},
            ["p"],
            ["h"],
            ["neutral"],
            id="CB",
        ),
        pytest.param(
            "WiC",
            {**WIC, "label": False},
            ["Come to my * place * ."],
            ["No * place * for it"],
            [False],
            id="WiC",
        ),
        pytest.param(
            "WSC",
            {**WSC, "label": True},
            ["* Mark * told  Pete lies, and # he # believed Mark."],
            None,
            [True],
            id="WSC",
        ),
    ],
)
def test_official_records_become_examples(tmp_path, name, record, texts, pairs, labels):
    examples = load_superglue(write(tmp_path / "val.jsonl", record), name)
    assert (examples.texts, examples.text_pairs, examples.labels) == (texts, pairs, labels)
    assert (examples.groups, examples.task) == (None, TEXT_CLASSIFICATION)


def test_the_choices_of_copa_are_a_group(tmp_path):
    path = write(
        tmp_path / "val.jsonl",
        {**COPA, "question": "effect", "label": 0},
        {**COPA, "question": "cause", "label": 1},
    )
    examples = load_superglue(path, "COPA")
    effect, cause = (
        "It rained. What happened as a result?",
        "It rained. What was the cause of this?",
    )
    assert examples.texts == [effect, effect, cause, cause]
    assert examples.text_pairs == ["I got wet.", "I sang."] * 2
    assert (examples.labels, examples.groups) == ([1, 0, 0, 1], [0, 0, 1, 1])
    assert examples.task == MULTIPLE_CHOICE


def test_the_answers_of_multirc_are_grouped_by_question_across_passages(tmp_path):
    examples = load_superglue(write(tmp_path / "val.jsonl", MULTIRC, MULTIRC), "MultiRC")
    assert examples.texts == ["A cat sat."] * 6
    assert examples.text_pairs == ["Who sat? A dog", "Who sat? A cat", "Sat? Yes"] * 2
    assert examples.labels == [False, True, True] * 2
    assert examples.groups == [0, 0, 1, 2, 2, 3]
    assert examples.task == TEXT_CLASSIFICATION


RECORD = {
    "source": "a paper",
    "passage": {
        "text": "Ann Lee met the Smiths in Rome.\n@highlight\nMrs Lee stays\n@highlight\nRome",
        "entities": [
            {"start": 0, "end": 6},
            {"start": 26, "end": 29},
            {"start": 16, "end": 21},
            {"start": 68, "end": 71},
        ],
    },
    "qas": [
        {
            "query": "@placeholder was met in @placeholder",
            "answers": [{"start": 12, "end": 21, "text": "the Smiths"}],
            "idx": {"passage": 0, "query": 0},
        },
        {
            "query": "It is hot in @placeholder",
            "answers": [
                {"start": 26, "end": 29, "text": "Rome"},
                {"start": 68, "end": 71, "text": "Rome"},
            ],
            "idx": {"passage": 0, "query": 1},
        },
    ],
}


def test_each_entity_of_record_is_a_candidate_of_each_query(tmp_path):
    examples = load_superglue(write(tmp_path / "val.jsonl", RECORD, RECORD), "ReCoRD")
    passage = "Ann Lee met the Smiths in Rome. Mrs Lee stays. Rome"
    assert examples.texts == [passage] * 12
    assert examples.text_pairs[:6] == [
        "Ann Lee was met in Ann Lee",
        "Rome was met in Rome",
        "Smiths was met in Smiths",
        "It is hot in Ann Lee",
        "It is hot in Rome",
        "It is hot in Smiths",
    ]
    assert examples.labels == [False, False, True, False, True, False] * 2  # articles do not count
    assert examples.overlaps == [float(label) for label in examples.labels]
    assert examples.groups == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert examples.task == TEXT_CLASSIFICATION


def test_a_candidate_of_record_may_be_right_in_part(tmp_path):
    query = {"query": "@placeholder stays", "answers": [{"text": "Mrs Lee"}, {"text": "Mary"}]}
    path = write(tmp_path / "val.jsonl", {**RECORD, "qas": [query]})
    examples = load_superglue(path, "ReCoRD")
    assert (examples.labels, examples.overlaps) == ([False] * 3, [0.5, 0, 0])


def test_boolq_may_be_parquet_with_its_answers(tmp_path):
    columns = {"question": ["is it"], "answer": [False], "passage": ["It is."]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "v.parquet")
    assert load_superglue(tmp_path / "v.parquet", "BoolQ").labels == [False]


@pytest.mark.parametrize(
    ("index", "span", "marked"),
    [
        (7, "Mark", "believed * Mark * ."),  # the full stop is not part of the span
        (3, "Lies", "Pete * lies * , and"),
        (1, "told Pete", "Mark * told  Pete * lies"),
        (2, "somebody else", "told * Pete lies, * and"),  # the index decides
    ],
)
def test_words_of_wsc_are_found_by_their_index(tmp_path, index, span, marked):
    target = {**WSC["target"], "span1_index": index, "span1_text": span}
    path = write(tmp_path / "val.jsonl", {**WSC, "target": target, "label": True})
    assert marked in load_superglue(path, "WSC").texts[0].replace("# he #", "he")


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("RTE", {"premise": "p", "label": "entailment"}, "no column 'hypothesis'"),
        ("RTE", {"premise": "p", "hypothesis": "h"}, "no column 'label'"),
        ("RTE", {"premise": "p", "hypothesis": "h", "label": None}, "row 0: field 'label' holds"),
        ("BoolQ", {"question": 3, "passage": "p", "label": True}, "field 'question' holds 3"),
        ("WiC", {**WIC, "end1": 99, "label": True}, "row 0: span 11-99 is empty or beyond"),
        ("COPA", {**COPA, "question": "why", "label": 0}, "question 'why' is neither"),
        ("COPA", {**COPA, "question": "cause", "label": 2}, "label 2 is neither 0 nor 1"),
        (
            "WSC",
            {"text": "Mark", "target": WSC["target"], "label": True},
            "row 0: no words 5 to 5 in its text",
        ),
        ("MultiRC", {"passage": "text"}, "field 'passage' holds 'text'"),
        ("ReCoRD", {**RECORD, "passage": {"text": "a", "entities": []}}, "row 0: .* no entities"),
        (
            "ReCoRD",
            {**RECORD, "passage": {"text": "a b", "entities": [{"start": 2, "end": 3}]}},
            "row 0: entity 2-3 is empty or beyond the text",
        ),
        (
            "ReCoRD",
            {**RECORD, "qas": [{"query": "who?", "answers": [{"text": "a"}]}]},
            "row 0: no @placeholder in query 'who\\?'",
        ),
        (
            "ReCoRD",
            {**RECORD, "qas": [{"query": "@placeholder", "answers": []}]},
            "query '@placeholder' has no answers",
        ),
    ],
)
def test_what_is_no_official_record_is_refused_by_row_and_field(tmp_path, name, record, message):
    path = write(tmp_path / "val.jsonl", record)
    with pytest.raises(InputError, match=rf"val\.jsonl: .*{message}.*an official {name} file"):
        load_superglue(path, name)


def test_an_unknown_task_is_refused_with_the_list(tmp_path):
    with pytest.raises(InputError, match="--superglue SST-2: not one of BoolQ, RTE, CB, COPA"):
        load_superglue(tmp_path / "val.jsonl", "SST-2")


@pytest.mark.parametrize(
    "named",
    [{"text": "premise"}, {"text_pair": "h"}, {"choices": ("a", "b")}],
    ids=str,
)
def test_columns_cannot_be_named_for_official_files(tmp_path, named):
    with pytest.raises(InputError, match=r"--superglue RTE: .*leave --\*-column out"):
        load_labeled(tmp_path / "v.jsonl", Columns(superglue="RTE", **named))


def test_files_without_a_task_are_read_by_their_columns(tmp_path):
    path = write(tmp_path / "v.jsonl", {"text": "a", "label": "x"})
    assert load_labeled(path, Columns()).labels == ["x"]


def test_a_label_map_names_the_classes_of_official_files_too(tmp_path):
    path = write(tmp_path / "v.jsonl", {"question": "q", "passage": "p", "label": True})
    (tmp_path / "map.json").write_text('{"true": "right", "false": "wrong"}')
    columns = Columns(superglue="BoolQ", label_map=tmp_path / "map.json")
    examples = load_labeled(path, columns)
    assert (examples.labels, examples.cells) == (["right"], [True])  # the split is by cells


@pytest.mark.parametrize("name", [name for name in READERS if name != "ReCoRD"])
def test_the_real_files_are_read(shared_data, name):
    path = shared_data / "superglue" / name / "val.jsonl"
    if name == "BoolQ":
        path = shared_data / "boolq" / "validation.parquet"
    examples = load_superglue(path, name)
    expected = {"BoolQ": 3270, "RTE": 277, "CB": 56, "COPA": 200, "WiC": 638, "WSC": 104}
    assert len(examples) == expected.get(name, 4848)
    if name in ("WiC", "WSC"):
        assert all(text.count("*") >= 2 for text in examples.texts)


def test_every_task_that_the_flag_names_has_a_reader():
    assert tuple(READERS) == SUPERGLUE_TASKS
