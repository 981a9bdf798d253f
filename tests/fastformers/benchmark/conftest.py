"""What the tests of several parts of the benchmark read off its results."""

import math

import pytest

from fastformers.benchmark.operator_profile import GemmPeak


@pytest.fixture(scope="session")
def count_operations():
    """Operations of a profile in int8 and in float: its least seconds at one operation a second."""
    only_int8 = GemmPeak(int8_ops_per_second=1, float_ops_per_second=math.inf)
    only_float = GemmPeak(int8_ops_per_second=math.inf, float_ops_per_second=1)
    return lambda profile: (profile.least_seconds(only_int8), profile.least_seconds(only_float))
