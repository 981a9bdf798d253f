from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastformers.data.examples import Examples
from fastformers.data.targets import class_names_of, encode_targets
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
    examples = examples_of([0, 1], of_examples)
    with pytest.raises(InputError, match=message):
        encode_targets(examples, of_model, ["a", "b"], FILE)


def test_choices_and_embeddings():
    choices = replace(examples_of([0, 1], MULTIPLE_CHOICE), groups=[0, 0])
    assert encode_targets(choices, MULTIPLE_CHOICE, [], FILE).tolist() == [0, 1]
    assert len(encode_targets(examples_of([None] * 3), EMBEDDING, [], FILE)) == 3
