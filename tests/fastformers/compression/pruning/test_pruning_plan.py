import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.compression.pruning.pruning_plan import Importance, plan_pruning, plan_rounds
from fastformers.errors import InputError


def importance_of(heads, neurons, *, num_heads=None, ffn_width=None):
    return Importance(
        heads=tuple(np.array(layer, np.float32) for layer in heads),
        neurons=tuple(np.array(layer, np.float32) for layer in neurons),
        hidden_D=np.ones(4, np.float32),
        num_heads=num_heads or len(heads[0]),
        ffn_width=ffn_width or len(neurons[0]),
    )


def random_importance(num_layers, num_heads, ffn_width, seed=0):
    rng = np.random.default_rng(seed)
    return importance_of(rng.random((num_layers, num_heads)), rng.random((num_layers, ffn_width)))


def sizes(plan):
    """Heads and neurons of each layer after pruning."""
    return [(len(heads), len(neurons)) for heads, neurons in zip(*vars(plan).values(), strict=True)]


models = st.builds(
    random_importance, st.integers(1, 5), st.integers(1, 12), st.integers(1, 100), st.integers(0, 9)
)
shares = st.floats(0, 0.99)


@given(models, shares, shares, st.integers(1, 40))
def test_what_stays_is_counted_right(importance, prune_heads, prune_ffn, multiple_of):
    plan = plan_pruning(
        importance,
        prune_heads=prune_heads,
        prune_ffn=prune_ffn,
        multiple_of=multiple_of,
    )
    num_layers = len(importance.heads)
    for kept, scores, share, multiple in (
        (plan.heads, importance.heads, prune_heads, 1),
        (plan.neurons, importance.neurons, prune_ffn, multiple_of),
    ):
        full = len(scores[0])
        for layer in kept:
            assert layer.tolist() == sorted(set(layer.tolist()))
            assert layer[-1] < full
            assert len(layer) >= min(multiple, full)
            assert len(layer) == full or len(layer) % multiple == 0
        # At least the share goes, unless the least that a layer keeps forbids it; and at most one
        # block of each layer more than that.
        num_kept, wanted = sum(map(len, kept)), num_layers * full * (1 - share)
        assert num_kept <= max(wanted + 1e-6, num_layers * min(multiple, full))
        assert num_kept > wanted - num_layers * multiple - 1e-6


@given(models, shares, shares, st.integers(1, 40))
def test_each_layer_keeps_its_best_and_as_many_as_the_others(
    importance, prune_heads, prune_ffn, multiple_of
):
    plan = plan_pruning(
        importance, prune_heads=prune_heads, prune_ffn=prune_ffn, multiple_of=multiple_of
    )
    for kept, scores in ((plan.heads, importance.heads), (plan.neurons, importance.neurons)):
        assert len({len(layer) for layer in kept}) == 1
        for layer, score in zip(kept, scores, strict=True):
            gone = np.setdiff1d(np.arange(len(score)), layer)
            if len(gone):
                assert score[layer].min() >= score[gone].max()


@given(models, shares, shares, st.integers(1, 40))
def test_planning_again_after_pruning_takes_nothing_more(
    importance, prune_heads, prune_ffn, multiple_of
):
    asked = {
        "prune_heads": prune_heads,
        "prune_ffn": prune_ffn,
        "multiple_of": multiple_of,
    }
    plan = plan_pruning(importance, **asked)
    pruned = importance_of(
        [scores[kept] for scores, kept in zip(importance.heads, plan.heads, strict=True)],
        [scores[kept] for scores, kept in zip(importance.neurons, plan.neurons, strict=True)],
        num_heads=importance.num_heads,
        ffn_width=importance.ffn_width,
    )
    assert sizes(plan_pruning(pruned, **asked)) == sizes(plan)


@pytest.mark.parametrize(
    ("share", "heads_left", "neurons_left"),
    [(0, 12, 1200), (0.25, 9, 896), (0.33, 8, 800), (0.5, 6, 592), (0.9, 1, 112), (0.99, 1, 16)],
)
def test_the_papers_student_is_rounded_as_documented(share, heads_left, neurons_left):
    plan = plan_pruning(random_importance(4, 12, 1200), prune_heads=share, prune_ffn=share)
    assert sizes(plan) == [(heads_left, neurons_left)] * 4


def test_exact_shares_are_not_lost_to_floating_point():
    assert 20 * (1 - 0.9) < 2
    plan = plan_pruning(random_importance(1, 20, 20), prune_heads=0.9, prune_ffn=0.9, multiple_of=1)
    assert sizes(plan) == [(2, 2)]


def test_shares_are_of_the_unpruned_model():
    heads = [[1, 2, 3, 4, 5, 6]] * 2
    importance = importance_of(heads, np.ones((2, 48)), num_heads=8, ffn_width=64)
    plan = plan_pruning(importance, prune_heads=0.5, prune_ffn=0.5)
    assert sizes(plan) == [(4, 32)] * 2
    already_there = plan_pruning(importance, prune_heads=0.25, prune_ffn=0.1)
    assert sizes(already_there) == [(6, 48)] * 2


@given(st.floats(0, 0.99), st.integers(1, 8))
def test_rounds_take_the_same_share_of_what_is_left_and_end_as_asked(share, num_rounds):
    gone = plan_rounds(share, num_rounds)
    assert len(gone) == num_rounds
    assert gone[-1] == share
    left = 1 - np.array([0, *gone])
    np.testing.assert_allclose(left[1:] / left[:-1], (1 - share) ** (1 / num_rounds))


def test_rounds_add_up_to_what_one_round_takes():
    importance = random_importance(3, 12, 256)
    at_once = sizes(plan_pruning(importance, prune_heads=0.33, prune_ffn=0.5))
    heads, neurons = importance.heads, importance.neurons
    for prune_heads, prune_ffn in zip(plan_rounds(0.33, 3), plan_rounds(0.5, 3), strict=True):
        left = importance_of(heads, neurons, num_heads=12, ffn_width=256)
        plan = plan_pruning(left, prune_heads=prune_heads, prune_ffn=prune_ffn)
        heads = [scores[kept] for scores, kept in zip(heads, plan.heads, strict=True)]
        neurons = [scores[kept] for scores, kept in zip(neurons, plan.neurons, strict=True)]
    assert sizes(plan) == at_once


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prune_heads": 1}, "--prune-heads 1: give a share"),
        ({"prune_heads": -0.1}, "--prune-heads -0.1: give a share"),
        ({"prune_ffn": 33}, "--prune-ffn 33: give a share"),
        ({"prune_ffn": float("nan")}, "--prune-ffn nan: give a share"),
        ({"multiple_of": 0}, "multiple of 0: give at least 1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(asked, message):
    with pytest.raises(InputError, match=message):
        plan_pruning(random_importance(1, 2, 16), **{"prune_heads": 0, "prune_ffn": 0, **asked})


@pytest.mark.parametrize(("share", "rounds"), [(1, 2), (-1, 2), (0.5, 0)])
def test_rounds_that_make_no_sense_are_refused(share, rounds):
    with pytest.raises(InputError, match="give"):
        plan_rounds(share, rounds)
