from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastformers.data.examples import Examples
from fastformers.data.targets import (
    class_names_of,
    encode_targets,
    settle_labels,
    task_of_labels,
)
from fastformers.errors import InputError
from fastformers.inference.tasks import (
    EMBEDDING,
    MULTI_LABEL_CLASSIFICATION,
    MULTIPLE_CHOICE,
    REGRESSION,
    TEXT_CLASSIFICATION,
)

FILE = Path("e.csv")
MULTI = MULTI_LABEL_CLASSIFICATION


def examples_of(labels, task=TEXT_CLASSIFICATION):
    return Examples(texts=["x"] * len(labels), text_pairs=None, labels=labels, task=task)


@pytest.mark.parametrize(
    ("labels", "names", "rows"),
    [
        ([["b", "a"], [], ["c"]], ["a", "b", "c"], [[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        ([[10], [9, 10]], ["9", "10"], [[0, 1], [1, 1]]),
        # The labels as a CSV file holds them.
        (["b|a", "", "c", " a | c "], ["a", "b", "c"], [[1, 1, 0], [0] * 3, [0, 0, 1], [1, 0, 1]]),
        ([1, 2, 1], ["1", "2"], [[1, 0], [0, 1], [1, 0]]),
    ],
    ids=str,
)
def test_several_labels_of_a_row_are_marked(labels, names, rows):
    examples = examples_of(labels)
    assert class_names_of(examples, MULTI) == names
    targets_NC = encode_targets(examples, MULTI, names, FILE)
    assert targets_NC.dtype == np.float32
    assert targets_NC.tolist() == rows


def test_a_label_with_the_separator_is_one_label_where_one_is_right():
    examples = examples_of(["a|b", "c"])
    assert class_names_of(examples, TEXT_CLASSIFICATION) == ["a|b", "c"]
    targets_N = encode_targets(examples, TEXT_CLASSIFICATION, ["a|b", "c"], FILE)
    assert targets_N.tolist() == [0, 1]


def test_another_label_among_several_is_named():
    with pytest.raises(InputError, match=r"e\.csv: label 'z' is not one of the model's 2 labels"):
        encode_targets(examples_of([["a", "z"]]), MULTI, ["a", "b"], FILE)


def test_numbers_of_a_regression_may_be_whole():
    targets_N = encode_targets(examples_of([1, 2.5, True]), REGRESSION, [], FILE)
    assert (targets_N.tolist(), targets_N.dtype) == ([1, 2.5, 1], np.float32)


@pytest.mark.parametrize("label", ["high", float("nan"), float("inf"), ["a"]])
def test_what_is_no_number_is_named(label):
    with pytest.raises(InputError, match=r"e\.csv: label .* of example 1 is not a finite number"):
        encode_targets(examples_of([1.0, label]), REGRESSION, [], FILE)


@pytest.mark.parametrize(
    ("of_examples", "of_model", "message"),
    [
        (TEXT_CLASSIFICATION, MULTIPLE_CHOICE, "give --choice-columns"),
        (MULTIPLE_CHOICE, TEXT_CLASSIFICATION, "leave --choice-columns out"),
        (MULTI, TEXT_CLASSIFICATION, "the label column holds lists"),
    ],
)
def test_examples_of_another_task_are_refused(of_examples, of_model, message):
    examples = examples_of([["a"], ["b"]] if of_examples == MULTI else [0, 1], of_examples)
    with pytest.raises(InputError, match=message):
        encode_targets(examples, of_model, ["a", "b"], FILE)


def test_choices_and_embeddings():
    choices = replace(examples_of([0, 1], MULTIPLE_CHOICE), groups=[0, 0])
    assert encode_targets(choices, MULTIPLE_CHOICE, [], FILE).tolist() == [0, 1]
    assert len(encode_targets(examples_of([None] * 3), EMBEDDING, [], FILE)) == 3


def settle(labels, task=TEXT_CLASSIFICATION, names=("a", "b", "c"), **settings):
    """Settled labels of one or more files, and what they were taken for."""
    files = [(Path(f"{number}.csv"), examples_of(of_file)) for number, of_file in enumerate(labels)]
    settled = settle_labels(files, task, names, **settings)
    return [examples.labels for examples in settled.files], settled.meaning


def test_the_labels_of_two_files_are_read_alike_and_counted():
    # The second file alone could be places from 0 or from 1.
    labels, meaning = settle([[0, 2, 2], [1, 2]])
    assert labels == [["a", "c", "c"], ["b", "c"]]
    assert meaning == "3 classes by place from 0: 'a' 1, 'b' 0, 'c' 2"
    assert settle([[1, 3], [2]])[0] == [["a", "c"], ["b"]]
    with pytest.raises(InputError, match=r"^0\.csv and 1\.csv: label 1 may be class"):
        settle([[1, 2], [2]])


def test_settled_labels_are_names_and_stay_so():
    [labels], _ = settle([["C ", "A"]])
    assert labels == ["c", "a"]
    assert settle([labels])[0] == [labels]


def test_many_classes_are_summed_up():
    names = [f"class {chr(0x4E00 + place)}" for place in range(77)]
    _, meaning = settle([[*range(77), 70, 70]], names=names)
    assert meaning.startswith("77 classes by place from 0: 'class 一' 1, 'class 丁' 1,")
    assert meaning.endswith("'class 万' 1, and 71 of 69 more")


@pytest.mark.parametrize(
    ("rows", "names", "labels"),
    [
        ([[0, 1, 1], [0, 0, 0]], "abc", [["b", "c"], []]),
        ([[1, 0], [0, 1]], "ab", [["a"], ["b"]]),
        ([[0, 1], [0, 1]], "ab", [["a", "b"]] * 2),  # these may be places, and no row says more
        ([[0], [1]], "ab", [["a"], ["b"]]),
        ([[1, 2], [2]], "abc", [["a", "b"], ["b"]]),
    ],
    ids=str,
)
def test_rows_of_marks_are_told_from_lists_of_places(rows, names, labels):
    if rows == [[1, 2], [2]]:  # from 0 or from 1
        with pytest.raises(InputError, match="label 1 may be class"):
            settle([rows], MULTI, names)
        return
    assert settle([rows], MULTI, names)[0] == [labels]


def test_marks_are_the_classes_of_a_new_model_and_of_one_label_where_one_is_marked():
    examples = examples_of([[0, 1, 0], [1, 0, 0]])
    assert class_names_of(examples, MULTI) == ["0", "1", "2"]
    labels, meaning = settle([examples.labels])
    assert labels == [["b", "a"]]
    assert meaning == "3 classes marked by 0 and 1: 'a' 1, 'b' 1, 'c' 0"


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        ([[0, 1, 0, 0]], MULTI, "lists of 4 zeros and ones, but the model has 3 labels"),
        ([[0, 1, 1]], TEXT_CLASSIFICATION, "the model gives one label per row"),
        ([["a", "b"]], TEXT_CLASSIFICATION, "the model gives one label per row"),
    ],
)
def test_marks_that_do_not_suit_the_model_are_refused(rows, task, message):
    with pytest.raises(InputError, match=message):
        settle([rows], task)


def test_what_other_labels_are_is_said_too():
    assert settle([["0.5", "4"]], REGRESSION, ())[1] == "numbers from 0.5 to 4"
    assert settle([[None]], EMBEDDING, ())[1] == "none are needed"
    choices = replace(examples_of([0, 1, 1, 0], MULTIPLE_CHOICE), groups=[0, 0, 1, 1])
    settled = settle_labels([(FILE, choices)], MULTIPLE_CHOICE, ())
    assert settled.meaning == "2 questions with 4 choices"
    with pytest.raises(InputError, match=r"0\.csv: label 'high' of example 1 is not a finite"):
        settle([["1", "high"]], REGRESSION, ())


def test_numbers_of_classes_that_are_fractions_ask_for_the_task():
    with pytest.raises(InputError, match=r"e\.csv: .* \(1\.0\): give --task text-classification"):
        task_of_labels(examples_of([1.0, 2.0], None), FILE)
    examples = examples_of([10.0, 9.0, 10.0])
    assert class_names_of(examples, TEXT_CLASSIFICATION) == ["9", "10"]
    assert encode_targets(examples, TEXT_CLASSIFICATION, ["9", "10"], FILE).tolist() == [1, 0, 1]


def test_right_answers_are_class_1():
    examples = replace(examples_of([True, False]), groups=[0, 0])
    assert encode_targets(examples, TEXT_CLASSIFICATION, ["no", "yes"], FILE).tolist() == [1, 0]
    with pytest.raises(InputError, match=r"e\.csv: right answers would be class 0 .* 'yes'"):
        encode_targets(examples, TEXT_CLASSIFICATION, ["yes", "no"], FILE)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["bad", "good", "bad"], [0, 1, 0]),  # as the classes will be called
        ([0, 1, 1], [0, 1, 1]),
        (["LABEL_0", "LABEL_1"], [0, 1]),
    ],
    ids=str,
)
def test_labels_may_be_what_the_classes_will_be_called(labels, expected):
    names, new_names = ["LABEL_0", "LABEL_1"], ["bad", "good"]
    settled = settle_labels(
        [(FILE, examples_of(labels))], TEXT_CLASSIFICATION, names, new_names=new_names
    )
    assert settled.files[0].labels == [names[place] for place in expected]
    assert settled.meaning.endswith("; called 'bad', 'good'")


def test_labels_are_not_half_names_and_half_new_ones():
    examples = examples_of(["LABEL_0", "good"])
    with pytest.raises(InputError, match="label 'good' is not one of the model's"):
        settle_labels(
            [(FILE, examples)],
            TEXT_CLASSIFICATION,
            ["LABEL_0", "LABEL_1"],
            new_names=["bad", "good"],
        )


def test_labels_of_a_new_model_are_names_even_if_the_new_names_are_the_same_words():
    settled = settle_labels(
        [(FILE, examples_of(["a", "b", "a"]))],
        TEXT_CLASSIFICATION,
        ["a", "b"],
        has_places=False,
        new_names=["b", "a"],
    )
    assert settled.files[0].labels == ["a", "b", "a"]
