from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastformers.data.examples import Examples
from fastformers.data.held_out import hold_out, metric_of
from fastformers.inference.tasks import MULTIPLE_CHOICE, TEXT_CLASSIFICATION

FILE = Path("val.jsonl")
# Two questions of three and two candidates.
EXAMPLES = Examples(
    texts=["passage"] * 5,
    text_pairs=[*"abcde"],
    labels=[False, True, False, False, True],
    groups=[0, 0, 0, 1, 1],
    overlaps=[0.5, 1.0, 0.0, 0.4, 1.0],
)
NAMES = ("False", "True")


def outputs(*margins):
    """Logits of two classes, the second better by the margins; the first has any size."""
    return np.array([[row, row + margin] for row, margin in enumerate(margins)], np.float32)


@pytest.mark.parametrize(
    ("margins", "f1", "exact"),
    [
        ((0, 3, 1, -9, -8), 1, 1),
        ((4, 3, 1, -9, -8), 0.75, 0.5),  # candidates of one question are compared, not with 0
        ((0, 0, 1, 2, 1), 0.2, 0),
    ],
)
def test_a_question_is_answered_by_its_best_candidate(margins, f1, exact):
    held_out = hold_out(EXAMPLES, TEXT_CLASSIFICATION, NAMES, FILE)
    found = outputs(*margins)
    assert held_out.measure(found, found) == pytest.approx(f1)
    assert held_out.measure_others(found) == {"exact match": exact}
    assert held_out.measure_agreement(found, outputs(0, 3, 1, -9, -8)) == exact
    assert held_out.metric == metric_of(EXAMPLES, TEXT_CLASSIFICATION) == "F1"
    assert held_out.num_judged == 2


def test_answers_that_are_right_by_themselves_are_classes():
    examples = Examples(
        texts=["p"] * 3, text_pairs=[*"abc"], labels=[False, True, True], groups=[0, 0, 1]
    )
    held_out = hold_out(examples, TEXT_CLASSIFICATION, NAMES, FILE)
    found = outputs(-1, 1, -1)
    assert held_out.measure(found, found) == pytest.approx(2 / 3)
    assert held_out.measure_others(found)["exact match"] == 0.5
    assert held_out.metric == "accuracy"
    assert held_out.num_judged == 3


def test_questions_of_multiple_choice_are_what_is_judged():
    examples = Examples(
        texts=["p"] * 4,
        text_pairs=[*"abcd"],
        labels=[0, 1, 1, 0],
        groups=[0, 0, 1, 1],
        task=MULTIPLE_CHOICE,
    )
    assert hold_out(examples, MULTIPLE_CHOICE, (), FILE).num_judged == 2


def test_examples_whose_answers_overlap_otherwise_are_others():
    """What was measured on the ones is not taken for the others."""
    others = replace(EXAMPLES, overlaps=[0.5, 1.0, 0.25, 0.4, 1.0])
    assert others.digest != EXAMPLES.digest
    assert replace(EXAMPLES).digest == EXAMPLES.digest
