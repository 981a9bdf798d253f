"""The ratio of two sums, and how far parts of it are from the whole."""

import math
import random

import pytest

from fastformers.cluster.scheduling.forecast.blocks import Prior, RatioBlocks

NOTHING_ASSUMED = Prior(relative=0.0, weight=0.0)
ASSUMED = Prior(relative=0.1, weight=3.0)


def fill(blocks, number, *, correlation=0.0, sigma=0.1, seed=0):
    """Add pairs of x = 2 whose y is 6 give or take `sigma` of it, like their neighbors."""
    rng = random.Random(seed)
    z = rng.gauss(0, 1)
    for _ in range(number):
        z = correlation * z + math.sqrt(1 - correlation**2) * rng.gauss(0, 1)
        blocks.add(2.0, 6.0 * (1 + sigma * z))
    return blocks


def test_the_ratio_is_that_of_the_sums():
    blocks = RatioBlocks()
    assert blocks.ratio is None
    for x, y in ((1.0, 5.0), (3.0, 1.0)):
        blocks.add(x, y)
    assert (blocks.ratio, blocks.sum_x, blocks.sum_y, blocks.count) == (1.5, 4.0, 6.0, 2)


def test_a_pair_without_x_belongs_to_the_one_before_it():
    blocks = RatioBlocks()
    for x, y in ((0.0, 1.0), (1.0, 2.0), (0.0, 3.0), (1.0, 6.0)):
        blocks.add(x, y)
    assert (blocks.ratio, blocks.count) == (6.0, 2)
    assert blocks.spread(NOTHING_ASSUMED).per_x == 0.0  # both are 6


@pytest.mark.parametrize("number", [20, 200, 20_000])
def test_independent_pairs_have_the_variance_of_one_whatever_their_number(number):
    """A pair of x = 2 has a standard deviation of 0.6: 0.18 for each x."""
    spreads = [fill(RatioBlocks(), number, seed=seed).spread(ASSUMED) for seed in range(60)]
    mean = sum(spread.per_x for spread in spreads) / len(spreads)
    assert 0.8 * 0.18 < mean < 1.5 * 0.18
    assert all(spread.freedom >= min(number, 16) + 2 for spread in spreads)


@pytest.mark.parametrize("number", [30, 3000])
def test_pairs_that_resemble_their_neighbors_vary_more_in_sum(number):
    """With a correlation of 0.8 the variance of a long sum is 9 times as large."""
    spreads = [
        fill(RatioBlocks(), number, correlation=0.8, seed=seed).spread(ASSUMED).per_x
        for seed in range(60)
    ]
    assert 0.4 * 9 * 0.18 < sum(spreads) / len(spreads) < 1.6 * 9 * 0.18


@pytest.mark.parametrize(
    ("prior", "correlation"),
    [(NOTHING_ASSUMED, 0.5), (Prior(relative=0.1, weight=4.0), 0.25)],
)
def test_the_spread_is_what_the_formula_says(prior, correlation):
    """Of residuals -1, -1, 1, 1: squares of 4, products of neighbors 1, so 1/4 + 1/4 is taken."""
    blocks = RatioBlocks()
    for y in (5.0, 5.0, 7.0, 7.0):
        blocks.add(1.0, y)
    spread = blocks.spread(prior)
    own = 4 * (1 + correlation) / (1 - correlation)
    assert spread.freedom == prior.weight + 3
    assert spread.per_x == pytest.approx((prior.weight * 0.6**2 + own) / spread.freedom)


def test_one_pair_says_what_was_assumed():
    blocks = RatioBlocks()
    blocks.add(2.0, 6.0)
    spread = blocks.spread(ASSUMED)
    assert spread.per_x == pytest.approx((0.1 * 3.0) ** 2 * 2.0)
    assert spread.freedom == 3.0


def test_nothing_has_no_spread():
    with pytest.raises(ValueError, match="no pair"):
        RatioBlocks().spread(ASSUMED)


def test_a_hundred_thousand_pairs_are_a_few_numbers():
    blocks = fill(RatioBlocks(), 100_000)
    assert len(blocks._blocks) <= 32
    assert math.fsum(x for x, _ in blocks._blocks) == blocks.sum_x == 200_000.0
    assert math.fsum(y for _, y in blocks._blocks) == pytest.approx(blocks.sum_y)
