import numpy as np
import pytest

from fastformers.compression.pruning.token_plan import (
    LayerCost,
    TokenEffect,
    choose_shares,
    count_multiply_adds,
)

HARMS = (1.0, 4.0, 2.0)  # what a tenth of the tokens does in each layer


class Model:
    """Three layers, each of which minds the tokens it drops by a number of its own."""

    def __init__(self, harms=HARMS, saved=(1000.0, 1000.0, 1000.0)):
        self.harms, self.saved = harms, saved
        self.tried = []

    def measure(self, shares):
        self.tried.append(shares)
        dropped = [1 - share for share in shares]
        harm = sum(10 * a * b for a, b in zip(dropped, self.harms, strict=True))
        return TokenEffect(harm=harm, agreement=1 - harm / 100)

    def cost_of(self, shares):
        return sum(share * saved for share, saved in zip(shares, self.saved, strict=True))

    def choose(self, min_agreement, **options):
        return choose_shares(
            self.measure,
            self.cost_of,
            num_layers=len(self.harms),
            min_agreement=min_agreement,
            **options,
        )


def test_the_layer_that_minds_least_drops_first():
    assert Model().choose(0.965) == (0.7, 1.0, 1.0)
    # Ten steps of 1 leave a tenth in the first; then come two of 2 in the last.
    assert Model().choose(0.865) == (0.1, 1.0, 0.8)


def test_harm_counts_by_the_multiply_adds_that_it_saves():
    assert Model(saved=(100.0, 1000.0, 100.0)).choose(0.955) == (1.0, 0.9, 1.0)


def test_harm_counts_however_small_it_is_and_from_where_the_other_layers_are():
    assert Model(harms=(0.9, 0.5, 0.95)).choose(0.9905) == (1.0, 0.9, 1.0)
    # A step of the first saves ten times as much for 13 times the harm, also after nine of the
    # second; both together would be too much.
    assert Model(harms=(4.0, 0.3), saved=(1000.0, 100.0)).choose(0.9565) == (1.0, 0.1)


def test_what_is_left_is_at_the_level_or_above_and_no_layer_could_drop_more():
    model = Model(harms=(1.0, 1.5, 1.2))
    shares = model.choose(0.9)
    assert model.measure(shares).agreement >= 0.9
    for layer in range(3):
        less = [share - 0.1 * (at == layer) for at, share in enumerate(shares)]
        assert min(less) < 0.1 or model.measure(tuple(less)).agreement < 0.9


def test_no_layer_loses_all_and_none_before_the_first_that_may():
    assert Model().choose(0.0, first_layer=1) == (1.0, 0.1, 0.1)


def test_where_the_first_step_is_too_much_all_tokens_stay():
    assert Model().choose(0.995) == (1.0, 1.0, 1.0)


def test_few_effects_are_measured():
    model = Model()
    model.choose(0.0)
    assert len(model.tried) == len(set(model.tried))
    assert len(model.tried) < 40  # 27 steps; all layers at each step would be 54


def test_multiply_adds_grow_with_the_product_of_what_attends_and_what_enters():
    costs = [
        LayerCost(entering=10, attending=7, pair=2, leaving=5),
        LayerCost(entering=1, attending=0, pair=0, leaving=0),
    ]
    entering, leaving = np.array([[4, 2], [3, 1]]), np.array([[3, 1], [3, 1]])
    for attending, rows in (
        (entering, [17 * 4 + 2 * 16 + 5 * 3 + 3, 17 * 2 + 2 * 4 + 5 * 1 + 1]),
        (leaving, [10 * 4 + 7 * 3 + 2 * 12 + 5 * 3 + 3, 10 * 2 + 7 * 1 + 2 * 2 + 5 * 1 + 1]),
    ):
        counted = count_multiply_adds(costs, entering, attending, leaving)
        assert counted == pytest.approx(np.mean(rows))
