"""Fixtures that the tests of several parts of the benchmark share."""

import math

import pytest

from fastformers.benchmark import operator_profile
from fastformers.benchmark.operator_profile import GemmPeak

# Shape of the encoder that `encoder_factory` makes: width, feed-forward neurons, classes, heads.
WIDTH, NEURONS, CLASSES, HEADS = 32, 64, 2, 2


@pytest.fixture(scope="session")
def count_operations():
    """Operations of a profile in int8 and in float, as its least seconds at one per second."""
    only_int8 = GemmPeak(int8_ops_per_second=1, float_ops_per_second=math.inf)
    only_float = GemmPeak(int8_ops_per_second=math.inf, float_ops_per_second=1)
    return lambda profile: (profile.least_seconds(only_int8), profile.least_seconds(only_float))


def product(num_tokens, inputs, outputs):
    """Multiplications and additions of a matrix product."""
    return 2 * num_tokens * inputs * outputs


def projections_of(num_rows, length):
    """A whole layer, then one of the first token alone, without keys and values."""
    tokens = num_rows * length
    whole = product(tokens, WIDTH, 3 * WIDTH) + product(tokens, WIDTH, WIDTH)
    whole += 2 * product(tokens, WIDTH, NEURONS)
    first = 2 * product(num_rows, WIDTH, WIDTH) + 2 * product(num_rows, WIDTH, NEURONS)
    return whole + first


def rest_of(num_rows, length):
    """Scores and weighted sums, of all tokens and then of the states, and the head."""
    attention = 2 * product(num_rows * length, length, WIDTH)
    attention += 2 * product(num_rows * HEADS, length, WIDTH)
    attention += 2 * product(num_rows, WIDTH, WIDTH)  # the weights of keys and values
    return attention + product(num_rows, WIDTH, WIDTH) + product(num_rows, WIDTH, CLASSES)


@pytest.fixture
def small_products(monkeypatch):
    """Measures the peak with matrices of no size, at once."""
    monkeypatch.setattr(operator_profile, "_GEMM_SIZES", (8, 16))
    monkeypatch.setattr(operator_profile, "_GEMM_S", 0.01)


@pytest.fixture(scope="session")
def operations_of():
    """Operations of that encoder at a shape: in projections, and in all else."""
    return lambda num_rows, length: (projections_of(num_rows, length), rest_of(num_rows, length))
