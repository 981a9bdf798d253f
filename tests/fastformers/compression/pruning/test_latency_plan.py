"""Sizes within a time budget: never more than it, and the best of all combinations."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.compression.pruning.latency_plan import (
    LossCurve,
    LossCurves,
    choose_within,
    plan_within_time,
)
from fastformers.compression.pruning.layer_times import LayerTimes, PartTimes
from fastformers.compression.pruning.pruning_plan import Importance, plan_pruning
from fastformers.errors import InputError

part = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=4)
parts = st.lists(part, min_size=1, max_size=4)


def best_of_all(parts, budget):
    totals = [np.sum(sizes, axis=0) for sizes in itertools.product(*parts)]
    return min((loss for ticks, loss in totals if ticks <= budget), default=None)


@given(parts, st.integers(0, 40))
def test_the_choice_is_the_best_of_all_within_the_budget(parts, budget):
    ticks_PS, losses_PS = zip(*[np.transpose(sizes) for sizes in parts], strict=True)
    best = best_of_all(parts, budget)
    if best is None:
        with pytest.raises(ValueError, match=f"take {budget} ticks or fewer"):
            choose_within(ticks_PS, losses_PS, budget)
        return
    chosen = choose_within(ticks_PS, losses_PS, budget)
    ticks, loss = np.sum([sizes[size] for sizes, size in zip(parts, chosen, strict=True)], axis=0)
    assert ticks <= budget
    assert loss == best


def times_of(num_heads, ffn_width, *, last=1.0):
    """A layer of a thousand ticks, four tenths of them in heads; the last takes a share of them."""

    def part(sizes, ticks):
        return PartTimes(sizes=sizes, ticks=tuple(int(value) for value in ticks))

    heads, widths = tuple(range(1, num_heads + 1)), (16, ffn_width)
    return LayerTimes(
        tick_s=1e-9,
        whole_s=1e-5,
        heads=part(heads, np.linspace(0, 400, num_heads)),
        neurons=part(widths, (0, 600)),
        last_heads=part(heads, np.linspace(0, 400, num_heads) * last),
        last_neurons=part(widths, (0, 600 * last)),
    )


def random_model(num_layers, num_heads, ffn_width, seed):
    """Importance, and curves of very different scales."""
    rng = np.random.default_rng(seed)

    def curve(width):
        sizes = tuple(sorted({1, max(1, width // 2), width}))
        return LossCurve.of(sizes, (*rng.uniform(0, 10 ** rng.uniform(-2, 1), len(sizes) - 1), 0))

    heads, neurons = rng.random((num_layers, num_heads)), rng.random((num_layers, ffn_width))
    importance = Importance(
        heads=tuple(heads.astype(np.float32)),
        neurons=tuple(neurons.astype(np.float32)),
        hidden_D=np.ones(4, np.float32),
        num_heads=num_heads,
        ffn_width=ffn_width,
    )
    curves = LossCurves(
        heads=tuple(curve(num_heads) for _ in heads),
        neurons=tuple(curve(ffn_width) for _ in neurons),
    )
    return importance, curves


def sizes(plan):
    return [(len(heads), len(neurons)) for heads, neurons in zip(*vars(plan).values(), strict=True)]


def loss_of(curves, plan):
    """What the parts of a plan lose, each alone."""
    return sum(
        float(curve.losses_of(np.array(size)))
        for layer, kept in enumerate(sizes(plan))
        for curve, size in zip((curves.heads[layer], curves.neurons[layer]), kept, strict=True)
    )


models = st.builds(
    random_model,
    st.integers(1, 4),
    st.integers(1, 12),
    st.sampled_from([16, 48, 100, 128]),
    st.integers(0, 9),
)
shares = st.floats(0, 0.99)


@given(models, shares, shares, st.sampled_from([1, 16]), st.sampled_from([0.0, 0.1, 1.0]))
def test_a_plan_takes_no_more_time_than_a_uniform_one_and_loses_no_more(
    model, prune_heads, prune_ffn, multiple_of, last
):
    importance, curves = model
    asked = {"prune_heads": prune_heads, "prune_ffn": prune_ffn, "multiple_of": multiple_of}
    times = times_of(importance.num_heads, importance.ffn_width, last=last)
    plan = plan_within_time(importance, curves, times, **asked)
    uniform = plan_pruning(importance, **asked)
    assert times.count_ticks(sizes(plan)) <= times.count_ticks(sizes(uniform))
    assert loss_of(curves, plan) <= loss_of(curves, uniform) + 1e-9
    for scores, heads, neurons in zip(importance.heads, plan.heads, plan.neurons, strict=True):
        assert len(neurons) % multiple_of == 0 or len(neurons) == importance.ffn_width
        gone = np.setdiff1d(np.arange(len(scores)), heads)
        assert len(gone) == 0 or scores[heads].min() >= scores[gone].max()


def test_a_last_layer_that_costs_nothing_keeps_everything():
    importance, curves = random_model(3, 12, 128, seed=1)
    times = times_of(12, 128, last=0.0)
    plan = plan_within_time(importance, curves, times, prune_heads=0.5, prune_ffn=0.5)
    assert sizes(plan)[-1] == (12, 128)


def test_a_part_without_a_share_stays_whole():
    importance, curves = random_model(3, 12, 128, seed=1)
    times = times_of(12, 128)
    only_ffn = plan_within_time(importance, curves, times, prune_heads=0, prune_ffn=0.5)
    assert [heads for heads, _ in sizes(only_ffn)] == [12] * 3
    only_heads = plan_within_time(importance, curves, times, prune_heads=0.5, prune_ffn=0)
    assert [neurons for _, neurons in sizes(only_heads)] == [128] * 3


def test_time_goes_where_outputs_need_it():
    """Two layers of equal cost, of which one matters: it keeps what the other loses."""
    importance, _ = random_model(2, 5, 16, seed=0)
    much, little = (LossCurve.of((1, 5), (loss, 0.0)) for loss in (1.0, 0.01))
    curves = LossCurves(heads=(much, little), neurons=(LossCurve.of((16,), (0.0,)),) * 2)
    plan = plan_within_time(importance, curves, times_of(5, 16), prune_heads=0.2, prune_ffn=0)
    assert [heads for heads, _ in sizes(plan)] == [5, 3]


def test_a_second_round_goes_on_from_the_first():
    importance, curves = random_model(3, 12, 128, seed=2)
    times = times_of(12, 128)
    first = plan_within_time(importance, curves, times, prune_heads=0.3, prune_ffn=0.3)
    left = replace(
        importance,
        heads=tuple(s[kept] for s, kept in zip(importance.heads, first.heads, strict=True)),
        neurons=tuple(s[kept] for s, kept in zip(importance.neurons, first.neurons, strict=True)),
    )
    same = plan_within_time(left, curves, times, prune_heads=0.3, prune_ffn=0.3)
    assert sizes(same) == sizes(first)
    second = plan_within_time(left, curves, times, prune_heads=0.6, prune_ffn=0.6)
    assert times.count_ticks(sizes(second)) < times.count_ticks(sizes(first))
    assert np.all(np.array(sizes(second)) <= sizes(first))


def test_losses_between_the_measured_sizes_grow_with_the_square_of_what_is_gone():
    curve = LossCurve.of((2, 6, 10), (0.64, 0.16, 0.0))
    np.testing.assert_allclose(curve.losses_of(np.array([1, 4, 8, 10])), [0.64, 0.36, 0.04, 0])


def test_noise_makes_no_larger_part_lose_more_or_take_less_time():
    assert LossCurve.of((1, 2, 3), (0.1, 0.3, -0.1)).losses == (0.1, 0.1, 0.0)
    part = PartTimes.of((1, 2, 3), np.array([5e-6, 7e-6, 6e-6]), 1e-6)
    assert part.ticks == (0, 2, 2)


def test_shares_that_make_no_sense_are_refused():
    importance, curves = random_model(1, 2, 16, seed=0)
    plan = partial(plan_within_time, importance, curves, times_of(2, 16), prune_ffn=0.5)
    with pytest.raises(InputError, match="--prune-heads 1: give a share"):
        plan(prune_heads=1)
    with pytest.raises(InputError, match="multiple of 0: give at least 1"):
        plan(prune_heads=0.5, multiple_of=0)
