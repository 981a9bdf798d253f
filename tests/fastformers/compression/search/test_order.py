"""What a search tries next, with made-up qualities and costs."""

import contextlib
from dataclasses import replace

import pytest

from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search.order import (
    LEFT_OUT,
    LONG_TEXT_TOKENS,
    PRUNING_SHARES,
    CascadeStep,
    Outcome,
    SearchSpace,
    expect_steps,
    order_steps,
)

SPACE = SearchSpace(base=RecipeConfig(), num_layers=6, can_shrink=True)


def shape_of(step):
    """Layers and share of pruned neurons, and the share of tokens that stay if any go."""
    if isinstance(step, CascadeStep):
        return "cascade", shape_of(step.first), shape_of(step.second)
    layers, tokens = step.student.student_layers, step.tokens.keep_tokens
    shape = 6 if layers is None else layers, step.prune.prune_ffn
    if step.student.pool_tokens is not None:
        shape = (*shape, "pooled")
    return (*shape, *tokens[:1])


def cost_of(layers, ffn, *tokens):
    share = 0.5 if "pooled" in tokens else tokens[0] if tokens else 1
    return (layers or 0.01) * (1 - ffn) * share


def walk(passes, space=SPACE, *, left_out=lambda *shape: False, drop=lambda *shape: 0.5):
    """The shapes that are tried, and what becomes of each."""
    steps, tried, outcomes = order_steps(space), [], []
    try:
        step = next(steps)
        while True:
            shape = shape_of(step)
            tried.append(shape)
            if shape[0] == "cascade":
                outcomes.append(Outcome(passes=True, seconds_per_million=0.001, drop=0.0))
            elif left_out(*shape):
                outcomes.append(LEFT_OUT)
            else:
                outcome = Outcome(
                    passes=passes(*shape), seconds_per_million=cost_of(*shape), drop=drop(*shape)
                )
                outcomes.append(outcome)
            step = steps.send(outcomes[-1])
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


@pytest.mark.parametrize(
    ("most", "heavily"), [(0.75, [0.75]), (0.67, [0.75, 0.67]), (0.5, [0.75, 0.67])]
)
def test_a_student_that_has_little_left_to_lose_has_a_deeper_one_pruned_heavily(most, heavily):
    def passes(layers, ffn):
        return ffn <= most if layers == 4 else layers == 6 or (layers == 3 and ffn <= 0.25)

    def drop(layers, ffn):
        return 0.9 if layers == 3 else 0.2

    tried, _ = walk(passes, drop=drop)
    assert tried[:7] == [(6, 0), (4, 0), (3, 0), (2, 0), (3, 0.67), (3, 0.5), (3, 0.25)]
    assert tried[7:] == [(4, ffn) for ffn in heavily]
    assert walk(passes)[0] == tried[:7]  # half of what may be lost is enough for pruning


def test_a_student_that_is_pruned_as_far_as_there_is_needs_no_deeper_one():
    tried, _ = walk(lambda layers, ffn: layers >= 3, drop=lambda layers, ffn: 0.9)
    assert tried[-2:] == [(3, 0.67), (3, 0.75)]


def test_the_cheaper_of_two_pruned_students_loses_tokens_and_is_what_pools():
    def passes(layers, ffn, *tokens):
        return layers >= 4 or (layers == 3 and ffn <= 0.25 and "pooled" not in tokens)

    space = replace(REDUCES, mean_tokens=LONG_TEXT_TOKENS)
    tried, _ = walk(passes, space, drop=lambda layers, *others: 0.9 if layers == 3 else 0.2)
    assert (4, 0.75, 0.6) in tried
    assert [shape for shape in tried if "pooled" in shape] == [
        (3, 0, "pooled"),
        (4, 0, "pooled"),
        (4, 0.75, "pooled"),
    ]


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
        expected = expect_steps(SPACE, outcomes[:number])
        assert [shape_of(config) for config in expected] == tried[number:]
    assert expect_steps(SPACE, outcomes) == []


REDUCES = replace(SPACE, can_drop_tokens=True)


def test_what_is_expected_is_cheaper_than_all_before_it():
    """So tokens are dropped from what comes last; here all passes."""
    space = replace(REDUCES, num_layers=12)
    tried, outcomes = walk(lambda *shape: True, space)
    assert len(tried[-1]) == 3
    for number in range(len(tried)):
        expected = [shape_of(config) for config in expect_steps(space, outcomes[:number])]
        assert expected == tried[number:]


