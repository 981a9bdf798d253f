"""Fixtures that the tests of several parts of the benchmark share."""

import math

import pytest

from fastformers.benchmark.operator_profile import GemmPeak


@pytest.fixture(scope="session")
def count_operations():
    """Operations of a profile in int8 and in float, as its least seconds at one per second."""
    only_int8 = GemmPeak(int8_ops_per_second=1, float_ops_per_second=math.inf)
    only_float = GemmPeak(int8_ops_per_second=math.inf, float_ops_per_second=1)
    return lambda profile: (profile.least_seconds(only_int8), profile.least_seconds(only_float))
