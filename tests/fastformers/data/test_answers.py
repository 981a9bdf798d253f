import pytest

from fastformers.data.answers import is_exact, overlap


@pytest.mark.parametrize(
    ("candidate", "answers", "exact", "f1"),
    [
        ("Rome", ["Rome"], True, 1),
        ("the U.S.", ["US", "America"], True, 1),
        ("New  York's", ["new yorks"], True, 1),
        ("Rome", ["Paris", "Milan"], False, 0),
        ("Barack Obama", ["Obama", "Michelle"], False, 2 / 3),  # 1 of 2 words, all of the answer
        ("Obama Barack", ["Barack Obama"], False, 1),
        ("The", ["a"], True, 0),  # nothing is left of either; the official script says so, too
        ("an apple", ["apple pie crust", "apple pie"], False, 2 / 3),
    ],
)
def test_the_nearest_right_answer_counts(candidate, answers, exact, f1):
    assert is_exact(candidate, answers) == exact
    assert overlap(candidate, answers) == pytest.approx(f1)