def test_what_is_expected_loses_nothing_so_that_a_cascade_may():
    space = replace(SPACE, with_cascades=True)
    teacher = Outcome(passes=True, seconds_per_million=10.0, drop=1.0)
    four_layers = Outcome(passes=False, seconds_per_million=0.1, drop=2.0)
    *_, last = expect_steps(space, [teacher, four_layers])
    assert shape_of(last) == ("cascade", (4, 0), (6, 0.75))
    assert last.max_drop == 1.0


def test_the_cheapest_loses_tokens_as_far_as_it_passes():
    tried, _ = walk(lambda layers, ffn, keep=1: layers >= 3 and ffn <= 0.5 and keep >= 0.8, REDUCES)
    assert tried[-3:] == [(3, 0.5), (3, 0.5, 0.6), (3, 0.5, 0.8)]


def test_one_layer_that_reads_its_first_token_alone_drops_none():
    tried, _ = walk(lambda *shape: True, REDUCES)
    assert [shape for shape in tried if len(shape) > 2] == []


@pytest.mark.parametrize(("reads_all", "number"), [(True, 3), (False, 2)])
def test_every_layer_that_may_drops_tokens(reads_all, number):
    space = replace(REDUCES, reads_all_tokens=reads_all)
    steps, lengths = order_steps(space), set()
    step = next(steps)
    with pytest.raises(StopIteration):
        while True:
            lengths.add(len(step.tokens.keep_tokens))
            layers = step.student.student_layers or 6
            passes = layers >= 3 and not step.prune.is_wanted
            step = steps.send(Outcome(passes=passes, seconds_per_million=layers))
    assert lengths == {0, number}


def test_static_vectors_come_second_and_end_the_search_if_they_pass():
    space = replace(SPACE, can_be_static=True)
    assert walk(lambda *shape: True, space)[0] == [(6, 0), (0, 0)]
    assert walk(lambda layers, ffn: layers >= 4, space)[0][:3] == [(6, 0), (0, 0), (4, 0)]


def test_long_texts_are_pooled_from_the_shallowest_that_passed_to_deeper_ones():
    long = replace(REDUCES, mean_tokens=LONG_TEXT_TOKENS)

    def passes(layers, ffn, *tokens):
        return layers >= (4 if "pooled" in tokens else 3) and not {0.4, 0.6, 0.8} & {*tokens}

    tried, _ = walk(passes, long)
    assert [shape for shape in tried if "pooled" in shape] == [
        (3, 0, "pooled"),
        (4, 0, "pooled"),
        (4, 0.75, "pooled"),
    ]
    short = replace(long, mean_tokens=LONG_TEXT_TOKENS - 1)
    assert [shape for shape in walk(passes, short)[0] if "pooled" in shape] == []


def test_a_cascade_is_of_what_is_cheaper_than_all_that_passes_and_the_best():
    def passes(layers, ffn):
        return layers >= 4 and ffn <= 0.25

    def drop(layers, ffn):
        return 0.1 if layers == 6 else 0.9

    space = replace(SPACE, with_cascades=True, can_be_static=True)
    tried, _ = walk(passes, space, drop=drop)
    assert [shape for shape in tried if shape[0] == "cascade"] == [
        ("cascade", (0, 0), (6, 0)),
        ("cascade", (4, 0.67), (6, 0)),
        ("cascade", (6, 0.75), (6, 0)),
    ]
    *_, last = _steps_of(space, passes, drop)
    assert last.max_drop == pytest.approx(0.9)


def _steps_of(space, passes, drop):
    steps = order_steps(space)
    step = next(steps)
    with contextlib.suppress(StopIteration):
        while True:
            yield step
            if isinstance(step, CascadeStep):
                step = steps.send(LEFT_OUT)
                continue
            shape = shape_of(step)
            step = steps.send(
                Outcome(
                    passes=passes(*shape), seconds_per_million=cost_of(*shape), drop=drop(*shape)
                )
            )


def test_there_is_no_cascade_where_nothing_may_be_lost_to_its_second():
    space = replace(SPACE, with_cascades=True)
    tried, _ = walk(lambda layers, ffn: layers >= 4, space, drop=lambda *shape: 1.0)
    assert [shape for shape in tried if shape[0] == "cascade"] == []
