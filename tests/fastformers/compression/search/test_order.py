"""What a search tries next, with made-up qualities and costs."""

import pytest

from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search.order import (
    LEFT_OUT,
    PRUNING_SHARES,
    Outcome,
    SearchSpace,
    expect_recipes,
    order_recipes,
)

SPACE = SearchSpace(base=RecipeConfig(), num_layers=6, can_shrink=True)


def shape_of(config):
    """Layers and share of pruned neurons."""
    return config.student.student_layers or 6, config.prune.prune_ffn


def walk(passes, space=SPACE, *, left_out=lambda layers, ffn: False):
    """The shapes that are tried, and what becomes of each."""
    recipes, tried, outcomes = order_recipes(space), [], []
    try:
        config = next(recipes)
        while True:
            layers, ffn = shape_of(config)
            tried.append((layers, ffn))
            if left_out(layers, ffn):
                outcomes.append(LEFT_OUT)
            else:
                cost = layers * (1 - ffn)
                passed = passes(layers, ffn)
                outcomes.append(Outcome(passes=passed, seconds_per_million=cost))
            config = recipes.send(outcomes[-1])
    except StopIteration:
        return tried, outcomes


@pytest.mark.parametrize(
    ("most", "pruned"),
    [
        (0.1, [0.67, 0.5, 0.25]),
        (0.25, [0.67, 0.5, 0.25]),
        (0.5, [0.67, 0.5]),
        (0.67, [0.67, 0.75]),
        (0.75, [0.67, 0.75]),
    ],
)
def test_how_far_pruning_may_go_is_found_by_bisection(most, pruned):
    tried, _ = walk(lambda layers, ffn: layers >= 4 and ffn <= most)
    assert tried == [(6, 0), (4, 0), (3, 0), *((4, ffn) for ffn in pruned)]


def test_students_get_shallower_until_one_loses_too_much():
    tried, _ = walk(lambda layers, ffn: layers >= 2 and ffn == 0)
    assert tried[:5] == [(6, 0), (4, 0), (3, 0), (2, 0), (1, 0)]
    assert {layers for layers, ffn in tried if ffn} == {2}


def test_a_teacher_that_loses_too_much_in_int8_ends_the_search():
    assert walk(lambda layers, ffn: False)[0] == [(6, 0)]


def test_a_model_that_cannot_be_cut_is_tried_as_it_is():
    space = SearchSpace(base=RecipeConfig(), num_layers=6, can_shrink=False)
    assert walk(lambda layers, ffn: True, space)[0] == [(6, 0)]


def test_what_there_is_no_time_for_rules_nothing_out():
    tried, _ = walk(lambda layers, ffn: layers >= 3, left_out=lambda layers, ffn: layers == 4)
    assert tried[:4] == [(6, 0), (4, 0), (3, 0), (2, 0)]
    assert {layers for layers, ffn in tried if ffn} == {3}


def test_pruning_that_there_is_no_time_for_ends_it():
    tried, _ = walk(lambda layers, ffn: layers >= 4, left_out=lambda layers, ffn: ffn > 0)
    assert tried == [(6, 0), (4, 0), (3, 0), (4, PRUNING_SHARES[2][1])]


def test_what_is_expected_is_what_comes_where_all_passes():
    tried, outcomes = walk(lambda layers, ffn: True)
    for number in range(len(tried)):
        expected = expect_recipes(SPACE, outcomes[:number])
        assert [shape_of(config) for config in expected] == tried[number:]
    assert expect_recipes(SPACE, outcomes) == []
