import pytest

torch = pytest.importorskip("torch")

from fastformers.models.variants.token_reduction import TokenPool  # noqa: E402
from fastformers.models.variants.token_states import (  # noqa: E402
    TokenStates,
    choose_tokens,
    match_states,
    pool_states,
)

PAIRS = TokenPool(before_layer=1, every=2, how="mean")


def states(values, lengths, **changes):
    """States (B, T, 1) of rows of the given lengths."""
    values_BT1 = torch.tensor(values, dtype=torch.float32)[..., None]
    weights = (torch.arange(values_BT1.shape[1]) < torch.tensor(lengths)[:, None]).float()
    return TokenStates(values_BKD=values_BT1, weights_BK=weights, **changes)


@pytest.mark.parametrize(("how", "expected"), [("mean", 3.5), ("max", 4.0)])
def test_padding_is_not_pooled(how, expected):
    pool = TokenPool(before_layer=0, every=2, how=how)
    pooled = pool_states(states([[9, 3, 4, 5, -70], [1, -2, 80, 90, 99]], [4, 2]), pool)
    assert pooled.values_BKD[..., 0].tolist()[0] == [9, expected, 5]
    assert pooled.values_BKD[1, :2, 0].tolist() == [1, -2]
    assert pooled.weights_BK.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert pooled.pool == pool


def test_the_teachers_states_are_pooled_and_taken_as_the_students_are():
    student = states([[0.0, 0.0]], [2], positions_BK=torch.tensor([[0, 2]]), pool=PAIRS)
    teacher = states([[1, 2, 4, 6, 8]], [5])
    ours, theirs, weights = match_states(student, teacher)
    assert theirs[0, :, 0].tolist() == [1, 7]
    assert (ours.shape, weights.tolist()) == ((1, 2, 1), [[1, 1]])


def test_a_student_that_does_not_pool_is_pooled_to_be_compared_with_one_that_does():
    student = states([[1, 2, 4]], [3])
    teacher = states([[5, 6, 0]], [3], pool=PAIRS)
    ours, theirs, _ = match_states(student, teacher)
    assert ours[0, :, 0].tolist() == [1, 3]
    assert theirs[0, :, 0].tolist() == [5, 6]


def test_the_first_token_stays_and_equal_ones_by_their_position():
    received = torch.tensor([[0.0, 1, 1, 2], [0, 5, 3, 9]])
    there = torch.tensor([[True, True, True, True], [True, True, True, False]])
    marks = choose_tokens(received, there, torch.tensor([3, 2]))
    assert marks.int().tolist() == [[1, 1, 0, 1], [1, 1, 0, 0]]
